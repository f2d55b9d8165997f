// L L^T gives back the covariance, regular, singular, or of wildly different scales.
#include "cpu/covariance_factor.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "check.h"

namespace {

using igb::at;
using igb::Size;

// The lower triangle of x^T x for x (rows x n).
std::vector<double> products(const std::vector<double>& x, Size rows, Size n) {
    std::vector<double> p(at(n * n), 0.0);
    for (Size b = 0; b < n; ++b)
        for (Size a = b; a < n; ++a)
            for (Size i = 0; i < rows; ++i) p[at(b * n + a)] += x[at(a * rows + i)] * x[at(b * rows + i)];
    return p;
}

std::vector<double> normals(Size count) {
    std::mt19937 generator(3);
    std::normal_distribution<double> normal;
    std::vector<double> x(at(count));
    for (double& value : x) value = normal(generator);
    return x;
}

struct Factor {
    std::vector<double> l;
    std::vector<Size> order;
};

Factor factor_of(const std::vector<double>& p, Size n, double gain) {
    std::vector<double> scratch(at(n * n)), l(at(n * n));
    std::vector<Size> order = igb::covariance_factor(n, p.data(), gain, 2.2e-16, scratch.data(), l.data());
    return {std::move(l), std::move(order)};
}

void check_gives_back(const std::vector<double>& p, Size n, double gain, double tolerance, bool in_order) {
    const Factor f = factor_of(p, n, gain);
    CHECK(f.order[0] == 0);
    for (Size b = 0; b < n; ++b) {
        CHECK(!in_order || f.order[at(b)] == b);
        for (Size a = b; a < n; ++a) {
            double sum = 0.0;
            for (Size k = 0; k <= b; ++k) sum += f.l[at(k * n + a)] * f.l[at(k * n + b)];
            const Size i = std::max(f.order[at(a)], f.order[at(b)]), j = std::min(f.order[at(a)], f.order[at(b)]);
            const double scale = gain * std::sqrt(p[at(i * n + i)] * p[at(j * n + j)]);
            CHECK(std::abs(sum - gain * p[at(j * n + i)]) <= tolerance * scale);
        }
    }
}

// Row of L that belongs to row i of the matrix.
Size row_of(const Factor& f, Size i) { return std::find(f.order.begin(), f.order.end(), i) - f.order.begin(); }

}  // namespace

int main() {
    const Size n = 23;
    std::vector<double> x = normals(40 * n);
    check_gives_back(products(x, 40, n), n, 0.7, 1e-14, true);

    check_gives_back(products(normals(9 * n), 9, n), n, 1.0, 1e-13, false);  // rank 9 of 23

    for (Size a = 1; a < n; ++a)  // deep prejudice: the differences are 1e-60 of the origin
        for (Size i = 0; i < 40; ++i) x[at(a * 40 + i)] *= 1e-60;
    check_gives_back(products(x, 40, n), n, 1.3, 1e-14, true);

    for (Size i = 0; i < 40; ++i) {  // columns 5 and 9 alike, column 7 zero
        x[at(9 * 40 + i)] = x[at(5 * 40 + i)];
        x[at(7 * 40 + i)] = 0.0;
    }
    const std::vector<double> p = products(x, 40, n);
    check_gives_back(p, n, 1.0, 1e-13, false);
    const Factor f = factor_of(p, n, 1.0);
    for (Size k = 0; k < n; ++k) {
        const double five = f.l[at(k * n + row_of(f, 5))], nine = f.l[at(k * n + row_of(f, 9))];
        // Above the diagonal of L nothing is written.
        CHECK(k > std::min(row_of(f, 5), row_of(f, 9)) || std::abs(five - nine) <= 1e-15 * std::sqrt(p[at(5 * n + 5)]));
        CHECK(k > row_of(f, 7) || f.l[at(k * n + row_of(f, 7))] == 0.0);
    }

    // A spectrum that falls by 1e-24, with noise of single precision: no row may leave its diagonal entry.
    std::vector<double> y = normals(60 * 60);
    for (Size a = 1; a < 60; ++a)
        for (Size i = 0; i < 60; ++i) y[at(a * 60 + i)] *= std::pow(10.0, -0.2 * static_cast<double>(i));
    std::vector<double> q = products(y, 60, 60);
    for (double& value : q) value = static_cast<double>(static_cast<float>(value));
    std::vector<double> scratch(60 * 60), l(60 * 60);
    const std::vector<Size> order = igb::covariance_factor(60, q.data(), 1.0, 1.2e-7, scratch.data(), l.data());
    for (Size a = 0; a < 60; ++a) {
        double norm = 0.0;
        for (Size k = 0; k <= a; ++k) norm += l[at(k * 60 + a)] * l[at(k * 60 + a)];
        const double diagonal = q[at(order[at(a)] * 60 + order[at(a)])];
        CHECK(std::abs(norm / diagonal - 1.0) < 1e-4);
    }
    return summary();
}
