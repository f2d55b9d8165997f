// L with L L^T = C for a covariance matrix C that may be singular (duplicate inputs, more inputs than nodes, inputs that
// have collapsed onto few directions).
#pragma once

#include <vector>

#include "cpu/aligned.h"

namespace igb {

// C = gain * the lower triangle of `products` (n x n, column-major), whose entries are right to `accuracy` relative to
// its diagonal. Fills the lower triangle of `factor` with L, L L^T = P C P^T, and returns the order P: row i of L belongs
// to row order[i] of C. The first row stays first, and all stay in place where C is safely positive definite; otherwise
// they are pivoted, and what those digits cannot tell from zero is zero. `scratch` is n x n.
template <class T>
std::vector<Size> covariance_factor(Size n, const double* products, double gain, double accuracy, double* scratch,
                                    T* factor);

}  // namespace igb
