// The GPU twins of labels_of and loss_gradient (cpu/gradients.h).
#pragma once

#include <cstdint>

#include "core/stream.h"
#include "cuda/stream.h"

namespace igb::cuda {

// Labels of `count` inputs numbered from `first`, drawn at random for each network from id.network on, to
// labels[g * count + a].
void random_labels(GpuStream stream, const StreamId& id, std::int64_t networks, std::int64_t first, std::int64_t count,
                   std::int64_t classes, std::int32_t* labels);

// dLoss_a / dlogit_k of the cross entropy, row by row of `logits` (rows x classes): delta times 2^exponent.
template <class T>
void cross_entropy_gradient(GpuStream stream, std::int64_t rows, std::int64_t classes, const double* logits,
                            const std::int32_t* labels, T* delta, std::int32_t* exponent);

}  // namespace igb::cuda
