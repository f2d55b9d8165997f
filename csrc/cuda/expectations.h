// Gaussian expectations of P, phi of one node or the average of several, at many points at once, in double precision:
// twin of cpu/moments.h. All pointers are to the memory of the device.
#pragma once

#include <cstdint>

#include "core/activation_kind.h"
#include "core/gaussian_moments.h"
#include "core/hermite.h"
#include "core/table_rules.h"
#include "cuda/stream.h"

namespace igb::cuda {

// A phi that nodes draw, with its weight: a table, or else an activation with rules of its own.
struct TheoryShare {
    double weight;
    bool tabulated;
    Activation activation{ActivationKind::linear};
    TableView table;              // `largest` is not looked at:
    const double* log_bounds[3];  // log_bound of it
};

// What the rules for tables are made of.
struct TableRules {
    static constexpr int tails = 4;       // the last coefficients of a Legendre series, which tell its error
    double x[cell_nodes], w[cell_nodes];  // Gauss-Legendre on a cell
    double tail[tails][cell_nodes];       // and those coefficients, from what is given at the nodes
    double strip_x[strip_nodes], strip_w[strip_nodes];
    double forward[series_capacity], back[series_capacity];  // hermite_forward, hermite_back
};

// What the shares are: closed forms alone, tanh among them, or a table.
enum class TheoryKind : std::int32_t { closed, ruled, tabulated };

struct TheoryPhi {
    const TheoryShare* shares;
    int count;
    int average;  // the nodes of an average pool; 0 for phi of one node
    TheoryKind kind;
    const TableRules* rules;
};

void single_moments(GpuStream stream, const TheoryPhi& phi, std::int64_t count, const double* q, SingleMoments* out);
void split_moments(GpuStream stream, const TheoryPhi& phi, std::int64_t count, const double* sigma_mu2,
                   const double* sigma_y2, SplitMoments* out);
void pair_moments(GpuStream stream, const TheoryPhi& phi, int derivative, std::int64_t count, const double* q_aa,
                  const double* q_bb, const double* c, double* out);

}  // namespace igb::cuda
