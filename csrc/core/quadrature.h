// The rules behind the Gaussian expectations that have no closed form. Both are trapezoidal rules, whose error falls
// like exp(-2 pi t / h), t being how far into the complex plane the integrand stays analytic and small:
//
//     sinh_rule:  E[f(g)] = sum_k w_k f(g_k),  g_k = lambda sinh(k h),
//                 w_k = h lambda cosh(k h) exp(-g_k^2 / 2) / sqrt(2 pi)
//     even_step:  the step of z_j = j h, for E[f(z)]
//
// If f has its nearest singularities at +-i lambda (tanh(sigma g): at +-i pi / (2 sigma)), sinh moves them and all
// those beyond to |Im x| >= pi / 2, however sharp f is, and beyond lambda spaces the nodes like log g: 24 nodes at
// variance 1, 64 at 10^4, 105 at 10^8. What limits t is the Gaussian, which grows beyond |Im x| = pi / 4. An even rule
// knows no centre, as f(mu + z) for every mu asks for, but takes as many nodes as f is sharp.
#pragma once

#include <cmath>

#include "core/config.h"
#include "core/elementary.h"

namespace igb::inline IGB_ISA {

inline constexpr double pi = 3.141592653589793;
inline constexpr double normal_peak = 0.3989422804014327;  // 1 / sqrt(2 pi)

inline constexpr double quadrature_digits = 42.0;  // exp(-digits) is the error aimed at
inline constexpr double quadrature_reach = 9.0;    // the rules leave out what lies further from zero

struct SinhRule {
    double lambda, step;
    int nodes;  // k = 0 .. nodes - 1, those with k > 0 standing for -k as well

    IGB_HD double node(int k) const {
        const double grow = fexpm1(k * step);
        return lambda * (0.5 * (grow + grow / (grow + 1.0)));
    }

    IGB_HD double weight(int k) const {
        const double grow = fexpm1(k * step);
        const double cosh = 1.0 + 0.5 * grow * (grow / (grow + 1.0));
        const double g = node(k);
        return (k == 0 ? 1.0 : 2.0) * normal_peak * step * lambda * cosh * fexp(-0.5 * g * g);
    }
};

// For even f; `growth` is by how much log |f| may grow over the strip |Im x| < 3/4.
IGB_HD SinhRule sinh_rule(double smooth_over, double growth) {
    const double lambda = smooth_over < 1e9 ? smooth_over : 1e9;  // beyond, sinh x = x to the last bit
    const double budget = quadrature_digits + growth;
    const double height = std::sqrt(2.0 * budget) / lambda;  // where exp(lambda^2 t^2 / 2) has spent as much again
    const double t = height < 0.75 ? height : 0.75;
    const double longest = 2.0 * pi * t / (budget + 0.5 * (lambda * t) * (lambda * t));
    const double end = std::asinh(quadrature_reach / lambda);
    const double intervals = std::ceil(end / longest);
    return {lambda, end / intervals, static_cast<int>(intervals) + 1};
}

// `pole` is the distance of the nearest singularity from the real line.
IGB_HD double even_step(double pole) {
    const double height = std::sqrt(2.0 * quadrature_digits);
    const double t = height < pole ? height : pole;
    const double longest = 2.0 * pi * t / (quadrature_digits + 0.5 * t * t);
    return quadrature_reach / std::ceil(quadrature_reach / longest);
}

}  // namespace igb::inline IGB_ISA
