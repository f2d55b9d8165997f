// A function phi of one variable as data, and how it is evaluated: phi, phi', and differences phi(m + d) - phi(m) that
// are right relative to themselves, however small d: they come from the series of phi', which is right where phi itself
// saturates.
//
// In the panel of m, d enters without being added to m. With F = int phi' = sum_k C_k T_k(t), t along the panel, and
// the b_k of Clenshaw's recurrence at m,
//     phi(m + d) - phi(m) = d F[m, m + d],   F[m, .] = b_1 + 2 sum_(k >= 1) b_(k+1) T_k,
// a divided difference that is one more Chebyshev series, whose coefficients belong to the node. Where the table holds
// phi' = x S, phi' vanishes at zero and so does the error: int x S = x^2 R, and
//     phi(m + d) - phi(m) = d ((m + y) R(m) + y^2 R[m, y]),   y = m + d.
// In another panel, phi(y) - phi(m) is what it says unless it cancels; there, the way from m to y is cut at the edges.
#pragma once

#include <cstdint>

#include "core/config.h"
#include "core/elementary.h"

namespace igb {

inline constexpr int table_terms = 16;

// What the kernels see. phi^(m) on panel p, which is [edges[p], edges[p + 1]], is x^by_x[m][p] sum_k c_k T_k(t), t in
// [-1, 1] along the panel; largest[m][p] bounds it there.
struct TableView {
    int panels;
    const double* edges;
    const double* series[3];  // table_terms coefficients for every panel
    const double* largest[3];
    const std::uint8_t* by_x[3];
    int kink_count;  // edges where phi is not analytic, and by how much phi itself jumps there
    const double *kinks, *jumps;
    int parity;     // 1 even, -1 odd, 0 neither
    bool one_sign;  // phi is nowhere negative, or nowhere positive
};

inline namespace IGB_ISA {

// The panel of x; on an edge, the one above.
IGB_HD int panel_of(const TableView& table, double x) {
    int low = 0, high = table.panels;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        (table.edges[middle] <= x ? low : high) = middle;
    }
    return low;
}

// t in [-1, 1] along the panel; x is beyond its ends by rounding alone.
IGB_HD double along_panel(double x, double low, double scale) {
    double t = (x - low) * scale - 1.0;
    t = t > 1.0 ? 1.0 : t;
    return t < -1.0 ? -1.0 : t;
}

// sum_k c_k T_k(t) with c_k = c[k * stride]: Clenshaw's recurrence.
template <int stride>
IGB_HD double sum_chebyshev(const double* c, double t) {
    const double twice = t + t;
    double b1 = c[(table_terms - 1) * stride], b2 = 0.0;
    for (int k = table_terms - 2; k >= 1; --k) {
        const double b = c[k * stride] + (twice * b1 - b2);
        b2 = b1;
        b1 = b;
    }
    return c[0] + (t * b1 - b2);
}

// phi^(m)(x), x in that panel.
IGB_HD double table_value(const TableView& table, int m, int panel, double x) {
    const double low = table.edges[panel], scale = 2.0 / (table.edges[panel + 1] - low);
    const double sum = sum_chebyshev<1>(table.series[m] + panel * table_terms, along_panel(x, low, scale));
    return table.by_x[m][panel] != 0 ? x * sum : sum;
}

// R of int x S = x^2 R on a panel that touches zero (no other is held by_x): 2 R + x R' = S, solved from its last
// coefficient on. side: 1 where the panel begins at zero, -1 where it ends there.
IGB_HD void integrate_times_x(const double* s, double side, double* r) {
    double here = 0.0, above = 0.0;  // coefficients k and k + 1 of R' (that of T_0 doubled)
    for (int k = table_terms - 1; k >= 1; --k) {
        r[k] = (s[k] - side * here - above) / (2.0 + k);
        const double below = above + 2.0 * k * r[k];
        above = here;
        here = below;
    }
    r[0] = 0.5 * (s[0] - 0.5 * (side * here + above));
}

// phi(y) - phi(m) = (y - m) (at_zero (m + y) + (1 or, by_x, y^2) sum_k q_k T_k(t_y)), m and y in one panel: writes q_k
// to q[k * stride] and returns at_zero.
IGB_HD double expand_difference(const TableView& table, int panel, double m, double* q, int stride) {
    const double* const c = table.series[1] + panel * table_terms;
    const double low = table.edges[panel], scale = 2.0 / (table.edges[panel + 1] - low);
    const bool by_x = table.by_x[1][panel] != 0;
    double of[table_terms + 1] = {};  // F or R
    if (by_x) {
        integrate_times_x(c, low == 0.0 ? 1.0 : -1.0, of);
    } else {
        for (int k = 1; k <= table_terms; ++k) {
            const double above = k + 1 < table_terms ? c[k + 1] : 0.0;
            of[k] = (k == 1 ? c[0] - 0.5 * above : (c[k - 1] - above) / (2.0 * k));
        }
    }
    const double t = along_panel(m, low, scale), unit = by_x ? scale : 1.0;
    double b1 = 0.0, b2 = 0.0;
    for (int k = table_terms; k >= 1; --k) {
        const double b = of[k] + (2.0 * t * b1 - b2);
        q[(k - 1) * stride] = (k == 1 ? b : 2.0 * b) * unit;
        b2 = b1;
        b1 = b;
    }
    return by_x ? of[0] + (t * b1 - b2) : 0.0;
}

// phi(to) - phi(from) = phi(from + step) - phi(from), both in that panel.
IGB_HD double rise_within(const TableView& table, int panel, double from, double to, double step) {
    double q[table_terms];
    const double at_zero = expand_difference(table, panel, from, q, 1);
    const double low = table.edges[panel], t = along_panel(to, low, 2.0 / (table.edges[panel + 1] - low));
    const double weight = table.by_x[1][panel] != 0 ? to * to : 1.0;
    return step * (at_zero * (from + to) + weight * sum_chebyshev<1>(q, t));
}

IGB_HD double jump_at(const TableView& table, double edge) {
    for (int k = 0; k < table.kink_count; ++k) {
        if (table.kinks[k] == edge) return table.jumps[k];
    }
    return 0.0;
}

// phi(y) - phi(m), y = m + step, from panel to panel edge by edge; `plain`, the difference of the two values, is as
// good where phi goes up and down by more than `lost` on the way.
IGB_HD double rise_across(const TableView& table, double m, int panel, double step, double y, int to, double plain,
                          double lost) {
    const int way = to > panel ? 1 : -1;
    double from = m, sum = 0.0, length = 0.0;
    for (int p = panel; p != to; p += way) {
        const double edge = table.edges[way > 0 ? p + 1 : p];
        const double rise = rise_within(table, p, from, edge, edge - from), jump = way * jump_at(table, edge);
        sum += rise + jump;
        length += absolute(rise) + absolute(jump);
        if (length > lost) return plain;
        from = edge;
    }
    return sum + rise_within(table, to, from, y, step - (from - m));
}

}  // namespace IGB_ISA

}  // namespace igb
