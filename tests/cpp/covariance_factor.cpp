// L L^T gives back the covariance, regular, singular, or of wildly different scales.
#include "cpu/covariance_factor.h"

#include <algorithm>
#include <cmath>
#include <random>
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

igb::CovarianceFactor factor_of(const std::vector<double>& p, Size n, double gain) {
    igb::CovarianceFactor factor;
    igb::covariance_factor(n, p.data(), gain, 2.2e-16, factor);
    return factor;
}

void check_gives_back(const std::vector<double>& p, Size n, double gain, double tolerance, bool in_order) {
    const igb::CovarianceFactor f = factor_of(p, n, gain);
    CHECK(f.pivots[0] == 0);
    CHECK(f.triangular == in_order);
    for (Size b = 0; b < n; ++b) {
        CHECK(!in_order || f.pivots[at(b)] == b);
        for (Size a = b; a < n; ++a) {
            double sum = 0.0;
            for (Size k = 0; k < n; ++k) sum += f.l[at(k * n + a)] * f.l[at(k * n + b)];
            const double scale = gain * std::sqrt(p[at(a * n + a)] * p[at(b * n + b)]);
            CHECK(std::abs(sum - gain * p[at(b * n + a)]) <= tolerance * scale);
        }
    }
}

// The columns that are not zero, at their pivots, are lower triangular with a positive diagonal; the others are zero.
void check_shape(const igb::CovarianceFactor& f, Size n) {
    for (Size j = 0; j < n; ++j) {
        const bool counts = std::find(f.columns.begin(), f.columns.end(), j) != f.columns.end();
        for (Size i = 0; i < n; ++i) CHECK(counts || f.l[at(j * n + i)] == 0.0);
    }
    for (Size j = 0; j < f.rank(); ++j) {
        const double* const column = f.l.data() + f.columns[at(j)] * n;
        CHECK(column[f.pivots[at(f.columns[at(j)])]] > 0.0);
        for (Size i = 0; i < j; ++i) CHECK(column[f.pivots[at(f.columns[at(i)])]] == 0.0);
    }
}

}  // namespace

int main() {
    const Size n = 23;
    std::vector<double> x = normals(40 * n);
    check_gives_back(products(x, 40, n), n, 0.7, 1e-14, true);

    check_gives_back(products(normals(9 * n), 9, n), n, 1.0, 1e-13, false);
    CHECK(factor_of(products(normals(9 * n), 9, n), n, 1.0).rank() == 9);

    for (Size a = 1; a < n; ++a)  // deep prejudice: the differences are 1e-60 of the origin
        for (Size i = 0; i < 40; ++i) x[at(a * 40 + i)] *= 1e-60;
    check_gives_back(products(x, 40, n), n, 1.3, 1e-14, true);

    for (Size i = 0; i < 40; ++i) {  // columns 5 and 9 alike, column 7 zero
        x[at(9 * 40 + i)] = x[at(5 * 40 + i)];
        x[at(7 * 40 + i)] = 0.0;
    }
    const std::vector<double> p = products(x, 40, n);
    check_gives_back(p, n, 1.0, 1e-13, false);
    const igb::CovarianceFactor f = factor_of(p, n, 1.0);
    check_shape(f, n);
    CHECK(f.rank() == n - 2);
    for (Size k = 0; k < n; ++k) {
        const double five = f.l[at(k * n + 5)], nine = f.l[at(k * n + 9)];
        CHECK(std::abs(five - nine) <= 1e-15 * std::sqrt(p[at(5 * n + 5)]));
        CHECK(f.l[at(k * n + 7)] == 0.0);
    }

    // A spectrum that falls by 1e-24, with noise of single precision: no row may leave its diagonal entry.
    std::vector<double> y = normals(60 * 60);
    for (Size a = 1; a < 60; ++a)
        for (Size i = 0; i < 60; ++i) y[at(a * 60 + i)] *= std::pow(10.0, -0.2 * static_cast<double>(i));
    std::vector<double> q = products(y, 60, 60);
    for (double& value : q) value = static_cast<double>(static_cast<float>(value));
    igb::CovarianceFactor g;
    igb::covariance_factor(60, q.data(), 1.0, 1.2e-7, g);
    check_shape(g, 60);
    CHECK(g.rank() < 60);
    for (Size a = 0; a < 60; ++a) {
        double norm = 0.0;
        for (Size k = 0; k < 60; ++k) norm += g.l[at(k * 60 + a)] * g.l[at(k * 60 + a)];
        CHECK(std::abs(norm / q[at(a * 60 + a)] - 1.0) < 1e-4);
    }
    return summary();
}
