// The Hermite series of a table (core/hermite.h), in vectors.
#pragma once

#include <cmath>
#include <limits>

#include "core/config.h"
#include "core/hermite.h"
#include "cpu/kernels.h"
#include "cpu/table_rules.h"

namespace igb::inline IGB_ISA {

inline constexpr int series_steps[] = {shortest_series, longer_series, series_capacity};

struct SquareRoots {
    double forward[HermiteSeries::capacity], back[HermiteSeries::capacity];

    SquareRoots() {
        for (int n = 0; n < HermiteSeries::capacity; ++n) {
            forward[n] = hermite_forward(n);
            back[n] = hermite_back(n);
        }
    }

    static const SquareRoots& table() {
        static const SquareRoots once;
        return once;
    }
};

// Nodes z with f(z) times their weights, gathered until there are enough for the recurrence to be worth its while.
class SeriesSum {
public:
    SeriesSum(double* f, int terms) : f_(f), terms_(terms) {
        for (int n = 0; n < terms; ++n) f[n] = 0.0;
    }

    void add(const double* z, const double* weighted) {
        for (int i = 0; i < cell_nodes; ++i) {
            z_[count_ + i] = z[i];
            h_[count_ + i] = weighted[i];
        }
        count_ += cell_nodes;
        if (count_ == capacity) flush();
    }

    void flush() {
        const SquareRoots& roots = SquareRoots::table();
        for (int i = count_; i < capacity; ++i) z_[i] = h_[i] = 0.0;
        for (int i = 0; i < capacity; ++i) last_[i] = 0.0;
        for (int n = 0; n < terms_; ++n) {
            const double forward = roots.forward[n], back = roots.back[n];
            double sum = 0.0;
#pragma omp simd reduction(+ : sum)
            for (int i = 0; i < capacity; ++i) {
                sum += h_[i];
                const double next = forward * z_[i] * h_[i] - back * last_[i];
                last_[i] = h_[i];
                h_[i] = next;
            }
            f_[n] += sum;
        }
        count_ = 0;
    }

private:
    static constexpr int capacity = 8 * cell_nodes;
    double* f_;
    int terms_, count_ = 0;
    alignas(64) double z_[capacity], h_[capacity], last_[capacity];
};

inline void expand(const TableView& table, int m, double q, int terms, HermiteSeries& series) {
    const GaussLegendre& rule = GaussLegendre::rule();
    const double root = std::sqrt(q);
    // h_n(z) exp(-z^2 / 4) is bounded: |f| exp(-z^2 / 4) says what counts.
    const double wide = 1.4142135623730951;
    Range range = range_of_power(table, m, root * wide, 1.0);
    range = Range{range.low * wide, range.high * wide}.joined(range_of(table, m, root));
    const bool half = table.parity != 0;  // then f^2 is even, and the terms of the other parity vanish
    const double longest = longest_cell(terms);
    const bool has_slope = m < 2;
    double norm2 = 0.0, slope_norm2 = 0.0;
    SeriesSum sum(series.f, terms);
    for_each_cell(table, half ? 0.0 : range.low * root, range.high * root, longest * root,
                  [&](int panel, double low, double high) {
                      alignas(64) double x[cell_nodes], z[cell_nodes], f[cell_nodes], slope[cell_nodes] = {};
                      for (int i = 0; i < cell_nodes; ++i) x[i] = low + 0.5 * (high - low) * (1.0 + rule.x[i]);
                      evaluate<cell_nodes>(table, m, panel, x, f);
                      if (has_slope) evaluate<cell_nodes>(table, m + 1, panel, x, slope);
                      const double scale = (half ? 1.0 : 0.5) * (high - low) / root;
#pragma omp simd reduction(+ : norm2, slope_norm2)
                      for (int i = 0; i < cell_nodes; ++i) {
                          z[i] = x[i] / root;
                          const double weight = scale * rule.w[i] * normal_density(z[i]);
                          norm2 += weight * f[i] * f[i];
                          slope_norm2 += weight * slope[i] * slope[i];
                          f[i] *= weight;
                      }
                      sum.add(z, f);
                  });
    sum.flush();
    if (half) {
        const int sign = m % 2 == 0 ? table.parity : -table.parity;
        for (int n = sign > 0 ? 1 : 0; n < terms; n += 2) series.f[n] = 0.0;
    }
    series.q = q;
    series.derivative = m;
    series.terms = terms;
    series.norm2 = norm2;
    const bool whole = m == 0 ? !jumps_somewhere(table) : has_slope && table.kink_count == 0;
    series.slope_norm2 = whole ? q * slope_norm2 : std::numeric_limits<double>::infinity();
}

// The series with at least so many terms; the one that is there if it will do.
inline const HermiteSeries& series_at(const TableView& table, int m, double q, int terms, HermiteSeries& cached) {
    if (cached.q != q || cached.derivative != m || cached.terms < terms) expand(table, m, q, terms, cached);
    return cached;
}

inline HermiteTerms view_of(const HermiteSeries& series) {
    return {series.f, series.terms, series.norm2, series.slope_norm2};
}

}  // namespace igb::inline IGB_ISA
