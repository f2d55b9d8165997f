// L L^T gives back the covariance, regular, singular, or of wildly different scales.
#include "cpu/covariance_factor.h"

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

std::vector<double> factor_of(const std::vector<double>& p, Size n, double gain) {
    std::vector<double> scratch(at(n * n)), l(at(n * n));
    igb::covariance_factor(n, p.data(), gain, 2.2e-16, scratch.data(), l.data());
    return l;
}

void check_gives_back(const std::vector<double>& p, Size n, double gain, double tolerance) {
    const std::vector<double> l = factor_of(p, n, gain);
    for (Size b = 0; b < n; ++b) {
        for (Size a = b; a < n; ++a) {
            double sum = 0.0;
            for (Size k = 0; k <= b; ++k) sum += l[at(k * n + a)] * l[at(k * n + b)];
            const double scale = gain * std::sqrt(p[at(a * n + a)] * p[at(b * n + b)]);
            CHECK(std::abs(sum - gain * p[at(b * n + a)]) <= tolerance * scale);
        }
    }
}

}  // namespace

int main() {
    const Size n = 23;
    std::vector<double> x = normals(40 * n);
    check_gives_back(products(x, 40, n), n, 0.7, 1e-14);

    check_gives_back(products(normals(9 * n), 9, n), n, 1.0, 1e-13);  // rank 9 of 23

    for (Size a = 1; a < n; ++a)  // deep prejudice: the differences are 1e-60 of the origin
        for (Size i = 0; i < 40; ++i) x[at(a * 40 + i)] *= 1e-60;
    check_gives_back(products(x, 40, n), n, 1.3, 1e-14);

    for (Size i = 0; i < 40; ++i) {  // columns 5 and 9 alike, column 7 zero
        x[at(9 * 40 + i)] = x[at(5 * 40 + i)];
        x[at(7 * 40 + i)] = 0.0;
    }
    const std::vector<double> p = products(x, 40, n);
    check_gives_back(p, n, 1.0, 1e-13);
    const std::vector<double> l = factor_of(p, n, 1.0);
    for (Size k = 0; k < n; ++k) {
        CHECK(k > 5 || l[at(k * n + 9)] == l[at(k * n + 5)]);
        CHECK(k <= 5 || k > 9 || l[at(k * n + 9)] == 0.0);
        CHECK(k > 7 || l[at(k * n + 7)] == 0.0);
    }
    return summary();
}
