// How a table is evaluated (core/table_rules.h) in vectors, and integrated against a Gaussian cell by cell.
#pragma once

#include <cmath>
#include <cstddef>

#include "core/config.h"
#include "core/quadrature.h"
#include "core/table_rules.h"

namespace igb::inline IGB_ISA {

// ---- Gauss-Legendre -------------------------------------------------------------------------------------------------

// Nodes and weights on [-1, 1]. From what is given at the nodes, `coefficient` makes its Legendre series, and
// `from_above` its integrals from each node to 1.
template <int Nodes>
struct GaussLegendreOf {
    static constexpr int nodes = Nodes;
    static constexpr std::size_t size = static_cast<std::size_t>(Nodes);
    alignas(64) double x[size], w[size];
    alignas(64) double coefficient[size][size], from_above[size][size];
    double forward[size], back[size];  // Clenshaw: b_k = c_k + forward_k t b_(k+1) - back_k b_(k+2)

    GaussLegendreOf() {
        for (int i = 0; i < nodes; ++i) {
            double z = std::cos(pi * (nodes - i - 0.25) / (nodes + 0.5)), slope = 0.0;
            for (int newton = 0; newton < 8; ++newton) {
                double p[size + 2];
                legendre(z, p);
                slope = nodes * (z * p[nodes] - p[nodes - 1]) / (z * z - 1.0);
                z -= p[nodes] / slope;
            }
            x[i] = z;
            w[i] = 2.0 / ((1.0 - z * z) * slope * slope);
        }
        for (int i = 0; i < nodes; ++i) {
            double at[size + 2];
            legendre(x[i], at);
            for (int k = 0; k < nodes; ++k) coefficient[k][i] = (k + 0.5) * w[i] * at[k];
            forward[i] = (2.0 * i + 1.0) / (i + 1.0);
            back[i] = (i + 1.0) / (i + 2.0);
        }
        // The Lagrange polynomial of node j is sum_n (n + 1/2) w_j P_n(x_j) P_n; int_x^1 P_n = (P_(n-1) - P_(n+1)) /
        // (2 n + 1).
        for (int i = 0; i < nodes; ++i) {
            double at[size + 2];
            legendre(x[i], at);
            for (int j = 0; j < nodes; ++j) {
                double of[size + 2];
                legendre(x[j], of);
                double sum = 0.5 * (1.0 - x[i]);
                for (int n = 1; n < nodes; ++n) sum += 0.5 * of[n] * (at[n - 1] - at[n + 1]);
                from_above[j][i] = w[j] * sum;
            }
        }
    }

    // out[i] = sum_k c_k P_k(t[i]).
    template <int Count>
    void sum_series(const double* c, const double* t, double* out) const {
#pragma omp simd
        for (int i = 0; i < Count; ++i) {
            double b1 = 0.0, b2 = 0.0;
            for (int k = nodes - 1; k >= 0; --k) {
                const double b = c[k] + (forward[k] * t[i] * b1 - back[k] * b2);
                b2 = b1;
                b1 = b;
            }
            out[i] = b1;
        }
    }

    static const GaussLegendreOf& rule() {
        static const GaussLegendreOf once;
        return once;
    }

private:
    static void legendre(double z, double* p) {
        p[0] = 1.0;
        p[1] = z;
        for (int n = 1; n <= nodes; ++n) p[n + 1] = ((2 * n + 1) * z * p[n] - n * p[n - 1]) / (n + 1);
    }
};

using GaussLegendre = GaussLegendreOf<cell_nodes>;

// ---- The table ------------------------------------------------------------------------------------------------------

// out[i] = phi^(m)(x[i]), all x in one panel.
template <int Count>
inline void evaluate(const TableView& table, int m, int panel, const double* x, double* out) {
    const PanelSeries series(table, m, panel);
#pragma omp simd
    for (int i = 0; i < Count; ++i) out[i] = series.at(x[i]);
}

// Where |phi^(m)|^power exp(-z^2 / 2) counts.
inline Range range_of_power(const TableView& table, int m, double root, double power) {
    double peak = -1e300;
    for (int p = 0; p < table.panels; ++p) {
        const double size = peak_on(table, p, root, power, log_bound(table.largest[m][p]));
        peak = size > peak ? size : peak;
    }
    Range range{0.0, 0.0};
    for (int p = 0; p < table.panels; ++p) {
        range = range.joined(range_on(table, p, root, power, log_bound(table.largest[m][p]), peak));
    }
    return range;
}

// Where it counts in expectations of phi^(m) and of its square.
inline Range range_of(const TableView& table, int m, double root) {
    return range_of_power(table, m, root, 1.0).joined(range_of_power(table, m, root, 2.0));
}

// f(panel, x_low, x_high) for the cells of the range.
template <class F>
inline void for_each_cell(const TableView& table, double low, double high, double longest, F&& f) {
    for (CellWalk walk(table, low, high, longest); walk.next();) f(walk.panel, walk.low, walk.high);
}

}  // namespace igb::inline IGB_ISA
