// The double integral of E[f(u) g(v)], or of the spread E[(f(u) - f(v))^2] / 2, of a table, by the threads of a block:
// twin of cpu/pair_integral.h. With u = sqrt(q_aa) (a + d), v = sqrt(q_bb) (a - d), over
//
//     a ~ N(0, (1 + c) / 2), outside,    d ~ N(0, (1 - c) / 2), inside
#pragma once

#include <cmath>

#include "core/table_moments.h"
#include "core/table_rules.h"
#include "cuda/expectations.h"
#include "cuda/table_cells.h"
#include "cuda/team.h"

namespace igb::cuda {

// Twin of igb::PairIntegral for one node. A warp has an outer cell, its lanes the nodes there; each goes through its
// inner integral by itself. How far a cell is halved depends on nothing but that cell, so that the warps share the
// cells out.
template <bool Spread>
class TeamPairIntegral {
public:
    IGB_DEVICE TeamPairIntegral(const Team& team, const TheoryShare& share, const TableRules& rules, int m,
                                double root_a, double root_b, double s, double t)
        : team_(team), table_(share.table), rules_(rules), m_(m), root_a_(root_a), root_b_(root_b) {
        sigma_a_ = std::sqrt(0.5 * t);
        sigma_d_ = std::sqrt(0.5 * s);
        const RangeOf of[] = {{m, root_a, 1.0, 1.0}, {m, root_a, 1.0, 2.0}};
        Range range = joined_range(team, share, of);
        if (root_a != root_b) {
            const RangeOf other[] = {{m, root_b, 1.0, 1.0}, {m, root_b, 1.0, 2.0}};
            range = range.joined(joined_range(team, share, other));
        }
        const double reach = std::fmax(normal_reach, std::fmax(range.high, -range.low));
        const double far = reach * sigma_a_, beside = normal_reach * sigma_d_;
        end_ = reach * sigma_d_;
        low_ = -std::fmin(far, beside - range.low);
        high_ = std::fmin(far, beside + range.high);
    }

    // The product, or the spread, for equal variances.
    IGB_DEVICE double value() {
        double *const splits = team_.pool, *const kept = team_.pool + most_splits;
        double count[1] = {team_.rank == 0 ? static_cast<double>(find_splits(splits)) : 0.0};
        combine(team_, count, Add{});
        const int sides = 2 * (static_cast<int>(count[0]) - 1);
        double size[1] = {0.0}, sum[1] = {0.0};
        // First all cells as they are, for the size of the whole; then halved where it matters.
        IGB_UNROLL_BY(1) for (int pass = 0; pass < 2; ++pass) {
            int number = 0;
            IGB_UNROLL_BY(1) for (int i = 0; i < sides; ++i) {
                const Side of = side(splits, i);
                IGB_UNROLL_BY(1) for (int k = 0; k < of.cells(); ++k, ++number) {
                    if (number % Team::warps != team_.warp()) continue;
                    double* const at = number < kept_cells ? kept + 2 * number : nullptr;
                    const double found = visit(of.cell(k), pass == 0, at, tolerance * size[0]);
                    if (team_.lane() == 0) (pass == 0 ? size : sum)[0] += found;
                }
            }
            if (pass == 0) combine(team_, size, Add{});
        }
        combine(team_, sum, Add{});
        return sum[0];
    }

private:
    static constexpr double normal_reach = 9.3, tolerance = 2e-15;
    static constexpr int most_splits = 512, deepest = 60, most_halvings = 4096;
    static constexpr int kept_cells = (Team::pool_size - most_splits) / 2;

    // a = origin + [low, high]
    struct Cell {
        double origin, low, high;
    };
    struct Estimate {
        double value, error;
    };

    // A spread is that of one function: what the other takes needs no registers there.
    IGB_DEVICE bool equal() const {
        if constexpr (Spread) {
            return true;
        } else {
            return root_a_ == root_b_;
        }
    }

    // ---- The outer integral: as cut by splits, each with a zone of short cells beside it ----------------------------

    IGB_DEVICE int insert(double* splits, int count, double x) const {
        if (!(x > low_ && x < high_) || count + 2 >= most_splits) return count;
        int at = count;
        while (at > 0 && splits[at - 1] > x) --at;
        if (at > 0 && splits[at - 1] == x) return count;
        for (int i = count; i > at; --i) splits[i] = splits[i - 1];
        splits[at] = x;
        return count + 1;
    }

    IGB_DEVICE int find_splits(double* splits) const {
        int count = 0;
        splits[count++] = low_;
        for (int i = 0; i < table_.kink_count; ++i) count = insert(splits, count, table_.kinks[i] / root_a_);
        if (!equal()) {
            for (int i = 0; i < table_.kink_count; ++i) count = insert(splits, count, table_.kinks[i] / root_b_);
        }
        for (int i = 0; i < table_.kink_count; ++i) {
            for (int j = 0; j < table_.kink_count; ++j) {
                const double x = table_.kinks[i] / root_a_, y = table_.kinks[j] / root_b_;
                if (x != y && std::fabs(x - y) < 2.0 * end_) count = insert(splits, count, 0.5 * (x + y));
            }
        }
        count = insert(splits, count, 0.0);
        splits[count++] = high_;
        return count;
    }

    // The cells of [low, high] beside an origin, which is one of its ends.
    struct Side {
        double origin, zone_low, zone_high, zone_longest, low, high, longest;
        int zone_pieces, pieces;

        IGB_DEVICE int cells() const { return zone_pieces + pieces; }

        IGB_DEVICE Cell cell(int i) const {
            const bool in_zone = i < zone_pieces;
            const double a = in_zone ? zone_low : low, b = in_zone ? zone_high : high;
            const int of = in_zone ? zone_pieces : pieces, at = in_zone ? i : i - zone_pieces;
            return {origin, a + (b - a) * at / of, at + 1 == of ? b : a + (b - a) * (at + 1) / of};
        }
    };

    IGB_DEVICE Side side_of(double origin, double low, double high) const {
        const double near = normal_reach * sigma_d_;
        Side side{origin, 0.0, 0.0, 3.2 * sigma_d_, low, high, 2.0 * sigma_a_, 0, 0};
        if (high - low > 2.0 * near) {
            const bool ahead = low == 0.0;
            side.zone_low = ahead ? 0.0 : -near;
            side.zone_high = ahead ? near : 0.0;
            (ahead ? side.low : side.high) = ahead ? near : -near;
            side.zone_pieces = static_cast<int>(std::ceil((side.zone_high - side.zone_low) / side.zone_longest));
        }
        side.pieces = static_cast<int>(std::ceil((side.high - side.low) / side.longest));
        return side;
    }

    IGB_DEVICE Side side(const double* splits, int i) const {
        const double from = splits[i / 2], to = splits[i / 2 + 1], middle = 0.5 * (from + to);
        return i % 2 == 0 ? side_of(from, 0.0, middle - from) : side_of(to, middle - to, 0.0);
    }

    // At first, the size of the cell as it is, which is kept if there is a place; then the sum over its parts. Part
    // `index` of 2^level is found from the top each time: no stack is needed.
    IGB_DEVICE double visit(const Cell& cell, bool first, double* kept, double allowed) {
        double total = 0.0;
        int level = 0, halvings = 0;
        unsigned long long index = 0;
        IGB_UNROLL_BY(1) for (;;) {
            Cell part = cell;
            IGB_UNROLL_BY(1) for (int bit = level - 1; bit >= 0; --bit) {
                const double middle = 0.5 * (part.low + part.high);
                (index >> bit & 1 ? part.low : part.high) = middle;
            }
            const bool known = !first && level == 0 && kept != nullptr;
            const Estimate now = known ? Estimate{kept[0], kept[1]} : estimate(part);
            if (first) {
                if (kept != nullptr && team_.lane() == 0) {
                    kept[0] = now.value;
                    kept[1] = now.error;
                }
                return std::fabs(now.value);
            }
            if (now.error > allowed && level < deepest && halvings < most_halvings) {
                ++level;
                ++halvings;
                index *= 2;
                continue;
            }
            total += now.value;
            for (; level > 0 && index % 2 == 1; --level) index /= 2;
            if (level == 0) return total;
            ++index;
        }
    }

    // Twin of PairIntegral::work, by a warp: all its lanes get the same.
    IGB_DEVICE Estimate estimate(const Cell& cell) {
        const int lane = team_.lane();
        const bool node = lane < cell_nodes;
        const double half = 0.5 * (cell.high - cell.low);
        const double value = node ? inner(cell.origin, cell.low + half * (1.0 + rules_.x[lane])) : 0.0;
        const double sum = over_warp(node ? rules_.w[lane] * value : 0.0, Add{});
        const double largest = over_warp(std::fabs(value), Larger{});
        double tail = 0.0;
        IGB_UNROLL_BY(1) for (int k = 0; k < TableRules::tails; ++k) {
            const double coefficient = over_warp(node ? rules_.tail[k][lane] * value : 0.0, Add{});
            tail = std::fabs(coefficient) > tail ? std::fabs(coefficient) : tail;
        }
        const double share = largest > 0.0 ? tail / largest : 0.0;
        return {half * sum, half * tail * std::sqrt(share)};
    }

    // ---- The inner integral, by one thread --------------------------------------------------------------------------

    // The distances from a at which its neighbours a + d and a - d cross an edge, in order.
    struct Edges {
        const double* edges;
        int panels, up, down;
        double root, origin, alpha;

        IGB_DEVICE Edges(const TableView& table, double of_root, double of_origin, double of_alpha)
            : edges(table.edges), panels(table.panels), root(of_root), origin(of_origin), alpha(of_alpha) {
            down = panel_of(table, (origin + alpha) * root);
            up = down + 1;
        }

        IGB_DEVICE double distance(int edge) const { return std::fabs((edges[edge] / root - origin) - alpha); }

        // The next one beyond `from`; `end` if there is none before it.
        IGB_DEVICE double after(double from, double end) {
            double above = end, under = end;
            for (; up <= panels; ++up) {
                above = distance(up);
                if (above > from) break;
                above = end;
            }
            for (; down >= 0; --down) {
                under = distance(down);
                if (under > from) break;
                under = end;
            }
            const double first = above < under ? above : under;
            return first < end ? first : end;
        }
    };

    IGB_DEVICE double inner(double origin, double alpha) const {
        const double outer = normal_density((origin + alpha) / sigma_a_) / sigma_a_;
        if (outer == 0.0) return 0.0;
        const int pieces = static_cast<int>(std::ceil(end_ / (2.0 * sigma_d_)));
        Edges at_a(table_, root_a_, origin, alpha), at_b(table_, root_b_, origin, alpha);
        double sum = 0.0, from = 0.0;
        IGB_UNROLL_BY(1) for (int piece = 1; piece <= pieces; ++piece) {
            const double last = piece == pieces ? end_ : end_ * piece / pieces;
            while (from < last) {
                double to = at_a.after(from, last);
                if (!equal()) to = std::fmin(to, at_b.after(from, last));
                if constexpr (Spread) {
                    sum += strip_of_spread(origin, alpha, from, to);
                } else {
                    sum += strip_of_product(origin + alpha, from, to);
                }
                from = to;
            }
        }
        return outer * sum;
    }

    // d from `from` to `to`, with a + d and a - d in one panel each: f(a + d) g(a - d), and the other way round.
    IGB_DEVICE double strip_of_product(double a, double from, double to) const {
        const double half = 0.5 * (to - from), middle = 0.5 * (from + to), scale = 1.0 / sigma_d_;
        const int ways = equal() ? 1 : 2;
        double sum = 0.0;
        IGB_UNROLL_BY(1) for (int way = 0; way < ways; ++way) {
            const double root_x = way == 0 ? root_a_ : root_b_, root_y = way == 0 ? root_b_ : root_a_;
            const PanelSeries of_x(table_, m_, panel_of(table_, (a + middle) * root_x));
            const PanelSeries of_y(table_, m_, panel_of(table_, (a - middle) * root_y));
            IGB_UNROLL_BY(1) for (int i = 0; i < strip_nodes; ++i) {
                const double d = from + half * (1.0 + rules_.strip_x[i]);
                double value = rules_.strip_w[i] * (2.0 * scale * normal_density(d * scale));
                IGB_UNROLL_BY(1) for (int end = 0; end < 2; ++end) {
                    const PanelSeries of = end == 0 ? of_x : of_y;
                    value *= of.at(end == 0 ? (a + d) * root_x : (a - d) * root_y);
                }
                sum += value;
            }
        }
        return half * sum / ways;
    }

    // Twin of PairIntegral::differences: as f(a + d) - f(a - d), or, where that cancels, as the integral of f'.
    IGB_DEVICE double strip_of_spread(double origin, double alpha, double from, double to) const {
        const double a = origin + alpha, root = root_a_, scale = 1.0 / sigma_d_;
        const double half = 0.5 * (to - from), middle = 0.5 * (from + to);
        const int above = panel_of(table_, (a + middle) * root), under = panel_of(table_, (a - middle) * root);
        const double* const edges = table_.edges;
        const double shorter = std::fmin(edges[above + 1] - edges[above], edges[under + 1] - edges[under]);
        const bool plain = m_ > 0 || above - under > 1 || 2.0 * to * root > 0.1 * shorter;
        const int order = plain ? m_ : 1;
        const PanelSeries up(table_, order, above), down(table_, order, under);
        const double edge = edges[above], past = (alpha + (origin - edge / root)) * root;  // a - edge, in x
        double jump = 0.0;
        for (int k = 0; k < table_.kink_count; ++k) jump += table_.kinks[k] == edge ? table_.jumps[k] : 0.0;
        // One loop over all that is evaluated, for the registers' sake: two values, or four nodes of one or two rises.
        const int evaluations = plain ? 2 : above == under ? 4 : 8;
        double sum = 0.0;
        IGB_UNROLL_BY(1) for (int i = 0; i < strip_nodes; ++i) {
            const double d = from + half * (1.0 + rules_.strip_x[i]);
            double change = above == under || plain ? 0.0 : jump;
            IGB_UNROLL_BY(1) for (int e = 0; e < evaluations; ++e) {
                const bool lower = plain ? e == 1 : e >= 4;
                double x = (lower ? a - d : a + d) * root, weight = lower ? -1.0 : 1.0;
                if (!plain) {
                    const double length = above == under ? 2.0 * d * root : lower ? d * root - past : past + d * root;
                    const double start = above == under ? (a - d) * root : lower ? edge - length : edge;
                    x = start + rise_node(e % 4) * length;
                    weight = rise_weight(e % 4) * length;
                }
                const PanelSeries of = lower ? down : up;
                change += weight * of.at(x);
            }
            sum += rules_.strip_w[i] * (2.0 * scale * normal_density(d * scale)) * (change * change);
        }
        return 0.5 * half * sum;
    }

    // The integral of f' over a tenth of a panel or less, by four nodes.
    IGB_DEVICE static double rise_node(int k) {
        const double node = k % 3 == 0 ? 0.06943184420297371 : 0.33000947820757187;
        return k < 2 ? node : 1.0 - node;
    }
    IGB_DEVICE static double rise_weight(int k) { return k % 3 == 0 ? 0.17392742256872693 : 0.32607257743127307; }

    const Team& team_;
    const TableView& table_;
    const TableRules& rules_;
    int m_;
    double root_a_, root_b_;
    double sigma_a_, sigma_d_, low_, high_, end_;
};

}  // namespace igb::cuda
