// How a table is evaluated, and integrated against a Gaussian: by Gauss-Legendre on cells that lie in one panel and are
// short to the Gaussian, so that every integrand is a polynomial to the last bit that counts.
#pragma once

#include <cmath>
#include <cstddef>

#include "core/config.h"
#include "core/elementary.h"
#include "core/quadrature.h"
#include "cpu/table.h"

namespace igb::inline IGB_ISA {

// ---- Gauss-Legendre -------------------------------------------------------------------------------------------------

// Nodes and weights on [-1, 1]. From what is given at the nodes, `coefficient` makes its Legendre series, and `from_above`
// its integrals from each node to 1.
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

using GaussLegendre = GaussLegendreOf<24>;
inline constexpr int cell_nodes = GaussLegendre::nodes;

// ---- The table ------------------------------------------------------------------------------------------------------

inline bool jumps_somewhere(const TableView& table) {
    for (int k = 0; k < table.kink_count; ++k) {
        if (table.jumps[k] != 0.0) return true;
    }
    return false;
}

// The panel of x; on an edge, the one above.
inline int panel_of(const TableView& table, double x) {
    int low = 0, high = table.panels;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        (table.edges[middle] <= x ? low : high) = middle;
    }
    return low;
}

// out[i] = phi^(m)(x[i]), all x in one panel: Clenshaw's recurrence.
template <int Count>
inline void evaluate(const TableView& table, int m, int panel, const double* x, double* out) {
    const double* const c = table.series[m] + panel * table_terms;
    const double low = table.edges[panel], high = table.edges[panel + 1];
    const double scale = 2.0 / (high - low);
    const bool by_x = table.by_x[m][panel] != 0;
#pragma omp simd
    for (int i = 0; i < Count; ++i) {
        const double along = (x[i] - low) * scale - 1.0;  // beyond the ends by rounding alone
        const double t = along > 1.0 ? 1.0 : along < -1.0 ? -1.0 : along, twice = t + t;
        double b1 = 0.0, b2 = 0.0;
        for (int k = table_terms - 1; k >= 1; --k) {
            const double b = c[k] + (twice * b1 - b2);
            b2 = b1;
            b1 = b;
        }
        const double sum = c[0] + (t * b1 - b2);
        out[i] = by_x ? x[i] * sum : sum;
    }
}

// What counts of a function, in units of sqrt(q).
struct Range {
    double low, high;

    Range joined(const Range& other) const {
        return {low < other.low ? low : other.low, high > other.high ? high : other.high};
    }
};

// Where |phi^(m)|^power exp(-z^2 / 2) counts.
inline Range range_of_power(const TableView& table, int m, double root, double power) {
    constexpr double digits = 42.0;  // exp(-digits) does not count
    const auto log_largest = [&](int p) { return power * std::log(table.largest[m][p] + 1e-300); };
    double peak = -1e300;
    for (int p = 0; p < table.panels; ++p) {
        const double a = table.edges[p], b = table.edges[p + 1];
        const double z = (a > 0.0 ? a : b < 0.0 ? b : 0.0) / root;
        const double size = log_largest(p) - 0.5 * z * z;
        peak = size > peak ? size : peak;
    }
    Range range{0.0, 0.0};
    for (int p = 0; p < table.panels; ++p) {
        const double a = table.edges[p] / root, b = table.edges[p + 1] / root;
        const double spare = log_largest(p) - peak + digits;
        const double z = spare > 0.0 ? std::sqrt(2.0 * spare) : 0.0;
        const double high = z < b ? z : b, low = -z > a ? -z : a;
        if (z > a && high > range.high) range.high = high;
        if (-z < b && low < range.low) range.low = low;
    }
    return range;
}

// Where it counts in expectations of phi^(m) and of its square.
inline Range range_of(const TableView& table, int m, double root) {
    return range_of_power(table, m, root, 1.0).joined(range_of_power(table, m, root, 2.0));
}

// f(panel, x_low, x_high) for cells that cover the range, none longer than `longest`, all in units of x.
template <class F>
inline void for_each_cell(const TableView& table, double low, double high, double longest, F&& f) {
    for (int p = panel_of(table, low); p < table.panels && table.edges[p] < high; ++p) {
        const double a = table.edges[p] > low ? table.edges[p] : low;
        const double b = table.edges[p + 1] < high ? table.edges[p + 1] : high;
        if (!(b > a)) continue;
        const int pieces = static_cast<int>(std::ceil((b - a) / longest));
        for (int i = 0; i < pieces; ++i) {
            f(p, a + (b - a) * i / pieces, i + 1 == pieces ? b : a + (b - a) * (i + 1) / pieces);
        }
    }
}

IGB_HD double normal_density(double z) { return normal_peak * fexp(-0.5 * z * z); }
IGB_HD double normal_cdf(double z) { return 0.5 * ferfc(-0.70710678118654752 * z); }

// To some ulp, at a third of the time.
IGB_HD double quick_normal_cdf(double z) {
    double x = 0.70710678118654752 * absolute(z);
    x = x > Erfcx<double>::last ? Erfcx<double>::last : x;
    const double tail = 0.5 * gaussian(x) * erfcx_plain(x), far = z < 0.0 ? tail : 1.0 - tail;
    return x < 0.46875 ? 0.5 + 0.5 * erf_near(0.70710678118654752 * z) : far;
}

inline double power_of(double base, int exponent) {
    double result = 1.0;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1) result *= base;
        base *= base;
    }
    return result;
}

}  // namespace igb::inline IGB_ISA
