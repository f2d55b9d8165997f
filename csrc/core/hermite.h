// The expansion of f(z) = phi^(m)(sqrt(q) z) in the orthonormal Hermite polynomials h_n (Mehler's formula):
//
//     E[f(u) g(v)] = sum_n f_n g_n c^n,   f_n = E[f(z) h_n(z)],   h_(n+1) = (z h_n - sqrt(n) h_(n-1)) / sqrt(n + 1)
//     E[(f(u) - f(v))^2] / 2 = sum_n f_n^2 (1 - c^n)
//
// Every term has one sign for c >= 0, so that a small c or a small 1 - c costs no digits, and Parseval's equations,
// sum f_n^2 = E[f^2] and sum n f_n^2 = q E[f'^2], say how much the terms left out can amount to.
#pragma once

#include <cmath>

#include "core/config.h"
#include "core/gaussian_moments.h"

namespace igb {

inline constexpr int series_capacity = 512;

}  // namespace igb

namespace igb::inline IGB_ISA {

// The lengths that are tried: 64, 192 and all.
inline constexpr int shortest_series = 64, longer_series = 192;
inline constexpr double series_error = 2e-14;  // of norm2, or of the spread

// Terms f_n, E[f^2] and q E[f'^2] (inf where that does not exist).
struct HermiteTerms {
    const double* f;
    int terms;
    double norm2, slope_norm2;
};

// h_(n+1) = z forward_n h_n - back_n h_(n-1)
IGB_HD double hermite_forward(int n) { return 1.0 / std::sqrt(n + 1.0); }
IGB_HD double hermite_back(int n) { return std::sqrt(n / (n + 1.0)); }

// No cell may be longer than so many standard deviations, for h_n to be a polynomial of few terms on it.
IGB_HD double longest_cell(int terms) { return 12.0 / std::sqrt(static_cast<double>(terms)); }

// What the terms left out hold, which rounding must not make look smaller than it can tell.
IGB_HD double remainder(double norm2, double held) { return std::fmax(std::fabs(norm2 - held), 1e-15 * norm2); }

// How far the terms left out count: not beside the sum, not beside sqrt(E[f^2] E[g^2]), or more.
enum class Tail { small_to_sum, small_to_norm, large };

// sum_n f_n g_n c^n.
IGB_HD Tail product_by_series(const HermiteTerms& f, const HermiteTerms& g, double c, double& sum) {
    double power = 1.0, held_f = 0.0, held_g = 0.0;
    sum = 0.0;
    for (int n = 0; n < f.terms; ++n) {
        sum += f.f[n] * g.f[n] * power;
        held_f += f.f[n] * f.f[n];
        held_g += g.f[n] * g.f[n];
        power *= c;
    }
    const double rest_f = remainder(f.norm2, held_f), rest_g = remainder(g.norm2, held_g);
    const double rest = std::fabs(power) * std::sqrt(rest_f) * std::sqrt(rest_g);
    if (rest <= series_error * std::fabs(sum)) return Tail::small_to_sum;
    return rest <= series_error * std::sqrt(f.norm2) * std::sqrt(g.norm2) ? Tail::small_to_norm : Tail::large;
}

// centre = sum_n f_n^2 c^n and spread = sum_n f_n^2 (1 - c^n), s = 1 - c, if the terms left out do not count.
IGB_HD bool split_by_series(const HermiteTerms& f, double s, SplitMoments& result) {
    double centre = 0.0, spread = 0.0, power = 1.0, less = 0.0, held = 0.0, held_slope = 0.0;
    for (int n = 0; n < f.terms; ++n) {
        const double a = f.f[n] * f.f[n];
        centre += a * power;
        spread += a * less;
        held += a;
        held_slope += n * a;
        less += power * s;  // 1 - c^(n+1)
        power *= 1.0 - s;
    }
    const double rest = remainder(f.norm2, held), rest_slope = remainder(f.slope_norm2, held_slope);
    const double if_none = std::fmin(rest, s * rest_slope);  // what a tail left out amounts to at most
    const double if_all = rest * power;                      // and one that counts with the factor 1
    if (power * rest > series_error * centre) return false;
    result = {centre, if_none <= if_all ? spread : spread + rest};
    return std::fmin(if_none, if_all) <= series_error * result.spread;
}

}  // namespace igb::inline IGB_ISA
