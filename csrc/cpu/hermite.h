// The expansion of f(z) = phi^(m)(sqrt(q) z) in the orthonormal Hermite polynomials h_n (Mehler's formula):
//
//     E[f(u) g(v)] = sum_n f_n g_n c^n,   f_n = E[f(z) h_n(z)],   h_(n+1) = (z h_n - sqrt(n) h_(n-1)) / sqrt(n + 1)
//     E[(f(u) - f(v))^2] / 2 = sum_n f_n^2 (1 - c^n)
//
// Every term has one sign for c >= 0, so that a small c or a small 1 - c costs no digits, and Parseval's equations,
// sum f_n^2 = E[f^2] and sum n f_n^2 = q E[f'^2], say how much the terms left out can amount to.
#pragma once

#include <cmath>
#include <limits>

#include "cpu/kernels.h"
#include "cpu/table_rules.h"

namespace igb::inline IGB_ISA {

inline constexpr int series_steps[] = {64, 192, HermiteSeries::capacity};
inline constexpr double series_error = 2e-14;  // of norm2, or of the spread

struct SquareRoots {
    double forward[HermiteSeries::capacity], back[HermiteSeries::capacity];

    SquareRoots() {  // h_(n+1) = z forward_n h_n - back_n h_(n-1)
        for (int n = 0; n < HermiteSeries::capacity; ++n) {
            forward[n] = 1.0 / std::sqrt(n + 1.0);
            back[n] = std::sqrt(n / (n + 1.0));
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
    const double longest = 12.0 / std::sqrt(static_cast<double>(terms));
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

// What the terms left out hold, which rounding must not make look smaller than it can tell.
IGB_HD double remainder(double norm2, double held) { return std::fmax(std::fabs(norm2 - held), 1e-15 * norm2); }

// How far the terms left out count: not beside the sum, not beside sqrt(E[f^2] E[g^2]), or more.
enum class Tail { small_to_sum, small_to_norm, large };

// sum_n f_n g_n c^n.
inline Tail product_by_series(const HermiteSeries& f, const HermiteSeries& g, double c, double& sum) {
    double power = 1.0, held_f = 0.0, held_g = 0.0;
    sum = 0.0;
    for (int n = 0; n < f.terms; ++n) {
        sum += f.f[n] * g.f[n] * power;
        held_f += f.f[n] * f.f[n];
        held_g += g.f[n] * g.f[n];
        power *= c;
    }
    const double rest_f = remainder(f.norm2, held_f), rest_g = remainder(g.norm2, held_g);
    const double rest = std::fabs(power) * std::sqrt(rest_f) * std::sqrt(rest_g);
    if (rest <= series_error * std::fabs(sum)) return Tail::small_to_sum;
    return rest <= series_error * std::sqrt(f.norm2) * std::sqrt(g.norm2) ? Tail::small_to_norm : Tail::large;
}

// centre = sum_n f_n^2 c^n and spread = sum_n f_n^2 (1 - c^n), s = 1 - c, if the terms left out do not count.
inline bool split_by_series(const HermiteSeries& f, double s, SplitMoments& result) {
    double centre = 0.0, spread = 0.0, power = 1.0, less = 0.0, held = 0.0, held_slope = 0.0;
    for (int n = 0; n < f.terms; ++n) {
        const double a = f.f[n] * f.f[n];
        centre += a * power;
        spread += a * less;
        held += a;
        held_slope += n * a;
        less += power * s;  // 1 - c^(n+1)
        power *= 1.0 - s;
    }
    const double rest = remainder(f.norm2, held), rest_slope = remainder(f.slope_norm2, held_slope);
    const double if_none = std::fmin(rest, s * rest_slope);  // what a tail left out amounts to at most
    const double if_all = rest * power;                      // and one that counts with the factor 1
    if (power * rest > series_error * centre) return false;
    result = {centre, if_none <= if_all ? spread : spread + rest};
    return std::fmin(if_none, if_all) <= series_error * result.spread;
}

}  // namespace igb::inline IGB_ISA
