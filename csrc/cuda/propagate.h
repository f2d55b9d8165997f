// The mean-field recursion of many networks at once, in double precision: twin of cpu/propagate.h. All pointers are to
// the memory of the device.
#pragma once

#include <cstdint>

#include "cuda/expectations.h"
#include "cuda/stream.h"

namespace igb::cuda {

// Many networks that share phi, pool, residual and LayerNorm. Where each has come to is kept in `state` and `layers`,
// so that a long way can be gone in stretches, and on with a larger table.
struct TrajectoryBatch {
    std::int64_t count;
    const double *sigma_w2, *sigma_b2;
    double residual;
    bool layernorm;
    double q_max;  // where a trajectory that has outgrown it stops
    std::int64_t depth;
    double* state;         // [count][4]: sigma_mu2 and whether it is lost, sigma_y2 and whether it is lost
    std::int64_t* layers;  // [count]: how many are done
    double* out;           // [6][depth][count]: the columns of Trajectory
};

// All up to layer `end`, or to where q has outgrown q_max.
void propagate(GpuStream stream, const TheoryPhi& phi, const TrajectoryBatch& batch, std::int64_t end);

}  // namespace igb::cuda
