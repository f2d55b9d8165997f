// The pairs of inputs in an infinitely wide network, taken from layer to layer on a GPU: twins of the kernels of
// cpu/covariance_rows.h, with the same views, whose arrays are in the device's memory. What belongs to each input, and
// the order of the steps, is the host's (CovarianceLayers in cpu/covariance_map.h).
#pragma once

#include <cstdint>

#include "core/covariance_pairs.h"
#include "cuda/stream.h"

namespace igb::cuda {

// All pairs a < b of `count` inputs: number a * count + b of four matrices, of which the rest is neither read nor
// written. K, T, product and spread are those of PairRows and PairSink.
struct PairMatrices {
    std::int64_t count;
    double *covariance, *distance, *product, *spread;
    double* parts;  // sums over each of pair_blocks(count) blocks of pairs: of K, of D, of c, and steep

    enum Part { covariances, distances, correlations, steep, all_parts };
};

std::int64_t pair_blocks(std::int64_t count);

// K and T of inputs x, count x features, times `scale`; or of the count x count matrix of K.
void compare_inputs(GpuStream stream, const double* x, std::int64_t features, double scale, const PairMatrices& pairs);
void start_from_covariance(GpuStream stream, const double* covariance, const PairMatrices& pairs);

// Each adds to product, spread and steep.
void add_piecewise_linear(GpuStream stream, const InputView& in, const PiecewiseLinearView& view, double weight,
                          bool mirrored, const PairMatrices& pairs);
void add_erf(GpuStream stream, const InputView& in, const PairSeriesView& features, double weight, bool mirrored,
             const PairMatrices& pairs);
void add_series(GpuStream stream, const InputView& in, const PairSeriesView& view, double weight, bool mirrored,
                const PairMatrices& pairs);
void add_curve(GpuStream stream, const InputView& in, const CurveView& view, double weight, const PairMatrices& pairs);

// K and T of the next layer, in place, and what each block contributes to the sums.
void settle(GpuStream stream, const InputView& in, const InputView& next, const PairMap& map,
            const PairMatrices& pairs);

// In place of the first two parts: the smallest angle above 0 (else 4), and the largest.
void find_angles(GpuStream stream, const InputView& in, const PairMatrices& pairs);

}  // namespace igb::cuda
