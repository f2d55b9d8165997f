// What the Gaussian expectations of a table (cpu/tabulated.cpp) are made of besides integrals: how small variances and
// kinks are treated, and where the Hermite series is worth a try.
#pragma once

#include <cmath>
#include <limits>

#include "core/config.h"
#include "core/gaussian_moments.h"
#include "core/table_rules.h"

namespace igb::inline IGB_ISA {

inline constexpr double infinite = std::numeric_limits<double>::infinity();

inline constexpr double smallest_q = 1e-300;  // stands for zero: phi is linear over its square root, on either side
inline constexpr double small_q = 1e-4;

// The jump of phi^(m) at a kink, from the two panels that meet there.
IGB_HD double jump_at(const TableView& table, int m, double kink) {
    const int above = panel_of(table, kink);
    if (above == 0) return 0.0;
    return table_value(table, m, above, kink) - table_value(table, m, above - 1, kink);
}

// Density of the largest of `size` standard normals.
IGB_HD double largest_density(double z, int size) {
    return size == 1 ? normal_density(z) : size * normal_density(z) * power_of(normal_cdf(z), size - 1);
}

// |c| for which the longest series still converges, whatever phi: c^capacity is then far below an ulp.
inline constexpr double series_reach = 0.935;

// 1 - c below which the widths of the double integral would leave the range of double; the spread over 1 - c is
// constant there, or like 1 / sqrt(1 - c).
inline constexpr double smallest_s = 1e-280;

// 1 - c or 1 + c of a product of two, kept from zero: it is continuous there to the last bit.
IGB_HD double held(double distance) { return distance > 1e-32 ? distance : 1e-32; }

IGB_HD bool may_converge(const TableView& table, double c) {
    return std::fabs(c) < series_reach || table.kink_count == 0;
}

// Sums over z of the weights times f, f^2, f'^2, f f'', f'', z f f' and z f'.
struct SingleSums {
    double mean, square, slope2, bend, curvature, moment, tilt;
};

// The largest of `size` nodes.
IGB_HD SingleMoments moments_of(const TableView& table, int size, double q, const SingleSums& sum) {
    const double root = std::sqrt(q);
    double slope2 = sum.slope2;
    // d E[P^2] / dq = E[z P P'] / sqrt(q), which for small q is a difference of large numbers, or E[P'^2 + P P''].
    const bool by_parts = q < small_q && size == 1;
    double square_dq = by_parts ? slope2 + sum.bend : sum.moment / root;
    double mean_dq = by_parts ? 0.5 * sum.curvature : 0.5 * sum.tilt / root;
    for (int k = 0; k < table.kink_count; ++k) {
        const double kink = table.kinks[k], z = kink / root, density = largest_density(z, size) / root;
        if (by_parts) {
            const double jump = density > 0.0 ? jump_at(table, 1, kink) : 0.0;
            const double value = jump != 0.0 ? table_value(table, 0, panel_of(table, kink), kink) : 0.0;
            square_dq += density * jump * value;
            mean_dq += 0.5 * density * jump;
        }
        if (table.jumps[k] != 0.0) {
            const double up = table_value(table, 0, panel_of(table, kink), kink);
            const double rise = density * kink / (2.0 * q) * table.jumps[k];
            mean_dq += rise;
            square_dq += rise * (2.0 * up - table.jumps[k]);
            slope2 = infinite;
        }
    }
    return {sum.mean, sum.square, slope2, square_dq, mean_dq};
}

}  // namespace igb::inline IGB_ISA
