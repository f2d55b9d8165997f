// Q X and Q^T X for a matrix Q drawn uniformly (Haar) from the orthogonal group, never stored: Q is a product of
// Householder reflections of normal vectors of falling length and of a diagonal of signs (Stewart, SIAM J. Numer. Anal.
// 17, 1980), made from their counters and applied in blocks (compact WY), so that the work is matrix products.
#pragma once

#include <cstddef>
#include <limits>

#include "core/stream.h"
#include "cpu/aligned.h"
#include "cpu/monitor.h"

namespace igb {

inline constexpr Size all_columns = std::numeric_limits<Size>::max();

// X (order x columns, column-major) becomes Q X, or Q^T X. Normals are those of `id`. Parallel inside, unless called
// from within a parallel loop; the same to the last bit for any number of threads. Stops early once the monitor says
// so. leading: only so many of Q's leading columns are used, in a time in proportion. Then the rows of X from `leading`
// on must be zero for Q X, and are left without a meaning by Q^T X.
template <class T>
void apply_haar(const StreamId& id, Size order, bool transposed, Size columns, T* x, Size ld, int workers, Monitor&,
                Size leading = all_columns);

// Bytes that apply_haar takes for itself.
double haar_memory(Size order, Size columns, std::size_t element_size, int workers);

}  // namespace igb
