// The layer loop behind propagate (see propagate.h).
#include "cpu/propagate.h"

#include <algorithm>
#include <cmath>

#include "core/recursion.h"
#include "cpu/moments.h"

namespace igb {

namespace {

void write(const Trajectory& out, std::int64_t row, const TheoryLayer& layer) {
    out.sigma_mu2[row] = layer.sigma_mu2;
    out.sigma_y2[row] = layer.sigma_y2;
    out.gamma[row] = layer.gamma;
    out.q[row] = layer.q;
    out.c[row] = layer.c;
    out.chi[row] = layer.chi;
}

}  // namespace

std::int64_t propagate(const PropagateRequest& request, const Trajectory& out, Monitor& monitor) {
    constexpr std::int64_t stretch = 4096;  // layers between two looks at the monitor: some milliseconds
    const bool quick = std::isinf(request.phi.q_max());
    Expectations of(request.phi, request.pool);
    monitor.expect(static_cast<double>(request.depth));
    Recursion state{request.sigma_w2,  request.sigma_b2,    request.residual,
                    request.layernorm, {request.sigma_mu2}, {request.sigma_y2}};
    for (std::int64_t row = 0; row < request.depth; ++row) {
        if (!state.settle()) {
            for (; row < request.depth; ++row) write(out, row, TheoryLayer::overflown());
            return request.depth;
        }
        const double unit = state.unit();
        if (state.q() * unit > request.phi.q_max()) return row;
        write(out, row, state.layer(of.single(state.seen()).slope2));
        state.advance(of.split(state.mu2.value * unit, state.y2.value * unit));
        if (!quick || (row + 1) % stretch == 0) monitor.advance(quick ? static_cast<double>(stretch) : 1.0);
        if (monitor.stopped()) return row + 1;
    }
    return request.depth;
}

}  // namespace igb
