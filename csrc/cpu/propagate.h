// The mean-field recursion of the infinitely wide network, layer by layer, in variables that do not cancel:
//
//     sigma_mu2' = sigma_w2 E_mu[(E_e phi)^2] + sigma_b2,   sigma_y2' = sigma_w2 E_mu[Var_e phi],   y = mu + e
//
// so that gamma = sigma_mu2 / sigma_y2 keeps its digits until sigma_y2 leaves the range of double.
#pragma once

#include <cstdint>

#include "core/activation_kind.h"
#include "cpu/monitor.h"

namespace igb {

struct PropagateRequest {
    Activation activation;
    double sigma_w2, sigma_b2;
    double sigma_mu2, sigma_y2;  // of layer 1
    std::int64_t depth;
};

// Columns of `depth` values; a value that overflowed, or fell below the smallest normal number, is nan.
struct Trajectory {
    double *sigma_mu2, *sigma_y2, *gamma, *q, *c, *chi;
};

// Returns early, leaving the rest unset, if the monitor says stop.
void propagate(const PropagateRequest& request, const Trajectory& out, Monitor& monitor);

}  // namespace igb
