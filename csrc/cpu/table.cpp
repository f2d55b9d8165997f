// What a table holds besides what it was given (see table.h).
#include "cpu/table.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace igb {

namespace {

Table::Series mirrored(const Table::Series& series, std::size_t panels, double sign) {
    Table::Series result = series;
    for (std::size_t p = 0; p < panels; ++p) {
        const std::size_t from = panels - 1 - p;
        result.by_x[p] = series.by_x[from];
        double flip = series.by_x[from] ? -sign : sign;  // x and T_k for odd k change their signs
        for (std::size_t k = 0; k < table_terms; ++k) {
            result.coefficients[p * table_terms + k] = flip * series.coefficients[from * table_terms + k];
            flip = -flip;
        }
    }
    return result;
}

std::vector<double> negated(const std::vector<double>& row) {
    std::vector<double> result(row.rbegin(), row.rend());
    for (double& x : result) x = -x;
    return result;
}

Table mirror_of(const Table& table) {
    Table result;
    result.edges = negated(table.edges);
    for (int m = 0; m < 3; ++m) {
        result.series[m] = mirrored(table.series[m], table.panels(), m % 2 == 0 ? 1.0 : -1.0);
    }
    result.kinks = negated(table.kinks);
    result.jumps = negated(table.jumps);
    result.parity = table.parity;
    result.q_max = table.q_max;
    return result;
}

}  // namespace

TableView Table::view() const {
    TableView result{};
    result.panels = static_cast<int>(panels());
    result.edges = edges.data();
    for (int m = 0; m < 3; ++m) {
        result.series[m] = series[m].coefficients.data();
        result.largest[m] = series[m].largest.data();
        result.by_x[m] = series[m].by_x.data();
    }
    result.kink_count = static_cast<int>(kinks.size());
    result.kinks = kinks.data();
    result.jumps = jumps.data();
    result.parity = parity;
    result.one_sign = one_sign;
    return result;
}

namespace {

// Whether phi takes one sign wherever it is looked at: at equally spaced points of every panel.
bool has_one_sign(const Table& table) {
    constexpr int points = 9;
    bool above = false, below = false;
    const auto middle = std::upper_bound(table.edges.begin(), table.edges.end() - 1, 0.0) - table.edges.begin();
    const double near = table.series[0].largest[static_cast<std::size_t>(std::max<std::ptrdiff_t>(middle - 1, 0))];
    for (std::size_t p = 0; p < table.panels(); ++p) {
        const double* const c = table.series[0].coefficients.data() + p * table_terms;
        for (int i = 0; i < points; ++i) {
            const double t = -1.0 + (2.0 * i + 1.0) / points;
            double b1 = 0.0, b2 = 0.0;
            for (int k = table_terms - 1; k >= 1; --k) {
                const double b = c[k] + (2.0 * t * b1 - b2);
                b2 = b1;
                b1 = b;
            }
            const double x = table.edges[p] + 0.5 * (1.0 + t) * (table.edges[p + 1] - table.edges[p]);
            const double value = (c[0] + (t * b1 - b2)) * (table.series[0].by_x[p] ? x : 1.0);
            const double rounding = 1e-13 * table.series[0].largest[p] + 1e-20 * near;
            above = above || value > rounding;
            below = below || value < -rounding;
        }
    }
    return !(above && below);
}

}  // namespace

void Table::finish() {
    for (Series& of : series) {
        of.largest.assign(panels(), 0.0);
        for (std::size_t p = 0; p < panels(); ++p) {
            for (std::size_t k = 0; k < table_terms; ++k) {
                of.largest[p] += std::fabs(of.coefficients[p * table_terms + k]);
            }
            if (of.by_x[p]) of.largest[p] *= std::max(std::fabs(edges[p]), std::fabs(edges[p + 1]));
        }
    }
    one_sign = has_one_sign(*this);
    if (monotone == 0) return;
    auto other = std::make_shared<Table>(mirror_of(*this));
    other->monotone = 0;
    other->finish();
    other->monotone = -monotone;
    mirror = other;
}

}  // namespace igb
