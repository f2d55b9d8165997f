// Gaussian expectations of tanh, by quadrature. A node is y = mu + e: a centre mu ~ N(0, sigma_mu2) and noise
// e ~ N(0, s), s = sigma_y2. Over the noise, tanh is taken in pairs +-e. With M = cosh 2 mu and C = cosh 2 e,
//
//     (tanh(mu + e) + tanh(mu - e)) / 2 = sinh 2 mu / (C + M) = tanh mu - delta,   delta = tanh mu (C - 1) / (C + M)
//     (tanh(mu + e) - tanh(mu - e)) / 2 = sinh 2 e / (C + M)
//
//     F(mu) = E_e tanh = E sinh 2 mu / (C + M)
//     Var_e tanh       = E (sinh 2 e / (C + M))^2 + E delta^2 - (E delta)^2,   the last two of order s^2
//
// so that both keep every digit however small sigma_mu2 or sigma_y2 is, and a pair (mu, e) costs one division.
#pragma once

#include <cmath>

#include "core/config.h"
#include "core/elementary.h"
#include "core/quadrature.h"

namespace igb::inline IGB_ISA {

inline constexpr double half_pi = 0.5 * pi;  // from the real line to the poles of tanh

// ---- Centres --------------------------------------------------------------------------------------------------------

// mu >= 0 with b = exp(-2 mu), tanh mu and 1 - b^2, which is 4 mu for small mu.
struct Centre {
    double mu, b, tanh, rest;

    IGB_HD double slope() const { return 4.0 * b / ((1.0 + b) * (1.0 + b)); }  // tanh' mu
};

IGB_HD Centre centre_at(double mu) {
    const double b = fexp(-2.0 * mu), drop = fexpm1(-2.0 * mu);
    return {mu, b, -drop / (1.0 + b), -drop * (1.0 + b)};
}

// F and Var_e tanh(mu + e) / s.
struct GivenCentre {
    double mean, variance;
};

// ---- Noise ----------------------------------------------------------------------------------------------------------

// Pairs +-e_j on an even grid, for s <= widest.
struct NoiseNode {
    double weight, c, c_less_1, sinh;  // cosh 2e, (cosh 2e - 1) / sqrt s, sinh 2e / sqrt s
};

struct NoiseRule {
    static constexpr double widest = 256.0;
    static constexpr int capacity = 640;  // more than the nodes of any s
    double root, inverse_root, step, scale;
    int intervals;

    IGB_HD explicit NoiseRule(double s) {
        const bool some = s > 0.0;  // else one node, at zero
        root = std::sqrt(s);
        inverse_root = some ? 1.0 / root : 0.0;
        step = some ? even_step(half_pi / root) : 1.0;
        scale = some ? normal_peak * step : 1.0;
        intervals = some ? static_cast<int>(quadrature_reach / step + 0.5) : 0;
    }

    IGB_HD NoiseNode node(int j) const {
        const double z = j * step;
        const double grow = fexpm1(2.0 * root * z);
        const double ratio = grow / (grow + 1.0);
        const double both = j == 0 ? 1.0 : 2.0;
        return {j <= intervals ? both * scale * fexp(-0.5 * z * z) : 0.0, 1.0 + 0.5 * grow * ratio,
                0.5 * grow * (ratio * inverse_root), 0.5 * (grow + ratio) * inverse_root};
    }
};

// What a node of the noise adds to F, F', F'' and to the parts of the variance, at one centre. Everything is multiplied
// by 2 b, so that nothing overflows: 2 b (C + M) = 1 + b^2 + 2 b C.
struct AtCentre {
    double b2, one;

    IGB_HD explicit AtCentre(const Centre& at) : b2(2.0 * at.b), one(1.0 + at.b * at.b) {}

    struct Given {
        double mean, odd, shift, shift2;
    };

    IGB_HD Given given(double weight, double c, double c_less_1, double sinh) const {
        const double r = 1.0 / (one + b2 * c);
        const double o = sinh * r, d = c_less_1 * r;
        return {weight * r, weight * (o * o), weight * d, weight * (d * d)};
    }

    IGB_HD double mean(double weight, double c) const { return weight / (one + b2 * c); }

    // F' = E 2 (M C + 1) / (C + M)^2
    IGB_HD double slope(double weight, double c) const {
        const double r = 1.0 / (one + b2 * c);
        return weight * (b2 * r) * ((one * c + b2) * r);
    }

    // F'' = E 4 sinh 2 mu (C^2 - M C - 2) / (C + M)^3
    IGB_HD double curvature(double weight, double c) const {
        const double r = 1.0 / (one + b2 * c), cr = c * r;
        return weight * (b2 * r) * (b2 * (cr * cr - 2.0 * r * r) - one * (cr * r));
    }

    // And what their sums say.
    IGB_HD GivenCentre whole(const Centre& at, const Given& sum) const {
        return {at.rest * sum.mean, b2 * b2 * (sum.odd + at.tanh * at.tanh * (sum.shift2 - sum.shift * sum.shift))};
    }

    IGB_HD static double whole(int derivative, const Centre& at, double sum) {
        return derivative == 0 ? at.rest * sum : derivative == 1 ? 2.0 * sum : 4.0 * at.rest * sum;
    }
};

// Wider noise: sech^2 / 2 is the density of a logistic variable, and its moments give the heat-kernel series, with
// x = mu / sqrt s and n the normal density,
//
//     F(mu) = erf(x / sqrt 2) - 2 n(x) sum_(j >= 1) a_j s^-j He_(2j-1)(x),   a_j = 2 (1 - 2^(1-2j)) zeta(2j) / 4^j
//
// and F', F'' by one and two Hermite polynomials more. It is asymptotic; what is left out is 1e-18 at s = 256.
struct WideNoise {
    double s, root;

    IGB_HD explicit WideNoise(double variance) : s(variance), root(std::sqrt(variance)) {}

    struct Series {
        double mean, mean_rest, slope, curvature;  // F, 1 - F, F', F''
    };

    IGB_HD Series series(double mu) const {
        constexpr int terms = 8;
        constexpr double a[terms] = {1.0,
                                     0.41123351671205661,
                                     0.11837910368715575,
                                     0.030798471603044851,
                                     0.0077830703269738116,
                                     0.0019512490382778742,
                                     0.00048816293219914947,
                                     0.00012206291630199947};
        const double far = mu / root;
        const double x = far < 40.0 ? far : 40.0;     // n(40) is zero, and powers of x must not overflow
        double lower = 0.0, even = 1.0, power = 1.0;  // He_(2j-1), He_2j, s^-j
        double sum0 = 0.0, sum1 = 0.0, sum2 = 0.0;
        for (int j = 0; j < terms; ++j) {
            const double odd = x * even - 2.0 * j * lower;
            sum0 += a[j] * power * lower;
            sum1 += a[j] * power * even;
            sum2 += a[j] * power * odd;
            even = x * odd - (2.0 * j + 1.0) * even;
            lower = odd;
            power /= s;
        }
        const double peak = 2.0 * normal_peak * fexp(-0.5 * x * x), to_erf = 0.70710678118654752 * x;
        return {ferf(to_erf) - peak * sum0, ferfc(to_erf) + peak * sum0, peak * sum1 / root, -peak * sum2 / s};
    }

    // Var_e tanh = 1 - E_e sech^2 - F^2 = (1 - F) (1 + F) - F'
    IGB_HD GivenCentre given(const Centre& at) const {
        const Series of = series(at.mu);
        return {of.mean, (of.mean_rest * (1.0 + of.mean) - of.slope) / s};
    }

    IGB_HD double mean(int derivative, const Centre& at) const {
        const Series of = series(at.mu);
        return derivative == 0 ? of.mean : derivative == 1 ? of.slope : of.curvature;
    }
};

// F is as smooth as the wider of tanh and the noise: what lambda is, in units of mu.
IGB_HD double tanh_smooth_over(double s) { return 2.0 * std::sqrt(0.25 * half_pi * half_pi + s); }
inline constexpr double tanh_growth = 2.0;  // of log |F|^2 at |Im mu| = 2 sqrt s sin(3/4)

}  // namespace igb::inline IGB_ISA
