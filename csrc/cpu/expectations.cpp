// Gaussian expectations of the activations, compiled once for each instruction set: closed forms (closed_forms.h) where
// there are any, quadrature for tanh (tanh_moments.h). All are right to a few ulp for every finite variance.
#include "core/closed_forms.h"
#include "core/config.h"
#include "cpu/kernels.h"
#include "cpu/tanh_moments.h"

namespace igb::inline IGB_ISA {

namespace {

template <class F>
auto with_moments(const Activation& activation, F&& f) {
    switch (activation.kind) {
        case ActivationKind::linear: return f(PiecewiseLinear{1.0});
        case ActivationKind::relu: return f(PiecewiseLinear{0.0});
        case ActivationKind::leaky_relu: return f(PiecewiseLinear{activation.parameter});
        case ActivationKind::tanh: return f(TanhMoments{});
        case ActivationKind::erf: return f(ErfMoments{});
    }
    __builtin_unreachable();  // Activation is checked where it is made
}

}  // namespace

SingleMoments single_moments(const Activation& activation, double q) {
    return with_moments(activation, [&](const auto& moments) { return moments.single(q); });
}

SplitMoments split_moments(const Activation& activation, double sigma_mu2, double sigma_y2) {
    return with_moments(activation, [&](const auto& moments) { return moments.split(sigma_mu2, sigma_y2); });
}

double pair_moment(const Activation& activation, int derivative, double q_aa, double q_bb, double c) {
    return with_moments(activation, [&](const auto& moments) { return moments.pair(derivative, q_aa, q_bb, c); });
}

}  // namespace igb::inline IGB_ISA
