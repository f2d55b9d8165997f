// The recursion over layers (see propagate.h), by the workers of team.h. Twin: cpu/propagate.cpp.
#include "cuda/propagate.h"

#include "core/recursion.h"
#include "cuda/launch.h"
#include "cuda/moments.h"
#include "cuda/team.h"

namespace igb::cuda {
namespace {

// One trajectory, from where it is up to layer `end`. Twin of igb::propagate:
//
//     sigma_mu2' = sigma_w2 E_mu[(E_e P)^2] + sigma_b2,   sigma_y2' = sigma_w2 E_mu[Var_e P]
//
// Layers wait for one another, so that the worker of a point keeps its trajectory, and the loop over layers is here.
// Its state is in memory: registers are for the expectations.
struct TrajectoryJob {
    TheoryPhi phi;
    TrajectoryBatch batch;
    std::int64_t end;

    template <class Worker>
    IGB_DEVICE void operator()(const Worker& worker, std::int64_t i) const {
        const Expectations<Worker> of(worker, phi);
        std::int64_t row = batch.layers[i];
        for (; row < end; ++row) {
            SplitMoments next{0.0, 0.0};
            {
                Recursion state = load(i);
                if (!state.settle()) {
                    write(worker, i, row, TheoryLayer::overflown());
                    continue;
                }
                const double unit = state.unit();
                if (state.q() * unit > batch.q_max) break;
                keep(worker, i, state);
                write(worker, i, row, state.layer(of.single(state.seen()).slope2));
                next = of.split(state.mu2.value * unit, state.y2.value * unit);
            }
            Recursion state = load(i);
            state.advance(next);
            keep(worker, i, state);
        }
        if constexpr (Worker::is_team) __syncthreads();  // all know where it began
        if (worker.writes()) batch.layers[i] = row;
    }

    IGB_DEVICE Recursion load(std::int64_t i) const {
        const double* const kept = batch.state + 4 * i;
        return {batch.sigma_w2[i], batch.sigma_b2[i],         batch.residual,
                batch.layernorm,   {kept[0], kept[1] != 0.0}, {kept[2], kept[3] != 0.0}};
    }

    template <class Worker>
    IGB_DEVICE void keep(const Worker& worker, std::int64_t i, const Recursion& state) const {
        if constexpr (Worker::is_team) __syncthreads();  // all have read it
        if (worker.writes()) {
            double* const kept = batch.state + 4 * i;
            kept[0] = state.mu2.value;
            kept[1] = state.mu2.lost ? 1.0 : 0.0;
            kept[2] = state.y2.value;
            kept[3] = state.y2.lost ? 1.0 : 0.0;
        }
        if constexpr (Worker::is_team) __syncthreads();
    }

    template <class Worker>
    IGB_DEVICE void write(const Worker& worker, std::int64_t i, std::int64_t row, const TheoryLayer& of) const {
        if (!worker.writes()) return;
        const double values[] = {of.sigma_mu2, of.sigma_y2, of.gamma, of.q, of.c, of.chi};
        for (int k = 0; k < 6; ++k) batch.out[(k * batch.depth + row) * batch.count + i] = values[k];
    }
};

}  // namespace

void propagate(GpuStream stream, const TheoryPhi& phi, const TrajectoryBatch& batch, std::int64_t end) {
    start(stream, TrajectoryJob{phi, batch, end}, batch.count);
}

}  // namespace igb::cuda
