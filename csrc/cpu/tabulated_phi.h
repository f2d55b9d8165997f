// A table (core/tabulated.h) as phi of one block of nodes: values, slopes, and exact differences phi(m + d) - phi(m).
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/activations.h"
#include "core/config.h"
#include "core/elementary.h"
#include "cpu/activate.h"
#include "cpu/table.h"
#include "cpu/table_rules.h"

namespace igb::inline IGB_ISA {

// Lane by lane, sum_k c_k T_k(t): lane j of coefficient k is c[k * node_block + j].
IGB_HD double sum_lane(const double* c, int j, double t) {
    return sum_chebyshev<static_cast<int>(node_block)>(c + j, t);
}

template <class T>
class TabulatedPhi {
public:
    static constexpr int block = static_cast<int>(node_block);
    static constexpr int group = 8;  // lanes that are worked on together where not all are

    explicit TabulatedPhi(const TableView& table)
        : table_(table), first_(table.edges[0]), last_(table.edges[table.panels]), stride_(1) {
        while (2 * stride_ < table.panels) stride_ *= 2;
    }

    // The anchors of a block.
    void start(const T* m, T* value, T* slope) {
        for (int j = 0; j < block; ++j) {
            const double given = static_cast<double>(m[j]), x = held(given);
            const bool lost = !(given - given == 0.0);  // an overflow, which no longer table would mend
            left_[j] = x == given || lost ? 0.0 : 1.0;
            const int p = panel_of(table_, x);
            m_[j] = x;
            panel_[j] = p;
            low_[j] = table_.edges[p];
            high_[j] = table_.edges[p + 1];
            scale_[j] = 2.0 / (high_[j] - low_[j]);
            by_x_[j] = table_.by_x[1][p];
            at_zero_[j] = expand_difference(table_, p, x, q_ + j, block);
            for (int k = 0; k < table_terms; ++k) slopes_[k * block + j] = table_.series[1][p * table_terms + k];
            double result;
            evaluate<1>(table_, 0, p, &x, &result);
            if (by_x_[j] != 0.0 && table_.by_x[0][p] != 0) result = x * x * at_zero_[j];
            value_[j] = result;
            value[j] = static_cast<T>(lost ? given - given : result);
            evaluate<1>(table_, 1, p, &x, &result);
            slope[j] = static_cast<T>(result);
        }
    }

    // Finds phi(m + unit d) - phi(m) and phi'(m + unit d), for change() to hand out.
    void look_at(const T* d, T unit) {
        alignas(64) double step[block], y[block], other[block];
#pragma omp simd
        for (int j = 0; j < block; ++j) {
            const double given = static_cast<double>(d[j] * unit), sum = m_[j] + given;
            const double at = held(sum), below = sum_error(m_[j], given, sum);
            y[j] = at;
            const double lost = sum - sum;  // nan after an overflow, else 0
            step[j] = at == sum ? given : (at - m_[j]) + lost;
            left_[j] = (at == sum) | !(lost == 0.0) ? left_[j] : 1.0;
            other[j] = (at < low_[j]) | (at >= high_[j]) | ((at == low_[j]) & (below < 0.0)) ? 1.0 : 0.0;
        }
#pragma omp simd
        for (int j = 0; j < block; ++j) {
            const double t = along_panel(y[j], low_[j], scale_[j]);
            const double q = sum_lane(q_, j, t), s = sum_lane(slopes_, j, t);
            const bool by_x = by_x_[j] != 0.0;
            difference_[j] = step[j] * ((m_[j] + y[j]) * at_zero_[j] + (by_x ? y[j] * y[j] : 1.0) * q);
            slope_[j] = by_x ? y[j] * s : s;
        }
        int count = 0, lanes[block + group];
        for (int j = 0; j < block; ++j) {
            lanes[count] = j;
            count += static_cast<int>(other[j]);
        }
        if (count > 0) look_across(lanes, count, step, y);
    }

    Change<T> change(int j, T) const { return {static_cast<T>(difference_[j]), static_cast<T>(slope_[j])}; }

    // Whether one of the first nodes of the block was beyond the edges.
    bool left_table(std::int64_t nodes) const {
        bool left = false;
        for (int j = 0; j < block && j < nodes; ++j) left = left || left_[j] != 0.0;
        return left;
    }

private:
    // phi(y) - phi(m) of this size, relative to what phi is on the way, has lost nothing that T holds.
    static constexpr double cancelled = std::is_same_v<T, float> ? 0x1p-20 : 0x1p-4;

    const TableView& table_;
    double first_, last_;
    int stride_;  // the largest power of two below the number of panels
    alignas(64) double m_[block], value_[block], low_[block], high_[block], scale_[block], at_zero_[block];
    alignas(64) double difference_[block], slope_[block];
    alignas(64) double q_[table_terms * block], slopes_[table_terms * block];
    alignas(64) double by_x_[block], left_[block];
    int panel_[block];

    double held(double x) const { return !(x > first_) ? first_ : x > last_ ? last_ : x; }

    // For the lanes whose m + d is in another panel.
    void look_across(int* lanes, int count, const double* step, const double* y_of) {
        alignas(64) double y[block], low[block], high[block], value[block], slope[block];
        alignas(64) double value_by_x[block], slope_by_x[block];
        alignas(64) double values[table_terms * block], slopes[table_terms * block];
        int panel[block];
        const double* const edges = table_.edges;
        int padded = count;
        for (; padded % group != 0; ++padded) lanes[padded] = lanes[0];
        for (int i = 0; i < padded; ++i) {
            y[i] = y_of[lanes[i]];
            panel[i] = 0;
        }
        for (int by = stride_; by > 0; by /= 2) {  // halving, all lanes in step and without branches
            for (int i = 0; i < padded; ++i) {
                const int p = panel[i], next = p + by < table_.panels ? p + by : p;
                panel[i] = p + (next - p) * static_cast<int>(edges[next] <= y[i]);
            }
        }
        for (int i = 0; i < padded; ++i) {
            const int j = lanes[i];
            const double x = y[i];
            int p = panel[i];
            // m + d rounds up to an edge that it lies below.
            if (x == edges[p] && step[j] - (x - m_[j]) < 0.0 && p > 0) --p;
            panel[i] = p;
            low[i] = edges[p];
            high[i] = edges[p + 1];
            value_by_x[i] = table_.by_x[0][p];
            slope_by_x[i] = table_.by_x[1][p];
            const double* const from = table_.series[0] + p * table_terms;
            const double* const slope_from = table_.series[1] + p * table_terms;
            for (int k = 0; k < table_terms; ++k) {
                values[k * block + i] = from[k];
                slopes[k * block + i] = slope_from[k];
            }
        }
        for (int begin = 0; begin < padded; begin += group) {
#pragma omp simd
            for (int i = begin; i < begin + group; ++i) {
                const double t = along_panel(y[i], low[i], 2.0 / (high[i] - low[i]));
                value[i] = (value_by_x[i] != 0.0 ? y[i] : 1.0) * sum_lane(values, i, t);
                slope[i] = (slope_by_x[i] != 0.0 ? y[i] : 1.0) * sum_lane(slopes, i, t);
            }
        }
        for (int i = 0; i < count; ++i) {
            const int j = lanes[i], p = panel[i];
            if (p == panel_[j]) continue;  // the last edge belongs to the last panel
            const double plain = value[i] - value_[j];
            const double lost = cancelled * (table_.largest[0][p] + table_.largest[0][panel_[j]]);
            difference_[j] =
                absolute(plain) < lost ? rise_across(table_, m_[j], panel_[j], step[j], y[i], p, plain, lost) : plain;
            slope_[j] = slope[i];
        }
    }
};

}  // namespace igb::inline IGB_ISA
