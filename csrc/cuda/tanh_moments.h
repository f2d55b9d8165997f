// Gaussian expectations of tanh by the threads of a block: twin of cpu/tanh_moments.h. Centres, nodes of the common
// part of two arguments, go over the lanes; the warps have a part each of the nodes of the noise.
#pragma once

#include <cmath>
#include <cstddef>

#include "core/gaussian_moments.h"
#include "core/quadrature.h"
#include "core/tanh_moments.h"
#include "cuda/team.h"

namespace igb::cuda {

// The nodes of the noise in the pool: threads have one part of them each, and 32 centres are at work at a time.
struct TeamNoise {
    static constexpr int parts = Team::warps;
    bool is_wide;
    int count;
    double s;
    double *weight, *c, *c_less_1, *sinh;

    // `place`: 0 or 1, with two arrays each, or 0 with all four where `whole`.
    IGB_DEVICE TeamNoise(const Team& team, double variance, int place, bool whole)
        : is_wide(variance > NoiseRule::widest), count(0), s(variance) {
        weight = team.pool + place * 2 * NoiseRule::capacity;
        c = weight + NoiseRule::capacity;
        c_less_1 = c + NoiseRule::capacity;
        sinh = c_less_1 + NoiseRule::capacity;
        if (is_wide) return;
        const NoiseRule rule(s);
        count = rule.intervals + 1;
        for (int j = team.rank; j < count; j += Team::size) {
            const NoiseNode node = rule.node(j);
            weight[j] = node.weight;
            c[j] = node.c;
            if (!whole) continue;
            c_less_1[j] = node.c_less_1;
            sinh[j] = node.sinh;
        }
    }

    // What this thread's part adds at its centre.
    IGB_DEVICE AtCentre::Given given(const AtCentre& at, int part) const {
        AtCentre::Given sum{0.0, 0.0, 0.0, 0.0};
        for (int j = part; j < count; j += parts) {
            const AtCentre::Given one = at.given(weight[j], c[j], c_less_1[j], sinh[j]);
            sum.mean += one.mean;
            sum.odd += one.odd;
            sum.shift += one.shift;
            sum.shift2 += one.shift2;
        }
        return sum;
    }

    IGB_DEVICE double mean(int derivative, const AtCentre& at, int part) const {
        double sum = 0.0;
        if (derivative == 0) {
            for (int j = part; j < count; j += parts) sum += at.mean(weight[j], c[j]);
        } else if (derivative == 1) {
            for (int j = part; j < count; j += parts) sum += at.slope(weight[j], c[j]);
        } else {
            for (int j = part; j < count; j += parts) sum += at.curvature(weight[j], c[j]);
        }
        return sum;
    }
};

// Centres over the lanes, from a sinh rule, or the one at zero.
struct TeamCentres {
    SinhRule rule;
    bool some;

    IGB_DEVICE TeamCentres(double lambda, bool given) : rule{1.0, 1.0, 1}, some(given) {
        if (some) rule = sinh_rule(lambda, tanh_growth);
    }
    IGB_DEVICE int end() const { return (rule.nodes + Team::lanes - 1) / Team::lanes * Team::lanes; }
    IGB_DEVICE double node(int k) const { return k < rule.nodes ? rule.node(k) : 0.0; }
    IGB_DEVICE double weight(int k) const { return k >= rule.nodes ? 0.0 : some ? rule.weight(k) : 1.0; }
};

// Twin of TanhMoments::single.
IGB_APART SingleMoments tanh_single(const Team& team, double q) {
    if (q == 0.0) return {0.0, 0.0, 1.0, 1.0, 0.0};
    const double root = std::sqrt(q);
    const SinhRule rule = sinh_rule(half_pi / root, 0.0);
    double sums[3] = {0.0, 0.0, 0.0};  // E[phi^2] / q, E[phi'^2], E[g phi phi'] / sqrt q
    for (int k = team.rank; k < rule.nodes; k += Team::size) {
        const double g = rule.node(k), weight = rule.weight(k);
        const Centre at = centre_at(root * g);
        const double phi = at.tanh / root, slope = at.slope();
        sums[0] += weight * (phi * phi);
        sums[1] += weight * (slope * slope);
        sums[2] += weight * (g * phi * slope);
    }
    combine(team, sums, Add{});
    return {0.0, q * sums[0], sums[1], sums[2], 0.0};
}

// Twin of TanhMoments::split.
IGB_APART SplitMoments tanh_split(const Team& team, double sigma_mu2, double sigma_y2) {
    const TeamNoise noise(team, sigma_y2, 0, true);
    const double root = std::sqrt(sigma_mu2), per_root = root > 0.0 ? 1.0 / root : 0.0;
    const TeamCentres centres(tanh_smooth_over(sigma_y2) / root, root > 0.0);
    const WideNoise wide(sigma_y2);
    double sums[2] = {0.0, 0.0};
    __syncthreads();
    for (int k = team.lane(); k < centres.end(); k += Team::lanes) {
        const Centre at = centre_at(root * centres.node(k));
        const AtCentre terms(at);
        const AtCentre::Given mine = noise.given(terms, team.warp());
        double parts[4] = {mine.mean, mine.odd, mine.shift, mine.shift2};
        over_parts(team, parts);
        if (team.warp() > 0) continue;
        const GivenCentre given =
            noise.is_wide ? wide.given(at) : terms.whole(at, {parts[0], parts[1], parts[2], parts[3]});
        const double mean = root > 0.0 ? given.mean * per_root : 0.0, weight = centres.weight(k);
        sums[0] += weight * (mean * mean);
        sums[1] += weight * given.variance;
    }
    combine(team, sums, Add{});
    return {sigma_mu2 * sums[0], sigma_y2 * sums[1]};
}

// Twin of TanhMoments::pair.
IGB_APART double tanh_pair(const Team& team, int derivative, double q_aa, double q_bb, double c) {
    const double common = std::fabs(c), own = 1.0 - common;
    const double sign = c < 0.0 && derivative != 1 ? -1.0 : 1.0;
    const bool equal = q_aa == q_bb;
    const double root_a = std::sqrt(q_aa * common), root_b = std::sqrt(q_bb * common);
    const TeamNoise noise_a(team, q_aa * own, 0, false);
    const TeamNoise noise_b(team, equal ? 0.0 : q_bb * own, 1, false);
    const double lambda_a = tanh_smooth_over(q_aa * own) / root_a, lambda_b = tanh_smooth_over(q_bb * own) / root_b;
    const TeamCentres centres(lambda_a < lambda_b ? lambda_a : lambda_b, root_a > 0.0 || root_b > 0.0);
    double sum[1] = {0.0};
    __syncthreads();
    for (int k = team.lane(); k < centres.end(); k += Team::lanes) {
        const double g = centres.node(k);
        const Centre at_a = centre_at(root_a * g), at_b = equal ? at_a : centre_at(root_b * g);
        double parts[2] = {noise_a.mean(derivative, AtCentre(at_a), team.warp()),
                           equal ? 0.0 : noise_b.mean(derivative, AtCentre(at_b), team.warp())};
        over_parts(team, parts);
        if (team.warp() > 0) continue;
        const double a =
            noise_a.is_wide ? WideNoise(noise_a.s).mean(derivative, at_a) : AtCentre::whole(derivative, at_a, parts[0]);
        const double b = equal             ? a
                         : noise_b.is_wide ? WideNoise(noise_b.s).mean(derivative, at_b)
                                           : AtCentre::whole(derivative, at_b, parts[1]);
        sum[0] += centres.weight(k) * (a * b);
    }
    combine(team, sum, Add{});
    return sign * sum[0];
}

}  // namespace igb::cuda
