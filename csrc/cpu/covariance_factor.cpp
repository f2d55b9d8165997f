#include "cpu/covariance_factor.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "cpu/blas.h"

namespace igb {

namespace {

// Scaled to unit diagonal, so that the huge part of C (what all inputs share) and the tiny one (what tells them apart)
// are factored on the same footing. Returns the scales, sqrt(C_aa).
std::vector<double> scale_to_correlations(Size n, const double* products, double gain, double* correlations) {
    std::vector<double> scale(at(n)), inverse(at(n));
    for (Size a = 0; a < n; ++a) {
        scale[at(a)] = std::sqrt(gain * products[a * n + a]);
        inverse[at(a)] = scale[at(a)] > 0.0 ? 1.0 / scale[at(a)] : 0.0;
    }
    for (Size b = 0; b < n; ++b) {
        const double* const from = products + b * n;
        double* const to = correlations + b * n;
        for (Size a = b; a < n; ++a) to[a] = gain * from[a] * inverse[at(a)] * inverse[at(b)];
        to[b] = scale[at(b)] > 0.0 ? 1.0 : 0.0;
    }
    return scale;
}

bool pivots_above(Size n, const double* l, double tolerance) {
    for (Size a = 0; a < n; ++a)
        if (!(l[a * n + a] * l[a * n + a] > tolerance)) return false;
    return true;
}

// The largest of the conditional variances, from `first` on in the order.
Size largest(const std::vector<Size>& order, const std::vector<double>& rest, Size first) {
    Size best = first;
    for (Size i = first + 1; i < static_cast<Size>(order.size()); ++i)
        if (rest[at(order[at(i)])] > rest[at(order[at(best)])]) best = i;
    return best;
}

// Cholesky with complete pivoting of a positive semi-definite matrix that rounding may have made slightly indefinite:
// every row of L stays within its diagonal entry, where an order fixed beforehand would divide noise by small pivots.
// Rows of l are in the order of the matrix, columns in the order returned; the matrix is the lower triangle of c.
std::vector<Size> pivoted_cholesky(Size n, const double* c, double tolerance, Size largest_rank, double* l) {
    std::vector<Size> order(at(n));
    std::vector<double> rest(at(n));
    for (Size i = 0; i < n; ++i) {
        order[at(i)] = i;
        rest[at(i)] = c[i * n + i];
    }
    std::fill(l, l + n * n, 0.0);
    for (Size k = 0, rank = 0; k < n && rank < largest_rank; ++k) {
        if (k > 0) std::swap(order[at(k)], order[at(largest(order, rest, k))]);
        const Size p = order[at(k)];
        if (!(rest[at(p)] > tolerance)) {
            if (k == 0) continue;  // the first input may be zero alone
            break;
        }
        double* const column = l + k * n;
        for (Size i = 0; i < n; ++i) column[i] = i < p ? c[i * n + p] : c[p * n + i];
        for (Size j = 0; j < k; ++j) {
            const double factor = l[j * n + p];
            for (Size i = 0; i < n; ++i) column[i] -= factor * l[j * n + i];
        }
        const double pivot = std::sqrt(rest[at(p)]);
        // What is known already (earlier pivots among it) has no covariance left with anything, only noise.
        for (Size i = 0; i < n; ++i) column[i] = rest[at(i)] > tolerance ? column[i] / pivot : 0.0;
        for (Size i = 0; i < n; ++i) rest[at(i)] -= column[i] * column[i];
        rest[at(p)] = 0.0;
        ++rank;
    }
    return order;
}

std::vector<Size> natural_order(Size n) {
    std::vector<Size> order(at(n));
    for (Size i = 0; i < n; ++i) order[at(i)] = i;
    return order;
}

}  // namespace

void covariance_factor(Size n, const double* products, double gain, double accuracy, Size largest_rank,
                       CovarianceFactor& factor) {
    const double tolerance = 16.0 * accuracy;
    factor.l.assign(at(n * n), 0.0);
    double* const l = factor.l.data();
    const std::vector<double> scale = scale_to_correlations(n, products, gain, l);
    factor.pivots = natural_order(n);
    factor.triangular = largest_rank >= n && blas::potrf_lower(at(n), l, at(n)) == 0 && pivots_above(n, l, tolerance);
    if (!factor.triangular) {
        std::vector<double> correlations(at(n * n));
        scale_to_correlations(n, products, gain, correlations.data());
        factor.pivots = pivoted_cholesky(n, correlations.data(), tolerance, largest_rank, l);
    }
    factor.columns.clear();
    factor.smallest = 1.0;
    for (Size k = 0; k < n; ++k) {
        double* const column = l + k * n;
        const double pivot = column[factor.pivots[at(k)]];
        factor.smallest = std::min(factor.smallest, pivot * pivot);
        for (Size i = 0; i < n; ++i) column[i] *= scale[at(i)];
        if (column[factor.pivots[at(k)]] > 0.0) factor.columns.push_back(k);
    }
}

}  // namespace igb
