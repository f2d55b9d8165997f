// One layer of the mean-field recursion (cpu/propagate.h), in variables that do not cancel, given the expectations of
// P:
//
//     sigma_mu2' = sigma_w2 E_mu[(E_e P)^2] + sigma_b2,   sigma_y2' = sigma_w2 E_mu[Var_e P],   y = mu + e
#pragma once

#include <cmath>
#include <limits>

#include "core/config.h"
#include "core/gaussian_moments.h"

namespace igb::inline IGB_ISA {

namespace recursion {

inline constexpr double nan = std::numeric_limits<double>::quiet_NaN();
inline constexpr double smallest = std::numeric_limits<double>::min();  // normal number: below it, digits are lost
inline constexpr double recovered = smallest * 1e32;  // what is added to a lost number makes it good again

// The ratio of two non-negative numbers. x/0, two equal inputs, is a true infinity; what over- or underflows is nan.
IGB_HD double ratio(double numerator, double denominator) {
    const double r = numerator / denominator;
    const bool lost = !std::isfinite(r) || (numerator > 0.0 && r < smallest);
    return lost && denominator != 0.0 ? nan : r;
}

}  // namespace recursion

// A lost number counts as zero further on: the rest of the state does not feel it.
struct Kept {
    double value;
    bool lost = false;

    IGB_HD void settle() {
        lost = lost ? value < recursion::recovered : value != 0.0 && value < recursion::smallest;
        if (lost) value = 0.0;
    }
    IGB_HD double shown() const { return lost ? recursion::nan : value; }
};

// What is shown of a layer.
struct TheoryLayer {
    double sigma_mu2, sigma_y2, gamma, q, c, chi;

    IGB_HD static TheoryLayer overflown() {
        using recursion::nan;
        return {nan, nan, nan, nan, nan, nan};
    }
};

struct Recursion {
    double sigma_w2, sigma_b2;
    double residual;  // a in y' = y + sqrt(a) (W P(y) + b); 0 for y' = W P(y) + b
    bool layernorm;
    Kept mu2, y2;

    IGB_HD double q() const { return mu2.value + y2.value; }
    IGB_HD double gain() const { return residual > 0.0 ? residual : 1.0; }
    IGB_HD double unit() const { return layernorm && q() > 0.0 ? 1.0 / q() : 1.0; }  // what phi sees is y sqrt(unit)
    IGB_HD double seen() const { return layernorm ? 1.0 : q(); }                     // and its variance

    // False once a number has left the range of double.
    IGB_HD bool settle() {
        if (!std::isfinite(q())) return false;
        mu2.settle();
        y2.settle();
        return true;
    }

    IGB_HD TheoryLayer layer(double slope2) const {
        using recursion::nan, recursion::ratio;
        const double factor = sigma_w2 * slope2 * unit();
        const double chi = residual > 0.0 ? 1.0 + gain() * factor : factor;
        const double all = q() == 0.0 && (mu2.lost || y2.lost) ? nan : q();
        return {mu2.shown(),
                y2.shown(),
                mu2.lost || y2.lost ? nan : ratio(mu2.value, y2.value),
                all,
                mu2.lost ? nan : ratio(mu2.value, all),
                std::isfinite(chi) ? chi : nan};
    }

    // `next`: of mu2 unit() and y2 unit().
    IGB_HD void advance(const SplitMoments& next) {
        const double kept = residual > 0.0 ? 1.0 : 0.0;
        mu2.value = kept * mu2.value + gain() * (sigma_w2 * next.centre + sigma_b2);
        y2.value = kept * y2.value + gain() * (sigma_w2 * next.spread);
    }
};

}  // namespace igb::inline IGB_ISA
