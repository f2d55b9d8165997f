// phi for the kernels, one node a thread. A kind of phi has
//     Node start(m)             what it knows of a node whose origin is m; value = phi(m), slope = phi'(m)
//     Change change(node, d)    phi(m + d) - phi(m), exact however small d, and phi'(m + d)
//     bool left_table(node)     whether m or some m + d was beyond the edges
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/activations.h"
#include "core/tabulated.h"

namespace igb::cuda {

// An activation with rules of its own.
template <class T, class Rule>
struct RuledPhi {
    struct Node {
        T m, anchor, value, slope;
    };

    Rule rule;

    IGB_HD Node start(T m) const { return {m, rule.anchor(m), rule.value(m), rule.slope(m)}; }
    IGB_HD Change<T> change(Node& node, T d) const { return rule.change(node.m, node.anchor, d); }
    IGB_HD bool left_table(const Node&) const { return false; }
};

// Twin of igb::TabulatedPhi, one lane of it. The two series of a node are held in registers.
template <class T>
struct TabulatedPhi {
    struct Node {
        T value, slope;
        double m, exact_value, low, high, scale, at_zero;
        int panel;
        bool by_x, left;
        double q[table_terms], slopes[table_terms];
    };

    TableView table;

    IGB_HD Node start(T origin) const {
        const double given = static_cast<double>(origin), x = held(given);
        const bool lost = !(given - given == 0.0);  // an overflow, which no longer table would mend
        const int p = panel_of(table, x);
        Node node;
        node.m = x;
        node.panel = p;
        node.left = !(x == given || lost);
        node.low = table.edges[p];
        node.high = table.edges[p + 1];
        node.scale = 2.0 / (node.high - node.low);
        node.by_x = table.by_x[1][p] != 0;
        node.at_zero = expand_difference(table, p, x, node.q, 1);
        for (int k = 0; k < table_terms; ++k) node.slopes[k] = table.series[1][p * table_terms + k];
        const bool square = node.by_x && table.by_x[0][p] != 0;
        node.exact_value = square ? x * x * node.at_zero : table_value(table, 0, p, x);
        node.value = static_cast<T>(lost ? given - given : node.exact_value);
        const double slope = sum_chebyshev<1>(node.slopes, along_panel(x, node.low, node.scale));
        node.slope = static_cast<T>(node.by_x ? x * slope : slope);
        return node;
    }

    IGB_HD Change<T> change(Node& node, T d) const {
        const double given = static_cast<double>(d), sum = node.m + given;
        const double y = held(sum), below = sum_error(node.m, given, sum);
        const double lost = sum - sum;  // nan after an overflow, else 0
        const double step = y == sum ? given : (y - node.m) + lost;
        node.left = node.left || !(y == sum || !(lost == 0.0));
        if (y < node.low || y >= node.high || (y == node.low && below < 0.0)) {
            const int p = panel_from(node, y, step);
            if (p != node.panel) return across(node, p, y, step);
        }
        const double t = along_panel(y, node.low, node.scale);
        const double q = sum_chebyshev<1>(node.q, t), slope = sum_chebyshev<1>(node.slopes, t);
        const double difference = step * ((node.m + y) * node.at_zero + (node.by_x ? y * y : 1.0) * q);
        return {static_cast<T>(difference), static_cast<T>(node.by_x ? y * slope : slope)};
    }

    IGB_HD bool left_table(const Node& node) const { return node.left; }

private:
    // phi(y) - phi(m) of this size, relative to what phi is on the way, has lost nothing that T holds.
    static constexpr double cancelled = std::is_same_v<T, float> ? 0x1p-20 : 0x1p-4;

    IGB_HD double held(double x) const {
        const double first = table.edges[0], last = table.edges[table.panels];
        return !(x > first) ? first : x > last ? last : x;
    }

    // Where m + d rounds up to an edge that it lies below, the panel below.
    IGB_HD int panel_from(const Node& node, double y, double step) const {
        const int p = panel_of(table, y);
        return y == table.edges[p] && step - (y - node.m) < 0.0 && p > 0 ? p - 1 : p;
    }

    IGB_HD Change<T> across(const Node& node, int p, double y, double step) const {
        const double plain = table_value(table, 0, p, y) - node.exact_value;
        const double lost = cancelled * (table.largest[0][p] + table.largest[0][node.panel]);
        const double difference =
            absolute(plain) < lost ? rise_across(table, node.m, node.panel, step, y, p, plain, lost) : plain;
        return {static_cast<T>(difference), static_cast<T>(table_value(table, 1, p, y))};
    }
};

// f(phi) with the kind of phi asked for; table: null, or a view whose arrays are in the memory of the device.
template <class T, class F>
void visit_phi(const Activation& activation, const TableView* table, F&& f) {
    if (table != nullptr) return f(TabulatedPhi<T>{*table});
    visit<T>(activation, [&](const auto& rule) { f(RuledPhi<T, std::decay_t<decltype(rule)>>{rule}); });
}

}  // namespace igb::cuda
