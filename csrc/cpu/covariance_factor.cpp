#include "cpu/covariance_factor.h"

#include <cmath>
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

// Right-looking Cholesky of a positive semi-definite matrix, in place, lower triangle: a pivot at or below the
// tolerance is taken as zero, with its column.
void semidefinite_cholesky(Size n, double* a, double tolerance) {
    for (Size k = 0; k < n; ++k) {
        double* const column = a + k * n;
        if (!(column[k] > tolerance)) {
            for (Size i = k; i < n; ++i) column[i] = 0.0;
            continue;
        }
        const double pivot = std::sqrt(column[k]);
        for (Size i = k; i < n; ++i) column[i] /= pivot;
        for (Size j = k + 1; j < n; ++j) {
            double* const target = a + j * n;
            const double factor = column[j];
            for (Size i = j; i < n; ++i) target[i] -= factor * column[i];
        }
    }
}

}  // namespace

template <class T>
void covariance_factor(Size n, const double* products, double gain, double accuracy, double* scratch, T* factor) {
    const double tolerance = 16.0 * accuracy;
    std::vector<double> scale = scale_to_correlations(n, products, gain, scratch);
    if (blas::potrf_lower(at(n), scratch, at(n)) != 0 || !pivots_above(n, scratch, tolerance)) {
        scale = scale_to_correlations(n, products, gain, scratch);
        semidefinite_cholesky(n, scratch, tolerance);
    }
    for (Size b = 0; b < n; ++b)
        for (Size a = b; a < n; ++a) factor[b * n + a] = static_cast<T>(scale[at(a)] * scratch[b * n + a]);
}

template void covariance_factor(Size, const double*, double, double, double*, float*);
template void covariance_factor(Size, const double*, double, double, double*, double*);

}  // namespace igb
