// E[f(u) g(v)] and E[(f(u) - f(v))^2] / 2 as double integrals, for phi with kinks or steep slopes and for the largest
// of k nodes. In units of the standard deviations, with x = a + d and y = a - d,
//
//     u, v of one node:      a ~ N(0, t / 2), d ~ N(0, s / 2),  s = 1 - c, t = 1 + c
//     of the largest of k:   k Phi2^(k-1) times that density, where the same node is the largest for both inputs, and
//                            2 k (k - 1) Phi2^(k-2) n(x) n(y) Phi((y - c x) / w) Phi((x - c y) / w),  w = sqrt(s t),
//                            where another one is.
//
// Phi2(x, y; c) = P(u < x, v < y) comes along by integrating its derivative over d from where it is Phi(min(x, y)). All
// terms are positive and nothing cancels as s -> 0. The inner integral splits where a + d or a - d crosses an edge of
// the table, the outer one where two kinks meet, and there its cells are halved until the integrand is a polynomial on
// them.
#pragma once

#include <cmath>

#include "cpu/table_rules.h"

namespace igb::inline IGB_ISA {

class PairIntegral {
public:
    PairIntegral(const TableView& table, int m, double root_a, double root_b, double s, double t, int size)
        : table_(table), m_(m), root_a_(root_a), root_b_(root_b), s_(s), t_(t), size_(size) {
        sigma_a_ = std::sqrt(0.5 * t);
        sigma_d_ = std::sqrt(0.5 * s);
        const Range range = range_of(table, m, root_a).joined(range_of(table, m, root_b));
        const double low = range.low, high = range.high;
        reach_ = std::fmax(normal_reach, std::fmax(high, -low));
        const double wide = reach_ * (size == 1 ? sigma_a_ : 1.0), beside = normal_reach * sigma_d_;
        low_ = -std::fmin(wide, beside - low);
        high_ = std::fmin(wide, beside + high);
    }

    double product() { return integrate<false>(); }
    double spread() { return integrate<true>(); }  // for equal variances

private:
    // a = origin + [low, high]; the origin is a kink, so that distances from it keep their digits.
    struct Cell {
        double origin, low, high, value, error;
        int depth;
    };
    static constexpr int most_cells = 4096, most_splits = 512, most_breaks = 8192;
    static constexpr double tolerance = 2e-15;
    static constexpr double normal_reach = 9.3;  // standard deviations: a normal variable is not found there

    // ---- The outer integral -----------------------------------------------------------------------------------------

    template <bool Spread>
    double integrate() {
        double splits[most_splits];
        const int count = find_splits(splits);
        int cells = 0;
        for (int i = 0; i + 1 < count; ++i) {
            const double middle = 0.5 * (splits[i] + splits[i + 1]);
            cells = add_cells(cells, splits[i], 0.0, middle - splits[i]);
            cells = add_cells(cells, splits[i + 1], middle - splits[i + 1], 0.0);
        }
        double total = 0.0, size = 0.0;
        for (int i = 0; i < cells; ++i) {
            work<Spread>(cells_[i]);
            total += cells_[i].value;
            size += std::fabs(cells_[i].value);
        }
        for (int i = 0; i < cells; ++i) {
            while (cells_[i].error > tolerance * size && cells_[i].depth < 60 && cells < most_cells) {
                Cell& left = cells_[i];
                Cell& right = cells_[cells++];
                const double middle = 0.5 * (left.low + left.high);
                total -= left.value;
                right = {left.origin, middle, left.high, 0.0, 0.0, left.depth + 1};
                left = {left.origin, left.low, middle, 0.0, 0.0, left.depth + 1};
                work<Spread>(left);
                work<Spread>(right);
                total += left.value + right.value;
            }
        }
        double sum = 0.0;
        for (int i = 0; i < cells; ++i) sum += cells_[i].value;
        return sum;
    }

    // Where the inner integral is not analytic in a: kinks k, l with (a + d, a - d) = (k, l) for some d that counts.
    int find_splits(double* splits) const {
        int count = 0;
        const auto insert = [&](double x) {
            if (!(x > low_ && x < high_) || count + 2 >= most_splits) return;
            int at = count;
            while (at > 0 && splits[at - 1] > x) --at;
            if (at > 0 && splits[at - 1] == x) return;
            for (int i = count; i > at; --i) splits[i] = splits[i - 1];
            splits[at] = x;
            ++count;
        };
        splits[count++] = low_;
        for (int i = 0; i < table_.kink_count; ++i) insert(table_.kinks[i] / root_a_);
        if (root_a_ != root_b_) {
            for (int i = 0; i < table_.kink_count; ++i) insert(table_.kinks[i] / root_b_);
        }
        for (int i = 0; i < table_.kink_count; ++i) {
            for (int j = 0; j < table_.kink_count; ++j) {
                const double x = table_.kinks[i] / root_a_, y = table_.kinks[j] / root_b_;
                if (x != y && std::fabs(x - y) < 2.0 * widest(0.5 * (x + y))) insert(0.5 * (x + y));
            }
        }
        insert(0.0);
        splits[count++] = high_;
        return count;
    }

    // Next to a kink the integrand turns within some sigma_d, which a longer cell would not see.
    int add_cells(int cells, double origin, double low, double high) {
        const double near = normal_reach * sigma_d_, longest = 2.0 * (size_ == 1 ? sigma_a_ : 1.0);
        if (high - low > 2.0 * near) {
            const bool ahead = low == 0.0;
            cells = cut(cells, origin, ahead ? 0.0 : -near, ahead ? near : 0.0, 3.2 * sigma_d_);
            (ahead ? low : high) = ahead ? near : -near;
        }
        return cut(cells, origin, low, high, longest);
    }

    int cut(int cells, double origin, double low, double high, double longest) {
        const int pieces = static_cast<int>(std::ceil((high - low) / longest));
        for (int i = 0; i < pieces && cells < most_cells; ++i) {
            cells_[cells++] = {origin,
                               low + (high - low) * i / pieces,
                               i + 1 == pieces ? high : low + (high - low) * (i + 1) / pieces,
                               0.0,
                               0.0,
                               0};
        }
        return cells;
    }

    // The last Legendre coefficients tell how far the integrand is from a polynomial: those of an analytic one fall
    // geometrically, and the rule is right to twice their degree.
    template <bool Spread>
    void work(Cell& cell) {
        double values[cell_nodes], sum = 0.0, largest = 0.0;
        const double half = 0.5 * (cell.high - cell.low);
        for (int i = 0; i < cell_nodes; ++i) {
            values[i] = inner<Spread>(cell.origin, cell.low + half * (1.0 + rule_.x[i]));
            sum += rule_.w[i] * values[i];
            largest = std::fabs(values[i]) > largest ? std::fabs(values[i]) : largest;
        }
        double tail = 0.0;
        for (int k = cell_nodes - 4; k < cell_nodes; ++k) {
            double coefficient = 0.0;
            for (int i = 0; i < cell_nodes; ++i) coefficient += rule_.coefficient[k][i] * values[i];
            tail = std::fabs(coefficient) > tail ? std::fabs(coefficient) : tail;
        }
        const double share = largest > 0.0 ? tail / largest : 0.0;
        cell.value = half * sum;
        cell.error = half * tail * std::sqrt(share);
    }

    // ---- The inner integral -----------------------------------------------------------------------------------------

    // Beyond this d nothing counts. For the largest of k, x and y differ by another node's choice: see A, B below.
    double widest(double a) const {
        const double narrow = reach_ * sigma_d_;
        if (size_ == 1) return narrow;
        const double more = narrow + (a > 0.0 ? a * s_ / t_ : 0.0), most = reach_ * 0.70710678118654752;
        return more < most ? more : narrow > most ? narrow : most;
    }

    template <bool Spread>
    double inner(double origin, double alpha) {
        const double a = origin + alpha, end = widest(a);
        double outer_weight = 1.0;
        if (size_ == 1) {
            outer_weight = normal_density(a / sigma_a_) / sigma_a_;
            if (outer_weight == 0.0) return 0.0;
        }
        int last = find_breaks(origin, alpha, end) - 1;
        double sum = 0.0;
        Density density{0.0, 0.0, size_ == 1 ? 0.0 : normal_cdf(a - end), {}};
        const int pieces = static_cast<int>(std::ceil(end / (2.0 * sigma_d_)));
        for (int i = pieces - 1; i >= 0; --i) {
            density.low = end * i / pieces;
            density.high = i + 1 == pieces ? end : end * (i + 1) / pieces;
            if (size_ > 1) expand(a, density);
            for (; last > 0 && breaks_[last] > density.low; --last) {
                const double high = breaks_[last] < density.high ? breaks_[last] : density.high;
                const double low = breaks_[last - 1] > density.low ? breaks_[last - 1] : density.low;
                if (high > low) sum += strip<Spread>(origin, alpha, low, high, density);
                if (breaks_[last - 1] < density.low) break;  // the rest of it is in the next piece
            }
        }
        return outer_weight * sum;
    }

    // The d in (0, end) where a + d or a - d is an edge, in order, with 0 and end around them.
    int find_breaks(double origin, double alpha, double end) {
        int count = 0;
        breaks_[count++] = 0.0;
        count = merge_breaks(count, root_a_, origin, alpha, end);
        if (root_a_ != root_b_) {
            const int first = count;
            count = merge_breaks(count, root_b_, origin, alpha, end);
            merge(first, count);
        }
        breaks_[count++] = end;
        return count;
    }

    int merge_breaks(int count, double root, double origin, double alpha, double end) {
        int up = panel_of(table_, (origin + alpha) * root) + 1, down = up - 1;
        const auto distance = [&](int edge) { return std::fabs((table_.edges[edge] / root - origin) - alpha); };
        while (count + 2 < most_breaks) {
            const double above = up <= table_.panels ? distance(up) : end;
            const double under = down >= 0 ? distance(down) : end;
            if (above >= end && under >= end) break;
            if (above <= under) {
                breaks_[count++] = above;
                ++up;
            } else {
                breaks_[count++] = under;
                --down;
            }
        }
        return count;
    }

    void merge(int first, int count) {  // two sorted runs, short: insertion
        for (int i = first; i < count; ++i) {
            const double x = breaks_[i];
            int at = i;
            for (; at > 1 && breaks_[at - 1] > x; --at) breaks_[at] = breaks_[at - 1];
            breaks_[at] = x;
        }
    }

    // What (a, d) and (a, -d) weigh together for d from low to high: for the largest of k as a Legendre series, which
    // is cheaper than Phi2 wherever it is needed. `phi2` is Phi2 at low.
    struct Density {
        double low, high, phi2;
        double coefficients[cell_nodes];
    };

    // d from `from` to `to`, with a + d and a - d in one panel each.
    template <bool Spread>
    double strip(double origin, double alpha, double from, double to, const Density& of) {
        const double a = origin + alpha, half = 0.5 * (to - from), middle = 0.5 * (from + to);
        alignas(64) double d[strip_nodes], density[strip_nodes], change[strip_nodes];
        for (int i = 0; i < strip_nodes; ++i) d[i] = from + half * (1.0 + strip_rule_.x[i]);
        if (size_ == 1) {
            const double scale = 1.0 / sigma_d_;
#pragma omp simd
            for (int i = 0; i < strip_nodes; ++i) density[i] = 2.0 * scale * normal_density(d[i] * scale);
        } else {
            alignas(64) double t[strip_nodes];
            for (int i = 0; i < strip_nodes; ++i) t[i] = 2.0 * (d[i] - of.low) / (of.high - of.low) - 1.0;
            rule_.sum_series<strip_nodes>(of.coefficients, t, density);
        }
        if constexpr (Spread) {
            differences(origin, alpha, middle, to, d, change);
            double sum = 0.0;
            for (int i = 0; i < strip_nodes; ++i) sum += strip_rule_.w[i] * density[i] * (change[i] * change[i]);
            return 0.5 * half * sum;
        } else {
            alignas(64) double x[strip_nodes], y[strip_nodes], f_x[strip_nodes], g_y[strip_nodes];
            const auto at = [&](double root, double sign, double* where, double* value) {
                const int panel = panel_of(table_, (a + sign * middle) * root);
                for (int i = 0; i < strip_nodes; ++i) where[i] = (a + sign * d[i]) * root;
                evaluate<strip_nodes>(table_, m_, panel, where, value);
            };
            at(root_a_, 1.0, x, f_x);
            at(root_b_, -1.0, y, g_y);
            double sum = 0.0;
            if (root_a_ == root_b_) {
                for (int i = 0; i < strip_nodes; ++i) sum += strip_rule_.w[i] * density[i] * (f_x[i] * g_y[i]);
                return half * sum;
            }
            alignas(64) double g_x[strip_nodes], f_y[strip_nodes];
            at(root_b_, 1.0, x, g_x);
            at(root_a_, -1.0, y, f_y);
            for (int i = 0; i < strip_nodes; ++i) {
                sum += strip_rule_.w[i] * density[i] * 0.5 * (f_x[i] * g_y[i] + f_y[i] * g_x[i]);
            }
            return half * sum;
        }
    }

    // The series on [low, high], given Phi2 at the end where the last one began.
    void expand(double a, Density& of) const {
        alignas(64) double d[cell_nodes], falls[cell_nodes], same[cell_nodes], other[cell_nodes], phi2[cell_nodes];
        const double w = std::sqrt(s_ * t_), half = 0.5 * (of.high - of.low);
        const double outer = normal_density(a / sigma_a_) / (sigma_a_ * sigma_d_);
        const double others = m_ == 0 ? 4.0 * size_ * (size_ - 1.0) : 0.0;  // slopes are of one and the same node
        for (int i = 0; i < cell_nodes; ++i) d[i] = of.low + half * (1.0 + rule_.x[i]);
#pragma omp simd
        for (int i = 0; i < cell_nodes; ++i) {
            const double n_x = normal_density(a + d[i]), n_y = normal_density(a - d[i]);
            const double under_y = quick_normal_cdf((a * s_ - d[i] * t_) / w);
            const double under_x = quick_normal_cdf((a * s_ + d[i] * t_) / w);
            falls[i] = n_y * under_x - n_x * under_y;  // -d Phi2 / dd
            same[i] = 2.0 * size_ * outer * normal_density(d[i] / sigma_d_);
            other[i] = others * (n_x * n_y) * (under_y * under_x);
            phi2[i] = of.phi2;
        }
        for (int j = 0; j < cell_nodes; ++j) {
#pragma omp simd
            for (int i = 0; i < cell_nodes; ++i) phi2[i] += half * rule_.from_above[j][i] * falls[j];
            of.phi2 += half * rule_.w[j] * falls[j];
        }
        for (int i = 0; i < cell_nodes; ++i) {
            phi2[i] = power_of(phi2[i], size_ - 2) * (phi2[i] * same[i] + other[i]);
        }
        for (int k = 0; k < cell_nodes; ++k) {
            double sum = 0.0;
#pragma omp simd reduction(+ : sum)
            for (int i = 0; i < cell_nodes; ++i) sum += rule_.coefficient[k][i] * phi2[i];
            of.coefficients[k] = sum;
        }
    }

    // f(a + d) - f(a - d), without cancellation where it is small: as the integral of f' then, over each side of an
    // edge that lies between.
    void differences(double origin, double alpha, double middle, double to, const double* d, double* change) const {
        const double a = origin + alpha, root = root_a_;
        const int above = panel_of(table_, (a + middle) * root), under = panel_of(table_, (a - middle) * root);
        const double* const edges = table_.edges;
        const double shorter = std::fmin(edges[above + 1] - edges[above], edges[under + 1] - edges[under]);
        alignas(64) double x[strip_nodes], y[strip_nodes], f_x[strip_nodes], f_y[strip_nodes];
        if (m_ > 0 || above - under > 1 || 2.0 * to * root > 0.1 * shorter) {
            for (int i = 0; i < strip_nodes; ++i) {
                x[i] = (a + d[i]) * root;
                y[i] = (a - d[i]) * root;
            }
            evaluate<strip_nodes>(table_, m_, above, x, f_x);
            evaluate<strip_nodes>(table_, m_, under, y, f_y);
            for (int i = 0; i < strip_nodes; ++i) change[i] = f_x[i] - f_y[i];
            return;
        }
        alignas(64) double start[strip_nodes], length[strip_nodes];
        for (int i = 0; i < strip_nodes; ++i) change[i] = 0.0;
        if (above == under) {
            for (int i = 0; i < strip_nodes; ++i) {
                start[i] = (a - d[i]) * root;
                length[i] = 2.0 * d[i] * root;
            }
            add_integral(above, start, length, change);
            return;
        }
        const double edge = edges[above], past = (alpha + (origin - edge / root)) * root;  // a - edge, in x
        for (int i = 0; i < strip_nodes; ++i) {
            start[i] = edge;
            length[i] = past + d[i] * root;
        }
        add_integral(above, start, length, change);
        for (int i = 0; i < strip_nodes; ++i) {
            length[i] = d[i] * root - past;
            start[i] = edge - length[i];
        }
        add_integral(under, start, length, change);
        for (int k = 0; k < table_.kink_count; ++k) {
            if (table_.kinks[k] != edge) continue;
            for (int i = 0; i < strip_nodes; ++i) change[i] += table_.jumps[k];
        }
    }

    // change += the integral of f' over [start, start + length], by four nodes: the length is a tenth of a panel at
    // most.
    void add_integral(int panel, const double* start, const double* length, double* change) const {
        constexpr double node[] = {0.06943184420297371, 0.33000947820757187, 0.66999052179242813, 0.93056815579702629};
        constexpr double weight[] = {0.17392742256872693, 0.32607257743127307, 0.32607257743127307,
                                     0.17392742256872693};
        alignas(64) double x[strip_nodes], slope[strip_nodes];
        for (int k = 0; k < 4; ++k) {
            for (int i = 0; i < strip_nodes; ++i) x[i] = start[i] + node[k] * length[i];
            evaluate<strip_nodes>(table_, 1, panel, x, slope);
            for (int i = 0; i < strip_nodes; ++i) change[i] += weight[k] * length[i] * slope[i];
        }
    }

    const GaussLegendre& rule_ = GaussLegendre::rule();
    const GaussLegendreOf<strip_nodes>& strip_rule_ = GaussLegendreOf<strip_nodes>::rule();
    const TableView& table_;
    int m_;
    double root_a_, root_b_, s_, t_;
    int size_;
    double sigma_a_, sigma_d_, low_, high_, reach_;
    Cell cells_[most_cells];
    double breaks_[most_breaks];
};

}  // namespace igb::inline IGB_ISA
