// The mean-field recursion of the infinitely wide network, layer by layer, in variables that do not cancel:
//
//     sigma_mu2' = sigma_w2 E_mu[(E_e P)^2] + sigma_b2,   sigma_y2' = sigma_w2 E_mu[Var_e P],   y = mu + e
//
// so that gamma = sigma_mu2 / sigma_y2 keeps its digits until sigma_y2 leaves the range of double. A residual network
// adds `residual` times that to what it had; with LayerNorm, phi acts on y / sqrt(q).
#pragma once

#include <cstdint>

#include "cpu/monitor.h"
#include "cpu/phi.h"

namespace igb {

struct PropagateRequest {
    Phi phi;
    Pool pool;
    double sigma_w2, sigma_b2;
    double residual;  // a in y' = y + sqrt(a) (W P(y) + b); 0 for y' = W P(y) + b
    bool layernorm;
    double sigma_mu2, sigma_y2;  // of layer 1
    std::int64_t depth;
};

// Columns of `depth` values; a value that overflowed, or fell below the smallest normal number, is nan.
struct Trajectory {
    double *sigma_mu2, *sigma_y2, *gamma, *q, *c, *chi;
};

// How many layers were written: all, unless q outgrew phi.q_max() or the monitor said stop.
std::int64_t propagate(const PropagateRequest& request, const Trajectory& out, Monitor& monitor);

}  // namespace igb
