#include "cpu/hermite_rule.h"

#include <cmath>
#include <memory>
#include <mutex>

#include "core/quadrature.h"

namespace igb {

HermiteRule::HermiteRule(int function_parity, int level) : parity(function_parity) {
    // h_n(z) exp(-z^2 / 4) oscillates with wave numbers up to sqrt(n), and a function that needs n terms has its own
    // up to about twice that. exp(-z^2 / 4) is 1e-28 at the reach, which leaves room for functions that grow.
    constexpr double reach = 16.0;
    const int highest = 64 << level;
    const double step = 2.0 * pi / (3.0 * std::sqrt(highest) + 6.0);
    const int half = static_cast<int>(reach / step);
    const int first = parity == 0 ? -half : 0;
    nodes = half - first + 1;
    terms = parity == 0 ? highest : highest / 2;
    z.resize(at(nodes));
    weight.resize(at(nodes));
    matrix.resize(at(Size{terms} * nodes));
    for (int k = 0; k < nodes; ++k) {
        const double x = (first + k) * step;
        const double both = parity == 0 || k == 0 ? 1.0 : 2.0;
        z[at(k)] = x;
        weight[at(k)] = both * step * normal_peak * std::exp(-0.5 * x * x);
        double below = 0.0, here = weight[at(k)];  // weight times h_(n-1), h_n
        for (int n = 0, term = 0; term < terms; ++n) {
            if (order(term) == n) matrix[at(Size{term++} * nodes + k)] = here;
            const double above = (x * here - std::sqrt(static_cast<double>(n)) * below) / std::sqrt(n + 1.0);
            below = here;
            here = above;
        }
    }
}

const HermiteRule& HermiteRule::of(int function_parity, int level) {
    static std::once_flag made[3][levels];
    static std::unique_ptr<const HermiteRule> rules[3][levels];
    std::unique_ptr<const HermiteRule>& rule = rules[function_parity + 1][level];
    std::call_once(made[function_parity + 1][level],
                   [&] { rule = std::make_unique<const HermiteRule>(function_parity, level); });
    return *rule;
}

}  // namespace igb
