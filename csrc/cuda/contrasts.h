// The GPU twin of sum_pairs (cpu/forward_gram.cpp): lengths of the pre-activations of every input, and the angles
// between those of any two.
#pragma once

#include <cstdint>

#include "core/contrast.h"
#include "cuda/stream.h"

namespace igb::cuda {

struct PairBatch {
    std::int64_t networks, inputs;
    double width;  // how many nodes the products are summed over
};

// What has to be there between the kernels, in memory of the device.
struct PairScratch {
    InputLength* lengths;  // (networks, inputs)
    double* rows;          // (networks, inputs)
};

using Count = unsigned long long;

// products: y^T y, for b <= a at [(g * inputs + b) * inputs + a], of the columns origin and differences in the units
// (origin, difference) of units[2 * g]. Writes q_sum, q_count, c_sum and c_count (LayerSums in cpu/layer.h) to
// sums[4 * g], and adds each q_aa and each 1 - c_ab to the 65,536 bins (core/histogram_bin.h) of network g of
// q_histogram and c_histogram, unless they are null. T: what y was computed in.
template <class T>
void contrasts(GpuStream stream, const PairBatch& batch, const double* products, const double* units,
               const PairScratch& scratch, double* sums, Count* q_histogram, Count* c_histogram);

}  // namespace igb::cuda
