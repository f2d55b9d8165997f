// How a table is evaluated, what of it counts against a Gaussian, and the normal densities that go with it. The rules
// that integrate it are Gauss-Legendre on cells that lie in one panel and are short to the Gaussian, so that every
// integrand is a polynomial to the last bit that counts.
#pragma once

#include <cmath>

#include "core/config.h"
#include "core/elementary.h"
#include "core/quadrature.h"
#include "core/tabulated.h"

namespace igb::inline IGB_ISA {

inline constexpr int cell_nodes = 24;   // of the Gauss-Legendre rule on a cell
inline constexpr int strip_nodes = 16;  // and where two panels' series are multiplied: their product has degree 30

// ---- The table ------------------------------------------------------------------------------------------------------

IGB_HD bool jumps_somewhere(const TableView& table) {
    for (int k = 0; k < table.kink_count; ++k) {
        if (table.jumps[k] != 0.0) return true;
    }
    return false;
}

// phi^(m) on one panel (table_value), for many x.
struct PanelSeries {
    const double* c;
    double low, scale;
    bool by_x;

    IGB_HD PanelSeries(const TableView& table, int m, int panel)
        : c(table.series[m] + panel * table_terms), low(table.edges[panel]),
          scale(2.0 / (table.edges[panel + 1] - table.edges[panel])), by_x(table.by_x[m][panel] != 0) {}

    IGB_HD double at(double x) const {
        const double sum = sum_chebyshev<1>(c, along_panel(x, low, scale));
        return by_x ? x * sum : sum;
    }
};

// What counts of a function, in units of sqrt(q).
struct Range {
    double low, high;

    IGB_HD Range joined(const Range& other) const {
        return {low < other.low ? low : other.low, high > other.high ? high : other.high};
    }
};

// Where |phi^(m)|^power exp(-z^2 / 2) counts: where it comes within exp(-digits) of its peak. What one panel says to
// that, given the log of a bound of |phi^(m)| on it.
inline constexpr double range_digits = 42.0;

IGB_HD double log_bound(double largest) { return std::log(largest + 1e-300); }

IGB_HD double peak_on(const TableView& table, int panel, double root, double power, double log_largest) {
    const double a = table.edges[panel], b = table.edges[panel + 1];
    const double z = (a > 0.0 ? a : b < 0.0 ? b : 0.0) / root;
    return power * log_largest - 0.5 * z * z;
}

IGB_HD Range range_on(const TableView& table, int panel, double root, double power, double log_largest, double peak) {
    const double a = table.edges[panel] / root, b = table.edges[panel + 1] / root;
    const double spare = power * log_largest - peak + range_digits;
    const double z = spare > 0.0 ? std::sqrt(2.0 * spare) : 0.0;
    const double high = z < b ? z : b, low = -z > a ? -z : a;
    return {-z < b && low < 0.0 ? low : 0.0, z > a && high > 0.0 ? high : 0.0};
}

// The cells that cover a range: each in one panel, none longer than `longest`, all in units of x.
class CellWalk {
public:
    int panel;
    double low, high;

    IGB_HD CellWalk(const TableView& table, double first, double last, double longest)
        : panel(panel_of(table, first) - 1), low(0.0), high(0.0), edges_(table.edges), panels_(table.panels),
          first_(first), last_(last), longest_(longest) {}

    // To the next cell, if there is one.
    IGB_HD bool next() {
        while (piece_ == pieces_) {
            ++panel;
            if (panel >= panels_ || !(edges_[panel] < last_)) return false;
            a_ = edges_[panel] > first_ ? edges_[panel] : first_;
            b_ = edges_[panel + 1] < last_ ? edges_[panel + 1] : last_;
            piece_ = 0;
            pieces_ = b_ > a_ ? static_cast<int>(std::ceil((b_ - a_) / longest_)) : 0;
        }
        low = a_ + (b_ - a_) * piece_ / pieces_;
        ++piece_;
        high = piece_ == pieces_ ? b_ : a_ + (b_ - a_) * piece_ / pieces_;
        return true;
    }

private:
    const double* edges_;
    int panels_, piece_ = 0, pieces_ = 0;
    double first_, last_, longest_, a_ = 0.0, b_ = 0.0;
};

IGB_HD double normal_density(double z) { return normal_peak * fexp(-0.5 * z * z); }
IGB_HD double normal_cdf(double z) { return 0.5 * ferfc(-0.70710678118654752 * z); }

// To some ulp, at a third of the time.
IGB_HD double quick_normal_cdf(double z) {
    double x = 0.70710678118654752 * absolute(z);
    x = x > Erfcx<double>::last ? Erfcx<double>::last : x;
    const double tail = 0.5 * gaussian(x) * erfcx_plain(x), far = z < 0.0 ? tail : 1.0 - tail;
    return x < 0.46875 ? 0.5 + 0.5 * erf_near(0.70710678118654752 * z) : far;
}

IGB_HD double power_of(double base, int exponent) {
    double result = 1.0;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1) result *= base;
        base *= base;
    }
    return result;
}

}  // namespace igb::inline IGB_ISA
