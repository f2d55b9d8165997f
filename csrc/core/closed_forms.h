// Gaussian expectations that are known in closed form: piecewise linear activations (the arc-cosine kernel of Cho and
// Saul, 2009) and erf (the arc-sine kernel of Williams, 1998), written so that nothing cancels:
//
//     phi(x) = a x + (1 - a) max(x, 0):  E[phi(u) phi(v)] = sqrt(q_aa q_bb) ((1 + a^2) c / 2 + (1 - a)^2 J(t) / (2
// pi)),
//                                        J(t) = sin t - t cos t,  cos t = c
//     phi(x) = erf(x):                   E[phi(u) phi(v)] = (2 / pi) asin(2 q_ab / sqrt((1 + 2 q_aa) (1 + 2 q_bb)))
//
// Next to c = 1 the angle t is taken from 1 - c = sigma_y2 / q, which the caller has with all its digits.
#pragma once

#include <cmath>

#include "core/config.h"
#include "core/gaussian_moments.h"
#include "core/quadrature.h"

namespace igb::inline IGB_ISA {

// J(t) = sin t - t cos t = sum_k (-1)^(k+1) 2k t^(2k+1) / (2k+1)!, right to a few ulp on [0, pi].
IGB_HD double sine_excess(double t) {
    if (t > 1.0) return std::sin(t) - t * std::cos(t);
    double term = t * t * t / 6.0, sum = 0.0;
    for (int k = 1; k <= 10; ++k) {
        sum += 2.0 * k * term;
        term *= -t * t / ((2.0 * k + 2.0) * (2.0 * k + 3.0));
    }
    return sum;
}

// The angle whose cosine is 1 - s.
IGB_HD double angle(double s) { return 2.0 * std::asin(std::sqrt(0.5 * s)); }

// Linear is a = 1, relu a = 0, the absolute value a = -1. Slopes at u = 0 are those of the limit q -> 0.
struct PiecewiseLinear {
    double a;

    IGB_HD double line() const { return 0.5 * (1.0 + a * a); }
    IGB_HD double kink() const { return (1.0 - a) * (1.0 - a) / (2.0 * pi); }

    IGB_HD SingleMoments single(double q) const {
        const double root = std::sqrt(q), mean = (1.0 - a) * normal_peak;
        return {mean * root, line() * q, line(), line(), a == 1.0 ? 0.0 : 0.5 * mean / root};
    }

    IGB_HD SplitMoments split(double sigma_mu2, double sigma_y2) const {
        const double q = sigma_mu2 + sigma_y2;
        if (q == 0.0) return {0.0, 0.0};
        const double excess = kink() * q * sine_excess(angle(sigma_y2 / q));
        return {line() * sigma_mu2 + excess, line() * sigma_y2 - excess};
    }

    IGB_HD double pair(int derivative, double q_aa, double q_bb, double c) const {
        const double t = angle(1.0 - std::fabs(c));  // from the nearer of c = 1 and c = -1
        if (derivative == 2) return 0.0;
        if (derivative == 1) return a + kink() * (c < 0.0 ? t : pi - t);
        const double q = q_aa == q_bb ? q_aa : std::sqrt(q_aa) * std::sqrt(q_bb);
        return q * ((c < 0.0 ? a : line()) * c + kink() * sine_excess(t));
    }
};

// Throughout, p = 1 / (1 + 2 q) and 1 - p = 2 q / (1 + 2 q).
struct ErfMoments {
    static constexpr double two_over_pi = 2.0 / pi;

    IGB_HD SingleMoments single(double q) const {
        const double root = std::sqrt(0.25 + q);
        return {0.0, two_over_pi * std::atan2(q, root), two_over_pi / root, 1.0 / (pi * (0.5 + q) * root), 0.0};
    }

    // (pi/2) centre is the angle with sine sigma_mu2 / (q + 1/2), (pi/2) spread the angle from there to the one with
    // sine q / (q + 1/2).
    IGB_HD SplitMoments split(double sigma_mu2, double sigma_y2) const {
        const double q = sigma_mu2 + sigma_y2, all = 0.5 + q;
        if (q == 0.0) return {0.0, 0.0};
        const double sine = sigma_mu2 / all;
        const double cosine = std::sqrt((0.5 + sigma_y2) / all) * std::sqrt(1.0 + sine);
        const double sine_q = q / all, cosine_q = std::sqrt(0.25 + q) / all;
        const double sine_between = (sigma_y2 / all) * ((sine_q + sine) / (sine_q * cosine + sine * cosine_q));
        return {two_over_pi * std::atan2(sine, cosine),
                two_over_pi * std::atan2(sine_between, cosine_q * cosine + sine_q * sine)};
    }

    // The sine of the angle is c sqrt((1 - p_aa) (1 - p_bb)); its squared cosine is a sum of positive terms, and equals
    // p_aa p_bb times the determinant in E[phi' phi'] = (4 / pi) / sqrt(det); E[phi'' phi''] = d E[phi' phi'] / d q_ab.
    IGB_HD double pair(int derivative, double q_aa, double q_bb, double c) const {
        const double p_aa = 0.5 / (0.5 + q_aa), rest_aa = q_aa / (0.5 + q_aa);
        const double p_bb = 0.5 / (0.5 + q_bb), rest_bb = q_bb / (0.5 + q_bb);
        const double cosine = std::sqrt((1.0 - c) * (1.0 + c) + c * c * (p_aa + p_bb * rest_aa));
        if (derivative == 0) {
            return two_over_pi * std::atan2(c * std::sqrt(rest_aa) * std::sqrt(rest_bb), cosine);
        }
        const double root = std::sqrt(p_aa) * std::sqrt(p_bb) / cosine;
        if (derivative == 1) return 2.0 * two_over_pi * root;
        return 8.0 * two_over_pi * (c * (std::sqrt(q_aa) * root) * (std::sqrt(q_bb) * root)) * root;
    }
};

}  // namespace igb::inline IGB_ISA
