// The GPU twins of cpu/weights.cpp and cpu/normals.cpp, the same functions of the same counters, and what the layers
// make of them: the normals of a tile of nodes, and their biases. Slice g of a batch belongs to network id.network + g.
#pragma once

#include <cstdint>

#include "core/bfloat16.h"
#include "core/stream.h"
#include "cuda/layout.h"
#include "cuda/stream.h"

namespace igb::cuda {

// Rows [first_row, first_row + rows) and columns likewise of the matrix of a stream.
struct WeightBlock {
    std::int64_t first_row, rows, first_column, columns;
};

// Where the blocks of a batch of networks lie: number (g, row, column) at [g * between + row * ld + column].
struct WeightBatch {
    std::int64_t networks, between, ld;
};

// Independent weights of variance one, as float, double, or floats rounded to BFloat16. `law` is not orthogonal.
template <class T>
void fill_weights(GpuStream stream, WeightLaw law, const StreamId& id, const WeightBlock& block,
                  const WeightBatch& batch, T* out);

// Twin of GramRun::fill in cpu/forward_gram.cpp: column a of the tile gets the normals of row a of the stream, at the
// columns of its nodes; padding becomes 0.
template <class T>
void fill_nodes(GpuStream stream, const StreamId& id, const TileBatch& tiles, T* tile);

// Twin of add_bias in cpu/layer.cpp: scale[g] times the normals of row 0 of the stream is added to the origins.
template <class T>
void add_bias(GpuStream stream, const StreamId& id, const double* scale, const TileBatch& tiles, T* tile);

}  // namespace igb::cuda
