// The GPU twins of load_inputs in cpu/layer.cpp: the inputs of the networks as tiles, column 0 the origin, which is the
// first input of all, and the others differences from it.
#pragma once

#include <cstdint>

#include "core/stream.h"
#include "cuda/stream.h"

namespace igb::cuda {

// Value (network, column, feature) at [(network * columns + column) * ld + feature]; those from `features` to ld, the
// padding, become 0.
struct InputBatch {
    std::int64_t networks, columns, features, ld;
};

// The same for all networks: column a >= 1 is row a - 1 of given (columns - 1, features) less the origin (features).
template <class Source, class T>
void load_inputs(GpuStream stream, const Source* given, const double* origin, const InputBatch& batch, T* out);

// Standard Gaussian inputs, of a stream of each network: the origin is input 0, column a >= 1 input first + a - 1.
template <class T>
void gaussian_inputs(GpuStream stream, const StreamId& id, std::int64_t first, const InputBatch& batch, T* out);

}  // namespace igb::cuda
