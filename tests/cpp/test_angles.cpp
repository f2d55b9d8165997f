// The angles against the long double library, in units in the last place of the result.
#include "core/angles.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <random>

#include "check.h"

namespace {

double ulps(double value, long double reference) {
    int exponent;
    std::frexp(reference, &exponent);
    return static_cast<double>(std::abs(value - reference) / std::ldexp(1.0L, exponent - 53));
}

// Points in every direction of the upper half plane, near the axes and the diagonals too, of any length.
double worst_angle() {
    std::mt19937_64 random(7);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    double worst = 0.0;
    for (int i = 0; i < 400'000; ++i) {
        const double eighth = std::floor(uniform(random) * 5.0) * 0.25, aside = std::pow(10.0, -17.0 * uniform(random));
        const double turn = std::numbers::pi * std::clamp(eighth + (i % 2 == 0 ? aside : -aside), 0.0, 1.0);
        const double length = std::pow(10.0, 200.0 * (uniform(random) - 0.5));
        const double x = length * std::cos(turn), y = length * std::abs(std::sin(turn));
        const long double exact = std::atan2(static_cast<long double>(y), static_cast<long double>(x));
        if (exact > 0.0L) worst = std::max(worst, ulps(igb::angle_of(y, x), exact));
    }
    return worst;
}

// sin t - t cos t for 1 - cos t = s, by its series in t, which does not cancel.
long double sine_excess(long double s) {
    const long double t = 2.0L * std::asin(std::sqrt(0.5L * s));
    long double term = t * t * t / 6.0L, sum = 0.0L;
    for (int k = 1; k < 30; ++k) {
        sum += 2.0L * k * term;
        term *= -t * t / ((2.0L * k + 2.0L) * (2.0L * k + 3.0L));
    }
    return sum;
}

double worst_excess() {
    double worst = 0.0;
    for (int i = 1; i <= 200'000; ++i) {
        const double s = i <= 100'000 ? i / 100'000.0 : std::pow(10.0, -(i - 100'000) / 500.0);
        worst = std::max(worst, ulps(igb::sine_excess_from(s), sine_excess(s)));
    }
    return worst;
}

}  // namespace

int main() {
    const double angle = worst_angle(), excess = worst_excess();
    std::printf("units in the last place: angle_of %.2f, sine_excess_from %.2f\n", angle, excess);
    CHECK(angle <= 2.5);
    CHECK(excess <= 3.5);
    CHECK(igb::angle_of(0.0, 1.0) == 0.0 && igb::angle_of(0.0, 0.0) == 0.0);
    CHECK(igb::angle_of(1.0, 0.0) == std::numbers::pi / 2.0 && igb::angle_of(0.0, -1.0) == std::numbers::pi);
    CHECK(igb::sine_excess_from(0.0) == 0.0 && igb::sine_excess_from(1.0) == 1.0);
    return summary();
}
