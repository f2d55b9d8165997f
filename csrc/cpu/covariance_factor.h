// L with L L^T = C for a covariance matrix C that may be singular (duplicate inputs, more inputs than nodes).
#pragma once

#include "cpu/aligned.h"

namespace igb {

// C = gain * the lower triangle of `products` (n x n, column-major), whose entries are right to `accuracy` relative to
// its diagonal. Fills the lower triangle of `factor`; a row and column whose conditional variance is below what those
// digits can tell from zero gets a zero column, so that duplicate inputs stay duplicates. `scratch` is n x n.
template <class T>
void covariance_factor(Size n, const double* products, double gain, double accuracy, double* scratch, T* factor);

}  // namespace igb
