// One pair of inputs in one layer: what covariance_rows.cpp does for rows of pairs on a CPU, and cuda/covariance_map.cu
// for tiles of them on a GPU. From K_ab and T_ab come the correlation c = K_ab / sqrt(q_a q_b) and, with all its digits
// however close the inputs are,
//
//     1 - |c| = (T_ab - (sqrt q_a - sqrt q_b)^2 / 2) / sqrt(q_a q_b)
//
// and E[(phi_a - phi_b)^2] / 2 is a part that the variances alone make, at c = 1, and s = 1 - c times something
// positive. All without branches: they would cost the CPU its vectors.
#pragma once

#include <cstdint>

#include "core/angles.h"
#include "core/config.h"
#include "core/elementary.h"
#include "core/quadrature.h"

namespace igb {

inline constexpr std::int64_t pair_block = 8;

// The inputs of one layer: arrays of `padded` numbers, `count` of them real.
struct InputView {
    std::int64_t count, padded;
    const double* q;             // E[y_a^2]
    const double* root_change;   // sqrt(q_a) - sqrt(q_r), r the reference, with the digits of q_a - q_r
    const double* inverse_root;  // 1 / sqrt(q_a); 0 if q_a is
    const double* seen;          // sqrt of the variance of what phi sees: sqrt(q_a), or 1 after LayerNorm
    const double* seen_change;   // seen_a - seen_r
};

// phi at each input as a series of Hermite polynomials, and what tells two inputs of different variance apart:
//     E[phi_a phi_b] = sum_n f_na f_nb c^n,   E[(phi_a - phi_b)^2] / 2 at c = 1 = scale2 sum_j (u_ja - u_jb)^2 / 2
struct PairSeriesView {
    int parity;             // of phi: 1 has n = 0, 2, 4, ..., -1 has n = 1, 3, 5, ..., 0 has all
    int terms;              // used, of those stored
    std::int64_t stride;    // numbers stored for a block of inputs
    const double* series;   // [block of inputs][term][pair_block]
    int features;           // the same for u
    const double* feature;  // [block of inputs][feature][pair_block]
    double feature_scale2;
};

// phi(x) = slope x + bend |x|, with slope^2 and bend^2.
struct PiecewiseLinearView {
    double slope2, bend2;
};

// E[phi_a phi_b] and E[(phi_a - phi_b)^2] / (2 s) at one variance, by the angle whose cosine is c: Chebyshev series.
struct CurveView {
    static constexpr int nodes = 16;
    int panels;
    const double* edges;   // of the panels, one more than there are
    const double* series;  // [panel][function][node]
    double unit, square;   // the variance, and E[phi^2] there
};

// K' = carry K + gain E[phi_a phi_b] + cross m_a m_b + bias; D' alike, from differences and without the bias.
struct PairMap {
    double carry, gain, cross, bias;
    bool mirrored;
    const double *mean, *mean_change;  // m_a, m_a - m_r
};

}  // namespace igb

namespace igb::inline IGB_ISA {

// 1 for the pairs that count, 0 for the rest.
IGB_HD double counts(std::int64_t a, std::int64_t b, const InputView& in) {
    const std::int64_t out = (a - b) & (b - in.count);  // negative if both are
    return out < 0 ? 1.0 : 0.0;
}

// (K_aa + K_bb) / 2 - |K_ab|, right to the last bit.
IGB_HD double first_distance(double k_aa, double k_bb, double k_ab) {
    const double sum = k_aa + k_bb, seen = sum - k_aa, low = (k_aa - (sum - seen)) + (k_bb - seen);
    const double twice = (sum - 2.0 * absolute(k_ab)) + low;
    return twice > 0.0 ? 0.5 * twice : 0.0;
}

// c with its distances from 1 and from -1.
struct Correlation {
    double c, s, above;  // 1 - c, 1 + c
    double distance;     // T_ab / sqrt(q_a q_b)
};

IGB_HD Correlation correlation_of(const InputView& in, std::int64_t a, std::int64_t b, double covariance,
                                  double distance) {
    const double inverse = in.inverse_root[a] * in.inverse_root[b], gap = distance * inverse;
    const double change = in.root_change[a] - in.root_change[b];
    const double apart = (distance - 0.5 * change * change) * inverse, together = absolute(covariance * inverse);
    const bool close = gap < 0.5;  // then 1 - |c| is known better than |c|
    double near = close ? apart : 1.0 - together;
    near = near > 0.0 ? near : 0.0;
    const double held = together < 1.0 ? together : 1.0, size = close ? 1.0 - near : held;
    const bool negative = covariance < 0.0;
    return {negative ? -size : size, negative ? 1.0 + size : near, negative ? near : 1.0 + size, gap};
}

// The angle whose cosine is c.
IGB_HD double pair_angle(const Correlation& at) {
    const bool negative = at.c < 0.0;
    const double near = negative ? at.above : at.s, far = negative ? at.s : at.above;
    const double angle = 2.0 * angle_of(square_root(near), square_root(far));
    return negative ? pi - angle : angle;
}

// ---- What one component of phi makes of a pair ----------------------------------------------------------------------

// To be added to E[phi_a phi_b], to E[(phi_a - phi_b)^2] / 2 (of mirrored phi and c < 0: E[(phi_a + phi_b)^2] / 2), and
// how a relative error of T_ab comes out in the latter.
struct PairTerm {
    double product, spread, steep;
};

// From sum_n f_na f_nb x^n and sum_n f_na f_nb (1 - x^n) / (1 - x), x being c, or c^2 where phi has a parity:
// 1 - c^2 = s (1 + c); 1 - c^(2m + 1) = (1 - c^2m) + c^2m s.
template <int parity>
IGB_HD PairTerm series_term(const Correlation& at, double first, double rest, double apart, double weight,
                            bool mirrored) {
    const double turn = mirrored ? 1.0 : 0.0;
    const bool opposite = turn * at.c < 0.0;
    const double own = opposite ? at.above : at.s, other = opposite ? at.s : at.above;
    double slope = parity == 0 ? rest : other * rest;
    if (parity < 0) slope += first;
    return {weight * (parity < 0 ? at.c * first : first), weight * (apart + own * slope),
            absolute(weight * slope * at.distance)};
}

// phi(x) = slope x + bend |x|, whose two parts do not mix: |x| sees |c| = cos t, and with J = sin t - t cos t
//     E[|u| |v|] = sqrt(q_a q_b) (|c| + (2 / pi) J),   at a distance of sqrt(q_a q_b) (1 - |c| - (2 / pi) J) from c = 1
IGB_HD PairTerm piecewise_linear_term(const InputView& in, std::int64_t a, std::int64_t b, const Correlation& at,
                                      const PiecewiseLinearView& view, double weight, bool mirrored) {
    constexpr double two_over_pi = 2.0 / pi;
    const double slope2 = weight * view.slope2, bend2 = weight * view.bend2, turn = mirrored ? 1.0 : 0.0;
    const double size = in.seen[a] * in.seen[b], change = in.seen_change[a] - in.seen_change[b];
    const double apart = 0.5 * change * change;
    const double near = at.c < 0.0 ? at.above : at.s, far = absolute(at.c);
    const double excess = two_over_pi * sine_excess_from(near < 1.0 ? near : 1.0);
    const double own = turn * at.c < 0.0 ? at.above : at.s;
    const double spread = slope2 * (apart + size * own) + bend2 * (apart + size * (near - excess));
    return {size * (slope2 * at.c + bend2 * (far + excess)), spread, spread};
}

// h and 1 - h^2 of one input, h^2 = 2 q / (1 + 2 q).
struct ErfInput {
    double root, share;
};

IGB_HD ErfInput erf_input(double seen) {
    const double inverse = 1.0 / (0.5 + seen * seen);
    return {seen * square_root(inverse), 0.5 * inverse};
}

// E[erf u erf v] = (2 / pi) A(c), sin A = c h_a h_b, and the distance from c = 1 is the angle between A(1) and A(c),
// whose sine is taken so that nothing cancels. Without what the variances alone make.
IGB_HD PairTerm erf_term(const Correlation& at, const ErfInput& a, const ErfInput& b, double weight, bool mirrored) {
    constexpr double two_over_pi = 2.0 / pi;
    const double scale = weight * two_over_pi, straight_on = mirrored ? 0.0 : 1.0;
    const double largest = a.root * b.root;                    // sin A(1)
    const double rest2 = a.share + b.share * (1.0 - a.share);  // cos^2 A(1)
    const double cosine_at_1 = square_root(rest2);
    // Of |c|; then what is between A(c) and A(1), or A(-1) if that is what is asked for.
    const double size = absolute(at.c), sine = size * largest;
    const double cosine = square_root(at.s * at.above + (at.c * at.c) * rest2);
    const double sum = largest * cosine + sine * cosine_at_1;
    const double direction = straight_on * at.c;  // below zero: from A(1), although c is nearer to -1
    const double closing = largest * largest * (at.s * at.above) / (sum > 0.0 ? sum : 1.0);
    const double straight = cosine * cosine_at_1, across = largest * sine;
    const double angle = angle_of(sine, cosine);
    const double between =
        angle_of(direction < 0.0 ? sum : closing, direction < 0.0 ? straight - across : straight + across);
    const double slope = largest / (cosine > 0.0 ? cosine : 1.0);
    return {scale * flip_sign(angle, sign_of(at.c)), scale * between, scale * slope * at.distance};
}

// One of the two functions of a curve, on the panel that holds the angle.
IGB_HD double curve_value(const CurveView& curve, std::int64_t panel, int function, double angle) {
    const double low = curve.edges[panel], high = curve.edges[panel + 1];
    const double t = (2.0 * angle - low - high) / (high - low);
    const double* const c = curve.series + (2 * panel + function) * CurveView::nodes;
    double here = 0.0, above = 0.0;  // Clenshaw
    for (int k = CurveView::nodes - 1; k > 0; --k) {
        const double below = c[k] + 2.0 * t * here - above;
        above = here;
        here = below;
    }
    return c[0] + t * here - above;
}

IGB_HD PairTerm curve_term(const InputView& in, std::int64_t a, std::int64_t b, const Correlation& at,
                           const CurveView& curve, double weight) {
    const double size = in.seen[a] * in.seen[b], change = in.seen_change[a] - in.seen_change[b];
    double product = curve.square, slope = 0.0;
    if (at.s > 0.0) {
        const double angle = pair_angle(at);
        std::int64_t panel = 0, last = curve.panels;
        while (last - panel > 1) {
            const std::int64_t middle = (panel + last) / 2;
            (curve.edges[middle] <= angle ? panel : last) = middle;
        }
        product = curve_value(curve, panel, 0, angle);
        slope = curve_value(curve, panel, 1, angle);
    }
    const double scale = weight * (size / curve.unit), at_one = curve.square / curve.unit;
    return {scale * product, scale * (at.s * slope) + weight * at_one * (0.5 * change * change),
            scale * slope * at.distance};
}

// ---- The next layer -------------------------------------------------------------------------------------------------

struct NextPair {
    double covariance, near;       // K and T
    double distance, correlation;  // D and c
};

// From the layer `in` to the `next`, `product` and `spread` being the sums of the terms above.
IGB_HD NextPair next_pair(const InputView& in, const InputView& next, const PairMap& map, std::int64_t a,
                          std::int64_t b, double covariance, double near_before, double product, double spread) {
    const double turn = map.mirrored ? 1.0 : 0.0, twice_bias = 2.0 * map.bias;
    const double mean = map.cross * map.mean[a], change = map.mean_change[a] - map.mean_change[b];
    const double k = map.carry * covariance + (map.gain * product + mean * map.mean[b] + map.bias);
    // D of the next layer, or half the squared sum.
    const double if_sum = turn * covariance, if_difference = (1.0 - turn) * covariance;
    const double far_before = (in.q[a] + in.q[b]) - near_before;
    const double carried = if_difference < 0.0 ? far_before : near_before;
    const double d = map.carry * carried + (map.gain * spread + map.cross * (0.5 * change * change)) +
                     (if_sum < 0.0 ? twice_bias : 0.0);
    // The smaller of it and |K| is right; the other follows from the variances.
    const double half_sum = 0.5 * (next.q[a] + next.q[b]);
    const bool negative = k < 0.0;
    const double size = absolute(k), left = half_sum - size > 0.0 ? half_sum - size : 0.0;
    const double same_sign = if_sum < 0.0 ? -k : k;
    const bool near = d < same_sign;
    const double new_size = near ? half_sum - d : size, t = near ? d : left;
    const double new_k = negative ? -new_size : new_size;
    return {new_k, t, negative ? 2.0 * half_sum - t : t, correlation_of(next, a, b, new_k, t).c};
}

}  // namespace igb::inline IGB_ISA
