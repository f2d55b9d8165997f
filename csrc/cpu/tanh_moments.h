// The sums of core/tanh_moments.h, in vectors.
#pragma once

#include <cmath>

#include "core/config.h"
#include "core/quadrature.h"
#include "core/tanh_moments.h"
#include "cpu/kernels.h"

namespace igb::inline IGB_ISA {

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

struct NarrowNoise {
    static constexpr int capacity = NoiseRule::capacity;
    int count;  // a multiple of 8, filled up with zero weights: loops over vectors have no tail
    alignas(64) double weight[capacity], c[capacity], c_less_1[capacity], sinh[capacity];

    explicit NarrowNoise(double s) {
        const NoiseRule rule(s);
        count = (rule.intervals + 8) & ~7;
#pragma omp simd
        for (int j = 0; j < count; ++j) {
            const NoiseNode node = rule.node(j);
            weight[j] = node.weight;
            c[j] = node.c;
            c_less_1[j] = node.c_less_1;
            sinh[j] = node.sinh;
        }
    }

    GivenCentre given(const Centre& at) const {
        const AtCentre of(at);
        double mean = 0.0, odd = 0.0, shift = 0.0, shift2 = 0.0;
#pragma omp simd reduction(+ : mean, odd, shift, shift2)
        for (int j = 0; j < count; ++j) {
            const AtCentre::Given one = of.given(weight[j], c[j], c_less_1[j], sinh[j]);
            mean += one.mean;
            odd += one.odd;
            shift += one.shift;
            shift2 += one.shift2;
        }
        return of.whole(at, {mean, odd, shift, shift2});
    }

    double mean(int derivative, const Centre& at) const {
        const AtCentre of(at);
        double sum = 0.0;
        if (derivative == 0) {
#pragma omp simd reduction(+ : sum)
            for (int j = 0; j < count; ++j) sum += of.mean(weight[j], c[j]);
        } else if (derivative == 1) {
#pragma omp simd reduction(+ : sum)
            for (int j = 0; j < count; ++j) sum += of.slope(weight[j], c[j]);
        } else {
#pragma omp simd reduction(+ : sum)
            for (int j = 0; j < count; ++j) sum += of.curvature(weight[j], c[j]);
        }
        return AtCentre::whole(derivative, at, sum);
    }
};

// Noise of any variance.
struct Noise {
    bool is_wide;
    NarrowNoise narrow;
    WideNoise wide;

    explicit Noise(double s) : is_wide(s > NoiseRule::widest), narrow(is_wide ? 0.0 : s), wide(s) {}

    GivenCentre given(const Centre& at) const { return is_wide ? wide.given(at) : narrow.given(at); }

    // F, F' or F''.
    double mean(int derivative, const Centre& at) const {
        return is_wide ? wide.mean(derivative, at) : narrow.mean(derivative, at);
    }

    double smooth_over() const { return tanh_smooth_over(wide.s); }
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
        const SinhRule rule = sinh_rule(noise.smooth_over() / root, tanh_growth);
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
        const SinhRule rule = sinh_rule(lambda_a < lambda_b ? lambda_a : lambda_b, tanh_growth);
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
