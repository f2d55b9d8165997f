// Random networks run forward at finite width, y^(l) = W x^(l-1) + b, x^(l) = phi(y^(l)), and what is measured in each
// layer. Two engines, the same in law: forward_direct.cpp draws every weight, forward_gram.cpp draws the nodes from
// the exact conditional law of a layer given the one before.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/activation_kind.h"
#include "cpu/monitor.h"

namespace igb {

struct ForwardRequest {
    Activation activation{ActivationKind::linear, 0.0};
    double sigma_w2 = 1.0;
    double sigma_b2 = 0.0;
    std::int64_t width = 1;
    std::int64_t depth = 1;
    std::int64_t inputs = 2;
    // The inputs, (inputs, features), row-major, one of the two; or neither: Gaussian inputs of `features` = width.
    const float* given_f32 = nullptr;
    const double* given_f64 = nullptr;
    std::int64_t features = 1;
    std::uint64_t seed = 0;
    std::uint32_t first_network = 0;
    std::int64_t networks = 1;
    std::int64_t tile = 0;   // nodes worked on together, a multiple of 64; 0: chosen for the caches
    std::int64_t chunk = 0;  // direct: inputs that go through the network together; 0: chosen for the memory
};

// One estimate per (network, layer), row-major, with its standard error over the nodes of that network.
struct Estimate {
    double* value;
    double* error;
};

struct ForwardResult {
    Estimate sigma_mu2, sigma_y2, gamma, q, c, chi;
    double* mu = nullptr;  // (network, layer, node), or null
    double* var = nullptr;
};

// T = float or double is the arithmetic of the layers; sums are always double. Returns early, with the result
// unfinished, once the monitor says stop.
template <class T>
void forward_gram(const ForwardRequest&, const ForwardResult&, Monitor&);
template <class T>
void forward_direct(const ForwardRequest&, const ForwardResult&, Monitor&);

// Peak memory in bytes that a run takes besides its results, for elements of `element_size` bytes.
double forward_gram_memory(const ForwardRequest&, std::size_t element_size);
double forward_direct_memory(const ForwardRequest&, std::size_t element_size);

}  // namespace igb
