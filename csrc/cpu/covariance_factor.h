// L with L L^T = C for a covariance matrix C that may be singular (duplicate inputs, more inputs than nodes, inputs
// that have collapsed onto few directions).
#pragma once

#include <vector>

#include "cpu/aligned.h"

namespace igb {

struct CovarianceFactor {
    std::vector<double> l;      // n x n, column-major, rows as those of C; zero where nothing else is said
    std::vector<Size> pivots;   // column k of L starts at row pivots[k]: L_(pivots) is lower triangular
    std::vector<Size> columns;  // the columns that are not zero, in increasing order
    bool triangular = true;     // pivots[k] = k
    double smallest = 1.0;      // pivot, as a share of its variance: what its row has that no row before has

    Size rank() const { return static_cast<Size>(columns.size()); }
};

// C = gain * the lower triangle of `products` (n x n, column-major), whose entries are right to `accuracy` relative to
// its diagonal. Where C is safely positive definite L is lower triangular; otherwise rows are pivoted, the first row
// first, and what those digits cannot tell from zero is zero. C is known to have at most the rank given.
void covariance_factor(Size n, const double* products, double gain, double accuracy, Size largest_rank,
                       CovarianceFactor& factor);
inline void covariance_factor(Size n, const double* products, double gain, double accuracy, CovarianceFactor& factor) {
    covariance_factor(n, products, gain, accuracy, n, factor);
}

}  // namespace igb
