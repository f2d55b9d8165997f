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
#include "cpu/kernels.h"

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

// The nodes of a sinh rule, a block at a time.
struct RuleBlock {
    static constexpr int capacity = 64;
    int count;
    alignas(64) double g[capacity], weight[capacity];

    RuleBlock(const SinhRule& rule, int first) {
        count = rule.nodes - first < capacity ? rule.nodes - first : capacity;
#pragma omp simd
        for (int k = 0; k < count; ++k) {
            g[k] = rule.node(first + k);
            weight[k] = rule.weight(first + k);
        }
    }
};

// Centres mu = root g at those nodes.
struct CentreBlock {
    static constexpr int capacity = RuleBlock::capacity;
    alignas(64) double mu[capacity], b[capacity], tanh[capacity], rest[capacity];

    CentreBlock(const RuleBlock& rule, double root) {
#pragma omp simd
        for (int k = 0; k < rule.count; ++k) {
            const Centre at = centre_at(root * rule.g[k]);
            mu[k] = at.mu;
            b[k] = at.b;
            tanh[k] = at.tanh;
            rest[k] = at.rest;
        }
    }

    IGB_HD Centre at(int k) const { return {mu[k], b[k], tanh[k], rest[k]}; }
};

// ---- Noise ----------------------------------------------------------------------------------------------------------

// F and Var_e tanh(mu + e) / s.
struct GivenCentre {
    double mean, variance;
};

// Pairs +-e_j on an even grid, for s <= widest.
struct NarrowNoise {
    static constexpr double widest = 256.0;
    static constexpr int capacity = 640;
    int count;  // a multiple of 8, filled up with zero weights: loops over vectors have no tail
    alignas(64) double weight[capacity], c[capacity], c_less_1[capacity], sinh[capacity];

    explicit NarrowNoise(double s) {
        const bool some = s > 0.0;  // else one node, at zero
        const double root = std::sqrt(s), inverse_root = some ? 1.0 / root : 0.0;
        const double step = some ? even_step(half_pi / root) : 1.0;
        const double scale = some ? normal_peak * step : 1.0;
        const int intervals = some ? static_cast<int>(quadrature_reach / step + 0.5) : 0;
        count = (intervals + 8) & ~7;
#pragma omp simd
        for (int j = 0; j < count; ++j) {
            const double z = j * step;
            const double grow = fexpm1(2.0 * root * z);
            const double ratio = grow / (grow + 1.0);
            const double both = j == 0 ? 1.0 : 2.0;
            weight[j] = j <= intervals ? both * scale * fexp(-0.5 * z * z) : 0.0;
            c[j] = 1.0 + 0.5 * grow * ratio;
            c_less_1[j] = 0.5 * grow * (ratio * inverse_root);  // (cosh 2e - 1) / sqrt s
            sinh[j] = 0.5 * (grow + ratio) * inverse_root;      // sinh 2e / sqrt s
        }
    }

    // In what follows everything is multiplied by 2 b, so that nothing overflows: 2 b (C + M) = 1 + b^2 + 2 b C.
    GivenCentre given(const Centre& at) const {
        const double b2 = 2.0 * at.b, one = 1.0 + at.b * at.b;
        double mean = 0.0, odd = 0.0, shift = 0.0, shift2 = 0.0;
#pragma omp simd reduction(+ : mean, odd, shift, shift2)
        for (int j = 0; j < count; ++j) {
            const double r = 1.0 / (one + b2 * c[j]);
            const double o = sinh[j] * r, d = c_less_1[j] * r;
            mean += weight[j] * r;
            odd += weight[j] * (o * o);
            shift += weight[j] * d;
            shift2 += weight[j] * (d * d);
        }
        return {at.rest * mean, b2 * b2 * (odd + at.tanh * at.tanh * (shift2 - shift * shift))};
    }

    double mean(const Centre& at) const {
        const double b2 = 2.0 * at.b, one = 1.0 + at.b * at.b;
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int j = 0; j < count; ++j) sum += weight[j] / (one + b2 * c[j]);
        return at.rest * sum;
    }

    // F' = E 2 (M C + 1) / (C + M)^2
    double slope(const Centre& at) const {
        const double b2 = 2.0 * at.b, one = 1.0 + at.b * at.b;
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int j = 0; j < count; ++j) {
            const double r = 1.0 / (one + b2 * c[j]);
            sum += weight[j] * (b2 * r) * ((one * c[j] + b2) * r);
        }
        return 2.0 * sum;
    }

    // F'' = E 4 sinh 2 mu (C^2 - M C - 2) / (C + M)^3
    double curvature(const Centre& at) const {
        const double b2 = 2.0 * at.b, one = 1.0 + at.b * at.b;
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int j = 0; j < count; ++j) {
            const double r = 1.0 / (one + b2 * c[j]), cr = c[j] * r;
            sum += weight[j] * (b2 * r) * (b2 * (cr * cr - 2.0 * r * r) - one * (cr * r));
        }
        return 4.0 * at.rest * sum;
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

    explicit WideNoise(double variance) : s(variance), root(std::sqrt(variance)) {}

    struct Series {
        double mean, mean_rest, slope, curvature;  // F, 1 - F, F', F''
    };

    Series series(double mu) const {
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
    GivenCentre given(const Centre& at) const {
        const Series of = series(at.mu);
        return {of.mean, (of.mean_rest * (1.0 + of.mean) - of.slope) / s};
    }
};

// Noise of any variance.
struct Noise {
    bool is_wide;
    NarrowNoise narrow;
    WideNoise wide;

    explicit Noise(double s) : is_wide(s > NarrowNoise::widest), narrow(is_wide ? 0.0 : s), wide(s) {}

    GivenCentre given(const Centre& at) const { return is_wide ? wide.given(at) : narrow.given(at); }

    // F, F' or F''.
    double mean(int derivative, const Centre& at) const {
        if (is_wide) {
            const WideNoise::Series of = wide.series(at.mu);
            return derivative == 0 ? of.mean : derivative == 1 ? of.slope : of.curvature;
        }
        return derivative == 0 ? narrow.mean(at) : derivative == 1 ? narrow.slope(at) : narrow.curvature(at);
    }

    // F is as smooth as the wider of tanh and the noise: what lambda is, in units of mu.
    double smooth_over() const { return 2.0 * std::sqrt(0.25 * half_pi * half_pi + wide.s); }
    static constexpr double growth = 2.0;  // of log |F|^2 at |Im mu| = 2 sqrt s sin(3/4)
};

// ---- Moments --------------------------------------------------------------------------------------------------------

struct TanhMoments {
    SingleMoments single(double q) const {
        if (q == 0.0) return {0.0, 0.0, 1.0, 1.0, 0.0};
        const double root = std::sqrt(q);
        const SinhRule rule = sinh_rule(half_pi / root, 0.0);
        double square = 0.0, slope2 = 0.0, square_dq = 0.0;  // square_dq = E[g phi phi'] / sqrt q
        for (int first = 0; first < rule.nodes; first += RuleBlock::capacity) {
            const RuleBlock nodes(rule, first);
#pragma omp simd reduction(+ : square, slope2, square_dq)
            for (int k = 0; k < nodes.count; ++k) {
                const Centre at = centre_at(root * nodes.g[k]);
                const double phi = at.tanh / root, slope = at.slope();
                square += nodes.weight[k] * (phi * phi);
                slope2 += nodes.weight[k] * (slope * slope);
                square_dq += nodes.weight[k] * (nodes.g[k] * phi * slope);
            }
        }
        return {0.0, q * square, slope2, square_dq, 0.0};
    }

    SplitMoments split(double sigma_mu2, double sigma_y2) const {
        const Noise noise(sigma_y2);
        if (sigma_mu2 == 0.0) return {0.0, sigma_y2 * noise.given(centre_at(0.0)).variance};
        const double root = std::sqrt(sigma_mu2);
        const SinhRule rule = sinh_rule(noise.smooth_over() / root, Noise::growth);
        double centre = 0.0, spread = 0.0;
        for (int first = 0; first < rule.nodes; first += RuleBlock::capacity) {
            const RuleBlock nodes(rule, first);
            const CentreBlock centres(nodes, root);
            for (int k = 0; k < nodes.count; ++k) {
                const GivenCentre given = noise.given(centres.at(k));
                const double mean = given.mean / root;
                centre += nodes.weight[k] * (mean * mean);
                spread += nodes.weight[k] * given.variance;
            }
        }
        return {sigma_mu2 * centre, sigma_y2 * spread};
    }

    // E_g[F_a(g) F_b(+-g)], with u = sqrt(q_aa |c|) g + sqrt(q_aa (1 - |c|)) e and v likewise with c's sign on g, which
    // comes out as a factor where F is odd.
    double pair(int derivative, double q_aa, double q_bb, double c) const {
        const double common = std::fabs(c), own = 1.0 - common;
        const double sign = c < 0.0 && derivative != 1 ? -1.0 : 1.0;
        const double root_a = std::sqrt(q_aa * common), root_b = std::sqrt(q_bb * common);
        const Noise noise_a(q_aa * own), noise_b(q_bb * own);
        if (root_a == 0.0 && root_b == 0.0) {
            return sign * noise_a.mean(derivative, centre_at(0.0)) * noise_b.mean(derivative, centre_at(0.0));
        }
        const double lambda_a = noise_a.smooth_over() / root_a, lambda_b = noise_b.smooth_over() / root_b;
        const SinhRule rule = sinh_rule(lambda_a < lambda_b ? lambda_a : lambda_b, Noise::growth);
        double sum = 0.0;
        for (int first = 0; first < rule.nodes; first += RuleBlock::capacity) {
            const RuleBlock nodes(rule, first);
            const CentreBlock centres_a(nodes, root_a), centres_b(nodes, root_b);
            for (int k = 0; k < nodes.count; ++k) {
                const double a = noise_a.mean(derivative, centres_a.at(k));
                const double b = q_aa == q_bb ? a : noise_b.mean(derivative, centres_b.at(k));
                sum += nodes.weight[k] * (a * b);
            }
        }
        return sign * sum;
    }
};

}  // namespace igb::inline IGB_ISA
