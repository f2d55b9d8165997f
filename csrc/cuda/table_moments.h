// Gaussian expectations of a table by the threads of a block: twin of cpu/tabulated.cpp (with cpu/hermite.h). E[f(u)
// g(v)] as a Hermite series where that converges, else as a double integral.
#pragma once

#include <cmath>

#include "core/hermite.h"
#include "core/table_moments.h"
#include "core/table_rules.h"
#include "cuda/expectations.h"
#include "cuda/pair_integral.h"
#include "cuda/table_cells.h"
#include "cuda/team.h"

namespace igb::cuda {

// Twin of igb::table_single for one node.
IGB_APART SingleMoments table_single(const Team& team, const TheoryShare& share, const TableRules& rules, double q) {
    const TableView& table = share.table;
    q = q > smallest_q ? q : smallest_q;
    const double root = std::sqrt(q), inverse = 1.0 / root;
    const RangeOf of[] = {{0, root, 1.0, 1.0}, {0, root, 1.0, 2.0}, {1, root, 1.0, 1.0},
                          {1, root, 1.0, 2.0}, {2, root, 1.0, 1.0}, {2, root, 1.0, 2.0}};
    const Range range = joined_range(team, share, of);
    const bool half = table.parity != 0;
    double sums[7] = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
    TeamCells cells(team, table, half ? 0.0 : range.low * root, range.high * root, 2.0 * root);
    while (cells.next()) {
        if (!cells.mine) continue;
        const double x = cells.low + 0.5 * (cells.high - cells.low) * (1.0 + rules.x[cells.node]), z = x * inverse;
        double f = 0.0, df = 0.0, ddf = 0.0;
        IGB_UNROLL_BY(1) for (int m = 0; m < 3; ++m) {
            const double value = table_value(table, m, cells.panel, x);
            (m == 0 ? f : m == 1 ? df : ddf) = value;
        }
        const double scale = (half ? 1.0 : 0.5) * (cells.high - cells.low) * inverse;
        const double weight = scale * rules.w[cells.node] * normal_density(z);
        sums[0] += weight * f;
        sums[1] += weight * f * f;
        sums[2] += weight * df * df;
        sums[3] += weight * f * ddf;
        sums[4] += weight * ddf;
        sums[5] += weight * z * f * df;
        sums[6] += weight * z * df;
    }
    combine(team, sums, Add{});
    const bool odd = half && table.parity < 0;
    return moments_of(
        table, 1, q,
        {odd ? 0.0 : sums[0], sums[1], sums[2], sums[3], odd ? 0.0 : sums[4], sums[5], odd ? 0.0 : sums[6]});
}

// Twin of igb::expand; f: in the pool. Threads have nodes; 16 terms at a time go through shared memory, where 8 threads
// sum one of them over all nodes.
IGB_DEVICE HermiteTerms expand(const Team& team, const TheoryShare& share, const TableRules& rules, int m, double q,
                               int terms, double* f) {
    const TableView& table = share.table;
    constexpr double wide = 1.4142135623730951;
    const double root = std::sqrt(q);
    const RangeOf of[] = {{m, root, wide, 1.0}, {m, root, 1.0, 1.0}, {m, root, 1.0, 2.0}};
    const Range range = joined_range(team, share, of);
    const bool half = table.parity != 0, has_slope = m < 2;
    const int sign = half ? (m % 2 == 0 ? table.parity : -table.parity) : 0;
    double* const chunk = team.pool + Team::series;
    for (int n = team.rank; n < terms; n += Team::size) f[n] = 0.0;
    double norms[2] = {0.0, 0.0};
    TeamCells cells(team, table, half ? 0.0 : range.low * root, range.high * root, longest_cell(terms) * root);
    while (cells.next()) {
        double z = 0.0, h = 0.0, last = 0.0;
        if (cells.mine) {
            const double x = cells.low + 0.5 * (cells.high - cells.low) * (1.0 + rules.x[cells.node]);
            const double value = table_value(table, m, cells.panel, x);
            const double slope = has_slope ? table_value(table, m + 1, cells.panel, x) : 0.0;
            z = x / root;
            const double scale = (half ? 1.0 : 0.5) * (cells.high - cells.low) / root;
            const double weight = scale * rules.w[cells.node] * normal_density(z);
            norms[0] += weight * value * value;
            norms[1] += weight * slope * slope;
            h = value * weight;
        }
        IGB_UNROLL_BY(1) for (int first = 0; first < terms; first += Team::chunk) {
            IGB_UNROLL_BY(1) for (int k = 0; k < Team::chunk; ++k) {
                chunk[k * Team::chunk_row + team.rank] = h;
                const double next = rules.forward[first + k] * z * h - rules.back[first + k] * last;
                last = h;
                h = next;
            }
            __syncthreads();
            const int n = team.rank / 8, part = team.rank % 8;
            double sum = 0.0;
            for (int i = part; i < Team::size; i += 8) sum += chunk[n * Team::chunk_row + i];
            for (int step = 4; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
            const bool vanishes = sign != 0 && (n % 2 == 0) == (sign < 0);  // first is even
            if (part == 0 && !vanishes) f[first + n] += sum;
            __syncthreads();
        }
    }
    combine(team, norms, Add{});
    const bool whole = m == 0 ? !jumps_somewhere(table) : has_slope && table.kink_count == 0;
    return {f, terms, norms[0], whole ? q * norms[1] : infinite};
}

IGB_DEVICE int next_length(int terms) {
    return terms == shortest_series ? longer_series : terms == longer_series ? series_capacity : 0;
}

// Twin of igb::table_split for one node.
IGB_APART SplitMoments table_split(const Team& team, const TheoryShare& share, const TableRules& rules,
                                   double sigma_mu2, double sigma_y2) {
    const double q = sigma_mu2 + sigma_y2, s = q > 0.0 ? sigma_y2 / q : 0.0;
    const bool by_series = q > 0.0 && may_converge(share.table, 1.0 - s);
    IGB_UNROLL_BY(1) for (int terms = by_series ? shortest_series : 0; terms > 0; terms = next_length(terms)) {
        SplitMoments result{0.0, 0.0};
        const bool converged = split_by_series(expand(team, share, rules, 0, q, terms, team.pool), s, result);
        __syncthreads();  // all have read the series
        if (converged) return result;
    }
    double spread = 0.0;
    if (s > 0.0) {
        const double used = s > smallest_s ? s : smallest_s, rest = s / used, root = std::sqrt(q);
        TeamPairIntegral<true> integral(team, share, rules, 0, root, root, used, 1.0 + sigma_mu2 / q);
        spread = integral.value() * (jumps_somewhere(share.table) ? std::sqrt(rest) : rest);
    }
    const double centre = table_single(team, share, rules, q).square - spread;
    return {centre > 0.0 ? centre : 0.0, spread};
}

// Twin of igb::table_pair for one node.
IGB_APART double table_pair(const Team& team, const TheoryShare& share, const TableRules& rules, int derivative,
                            double q_aa, double q_bb, double c) {
    q_aa = q_aa > smallest_q ? q_aa : smallest_q;
    q_bb = q_bb > smallest_q ? q_bb : smallest_q;
    const bool equal = q_aa == q_bb;
    if (equal && c == 1.0 && derivative < 2) {
        const SingleMoments at = table_single(team, share, rules, q_aa);
        return derivative == 0 ? at.square : at.slope2;
    }
    const bool by_series = may_converge(share.table, c);
    IGB_UNROLL_BY(1) for (int terms = by_series ? shortest_series : 0; terms > 0; terms = next_length(terms)) {
        HermiteTerms f{}, g{};
        IGB_UNROLL_BY(1) for (int side = 0; side < (equal ? 1 : 2); ++side) {
            f = g;
            g = expand(team, share, rules, derivative, side == 0 ? q_aa : q_bb, terms,
                       team.pool + side * series_capacity);
        }
        if (equal) f = g;
        double sum = 0.0;
        const Tail tail = product_by_series(f, g, c, sum);
        __syncthreads();  // all have read the series
        const double norm = std::sqrt(f.norm2) * std::sqrt(g.norm2);
        if (derivative == 0 && share.table.one_sign && std::fabs(sum) < 0.01 * norm) break;
        const bool last = terms == series_capacity;
        if (tail == Tail::small_to_sum || (last && tail == Tail::small_to_norm)) return sum;
    }
    TeamPairIntegral<false> integral(team, share, rules, derivative, std::sqrt(q_aa), std::sqrt(q_bb), held(1.0 - c),
                                     held(1.0 + c));
    return integral.value();
}

}  // namespace igb::cuda
