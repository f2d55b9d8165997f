// Two smooth functions of one variable as Chebyshev series on panels, halved until the series have converged: for a
// function that takes a millisecond and is wanted a million times.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "core/covariance_pairs.h"

namespace igb {

class AdaptiveCurve {
public:
    static constexpr int nodes = CurveView::nodes;
    using Values = std::array<double, 2>;

    // evaluate(count, x, out) gives the functions at `count` places. False, and no curve, where the series do not
    // converge to `tolerance` of the largest value on their panel.
    template <class Evaluate>
    bool build(double low, double high, double tolerance, Evaluate&& evaluate) {
        edges_.assign(1, low);
        series_.clear();
        return add(low, high, tolerance, max_depth, evaluate);
    }

    CurveView view(double unit, double square) const {
        const double* const series = series_.empty() ? nullptr : series_.front().front().data();
        return {static_cast<int>(series_.size()), edges_.data(), series, unit, square};
    }

private:
    using Series = std::array<std::array<double, nodes>, 2>;
    static constexpr int max_depth = 8;
    std::vector<double> edges_;
    std::vector<Series> series_;

    template <class Evaluate>
    bool add(double low, double high, double tolerance, int depth, Evaluate& evaluate) {
        double x[nodes];
        Values values[nodes];
        for (int j = 0; j < nodes; ++j)
            x[j] = 0.5 * (low + high) - 0.5 * (high - low) * std::cos(pi * (j + 0.5) / nodes);
        evaluate(nodes, x, values);
        Series series;
        bool converged = true;
        for (std::size_t f = 0; f < 2; ++f) {
            double largest = 0.0;
            for (std::size_t k = 0; k < nodes; ++k) {
                double sum = 0.0;
                for (std::size_t j = 0; j < nodes; ++j) {
                    const double angle = pi * (1.0 - (static_cast<double>(j) + 0.5) / nodes);
                    sum += values[j][f] * std::cos(static_cast<double>(k) * angle);
                    largest = std::fmax(largest, std::fabs(values[j][f]));
                }
                series[f][k] = sum * (k == 0 ? 1.0 : 2.0) / nodes;
            }
            for (std::size_t k = nodes - 2; k < nodes; ++k) {
                converged = converged && std::fabs(series[f][k]) <= tolerance * largest;
            }
        }
        if (converged) {
            edges_.push_back(high);
            series_.push_back(series);
            return true;
        }
        const double middle = 0.5 * (low + high);
        return depth > 0 && add(low, middle, tolerance, depth - 1, evaluate) &&
               add(middle, high, tolerance, depth - 1, evaluate);
    }
};

}  // namespace igb
