// Two smooth functions of one variable as Chebyshev series on panels, halved until the series have converged: for a
// function that takes a millisecond and is wanted a million times.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

namespace igb {

class AdaptiveCurve {
public:
    static constexpr int nodes = 16;
    using Values = std::array<double, 2>;

    // evaluate(count, x, out) gives the functions at `count` places. False, and no curve, where the series do not
    // converge to `tolerance` of the largest value on their panel.
    template <class Evaluate>
    bool build(double low, double high, double tolerance, Evaluate&& evaluate) {
        edges_.assign(1, low);
        series_.clear();
        return add(low, high, tolerance, max_depth, evaluate);
    }

    Values at(double x) const {
        std::size_t first = 0, last = series_.size();
        while (last - first > 1) {
            const std::size_t middle = (first + last) / 2;
            (edges_[middle] <= x ? first : last) = middle;
        }
        const double t = (2.0 * x - edges_[first] - edges_[first + 1]) / (edges_[first + 1] - edges_[first]);
        Values result;
        for (std::size_t f = 0; f < 2; ++f) {
            const auto& c = series_[first][f];
            double here = 0.0, above = 0.0;  // Clenshaw
            for (std::size_t k = nodes - 1; k > 0; --k) {
                const double below = c[k] + 2.0 * t * here - above;
                above = here;
                here = below;
            }
            result[f] = c[0] + t * here - above;
        }
        return result;
    }

private:
    using Series = std::array<std::array<double, nodes>, 2>;
    static constexpr int max_depth = 8;
    static constexpr double pi = 3.141592653589793;
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
