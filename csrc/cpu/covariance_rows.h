// What covariance_rows.cpp, compiled once for each instruction set, does for covariance_map.cpp: all that is done for
// every pair of inputs, on eight rows of the matrix of pairs at a time, and the sums over quadrature nodes.
#pragma once

#include <cstdint>

#include "core/activation_kind.h"

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

// K_ab = E[y_a y_b] and T_ab = (q_a + q_b) / 2 - |K_ab| for rows a = first .. first + 7 and columns b = first ..
// padded - 1, row by row. T is half the squared distance D_ab = E[(y_a - y_b)^2] / 2 of two inputs with K >= 0, and that
// of one input from minus the other where K < 0. Pairs b > a count; the rest have any finite value.
struct PairRows {
    std::int64_t first;
    double *covariance, *distance;
};

// Where E[phi_a phi_b] and E[(phi_a - phi_b)^2] / 2 are added, laid out as PairRows are; where phi is `mirrored`, which
// takes phi(-x) = -phi(x), E[(phi_a + phi_b)^2] / 2 for K < 0. `steep` is the sum over pairs of how a relative error of
// T_ab comes out in the latter, `rounding` that of errors in units of the last place.
struct PairSink {
    double *product, *spread;
    double steep = 0.0, rounding = 0.0;
};

// phi at each input as a series of Hermite polynomials, and what tells two inputs of different variance apart:
//     E[phi_a phi_b] = sum_n f_na f_nb c^n,   E[(phi_a - phi_b)^2] / 2 at c = 1 = scale2 sum_j (u_ja - u_jb)^2 / 2
struct SeriesView {
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

// K' = carry K + gain E[phi_a phi_b] + cross m_a m_b + bias; D' alike, from differences and without the bias.
struct PairMap {
    double carry, gain, cross, bias;
    bool mirrored;
    const double *mean, *mean_change;  // m_a, m_a - m_r
};

struct PairSums {
    double covariance = 0.0, distance = 0.0, correlation = 0.0;
};

struct CovarianceKernels {
    void (*add_series)(const InputView&, const SeriesView&, double weight, bool mirrored, const PairRows&, PairSink&);
    void (*add_piecewise_linear)(const InputView&, const PiecewiseLinearView&, double weight, bool mirrored,
                                 const PairRows&, PairSink&);
    void (*add_erf)(const InputView&, const SeriesView& features, double weight, bool mirrored, const PairRows&,
                    PairSink&);

    // From the layer `in` to the `next`, in place, and the sums over pairs of its K, D and c.
    PairSums (*settle)(const InputView& in, const InputView& next, const PairMap&, const PairSink&, const PairRows&);

    // K and T of inputs x of `features` numbers, unscaled: sums of products, of squared differences or sums over two.
    void (*compare_inputs)(const double* x, std::int64_t count, std::int64_t features, const PairRows&,
                           std::int64_t padded);

    // phi(x), and phi(m + d) - phi(m) without cancellation.
    void (*values)(const Activation&, std::int64_t count, const double* x, double* out);
    void (*changes)(const Activation&, std::int64_t count, const double* m, const double* d, double* out);

    // out[i][lane] = sum_k matrix[i][k] x[k][lane], for the pair_block inputs of one block.
    void (*combine)(int rows, int nodes, const double* matrix, const double* x, double* out);
};

}  // namespace igb
