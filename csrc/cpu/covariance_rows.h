// What covariance_rows.cpp, compiled once for each instruction set, does for covariance_map.cpp: all that is done for
// every pair of inputs, on eight rows of the matrix of pairs at a time, and the sums over quadrature nodes.
#pragma once

#include <cstdint>

#include "core/activation_kind.h"
#include "core/covariance_pairs.h"

namespace igb {

// K_ab = E[y_a y_b] and T_ab = (q_a + q_b) / 2 - |K_ab| for rows a = first .. first + 7 and columns b = first ..
// padded - 1, row by row. T is half the squared distance D_ab = E[(y_a - y_b)^2] / 2 of two inputs with K >= 0, and
// that of one input from minus the other where K < 0. Pairs b > a count; the rest have any finite value.
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

struct PairSums {
    double covariance = 0.0, distance = 0.0, correlation = 0.0;
};

struct CovarianceKernels {
    void (*add_series)(const InputView&, const PairSeriesView&, double weight, bool mirrored, const PairRows&,
                       PairSink&);
    void (*add_piecewise_linear)(const InputView&, const PiecewiseLinearView&, double weight, bool mirrored,
                                 const PairRows&, PairSink&);
    void (*add_erf)(const InputView&, const PairSeriesView& features, double weight, bool mirrored, const PairRows&,
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
