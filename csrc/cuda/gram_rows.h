// The GPU twin of GramRun::draw (cpu/forward_gram.cpp), bias aside: the nodes of a layer whose weights are Gaussian,
// given the covariance of its pre-activations over the inputs.
#pragma once

#include "core/stream.h"
#include "cuda/layout.h"
#include "cuda/stream.h"

namespace igb::cuda {

// tile = draw Z: value (g, a, row) is sum_k draw[(g * columns + a) * columns + k] Z_k, with Z_k the standard normal of
// network id.network + g, row k of the stream and that row's column of the slab (layout.h). Padding becomes 0.
// triangular: draw counts as 0 where k > a, whatever is there. `tile` is aligned to 16 bytes.
template <class T>
void draw_rows(GpuStream stream, const StreamId& id, const TileBatch& batch, const T* draw, bool triangular, T* tile);

}  // namespace igb::cuda
