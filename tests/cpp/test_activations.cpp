// Activations: the exact difference phi(m + d) - phi(m) against quadruple precision, in units in the last place of the
// difference itself, over wide random (m, d); values, slopes and curvatures against long double; the anchor's limits.
#include "core/activations.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <random>

#include "check.h"

#if defined(IGB_QUADMATH)
#include <quadmath.h>
#endif

namespace {

using igb::Activation;
using igb::ActivationKind;

template <class T>
constexpr bool single = std::is_same_v<T, float>;

// ---- Quadruple precision --------------------------------------------------------------------------------------------

#if defined(IGB_QUADMATH)

__extension__ typedef __float128 Quad;

Quad q_exp(Quad x) { return expq(x); }
Quad q_sinh(Quad x) { return sinhq(x); }
Quad q_cosh(Quad x) { return coshq(x); }
Quad q_erf(Quad x) { return erfq(x); }
Quad q_erfc(Quad x) { return erfcq(x); }
Quad q_abs(Quad x) { return fabsq(x); }
Quad q_acos(Quad x) { return acosq(x); }
Quad q_cos(Quad x) { return cosq(x); }
Quad q_sqrt(Quad x) { return sqrtq(x); }

#else

using Quad = long double;  // quadruple on 64-bit Arm

Quad q_exp(Quad x) { return std::exp(x); }
Quad q_sinh(Quad x) { return std::sinh(x); }
Quad q_cosh(Quad x) { return std::cosh(x); }
Quad q_erf(Quad x) { return std::erf(x); }
Quad q_erfc(Quad x) { return std::erfc(x); }
Quad q_abs(Quad x) { return std::abs(x); }
Quad q_acos(Quad x) { return std::acos(x); }
Quad q_cos(Quad x) { return std::cos(x); }
Quad q_sqrt(Quad x) { return std::sqrt(x); }

#endif

const Quad pi = q_acos(Quad{-1});

Quad tanh_difference(Quad m, Quad d) { return q_sinh(d) / (q_cosh(m + d) * q_cosh(m)); }

// Nodes and weights of Gauss and Legendre on [-1, 1] by Newton's method.
struct GaussLegendre {
    static constexpr int n = 32;
    Quad x[n], w[n];

    GaussLegendre() {
        for (int i = 0; i < n; ++i) {
            Quad z = q_cos(pi * (Quad(i) + Quad(0.75)) / (Quad(n) + Quad(0.5))), slope = 0;
            for (int newton = 0; newton < 12; ++newton) {
                Quad p = 1, previous = 0;
                for (int k = 0; k < n; ++k) {
                    const Quad next = (Quad(2 * k + 1) * z * p - Quad(k) * previous) / Quad(k + 1);
                    previous = p;
                    p = next;
                }
                slope = Quad(n) * (z * p - previous) / (z * z - 1);
                z -= p / slope;
            }
            x[i] = z;
            w[i] = 2 / ((1 - z * z) * slope * slope);
        }
    }
};

// erf(m + d) - erf(m): an integral where the two are close, else a difference that keeps more digits than are asked
// for.
Quad erf_difference(Quad m, Quad d) {
    static const GaussLegendre rule;
    if (m < 0) return -erf_difference(-m, -d);
    const Quad y = m + d;
    if (q_abs(d) < Quad(0.05) && q_abs(d) * m < Quad(0.5)) {
        Quad sum = 0;
        for (int i = 0; i < GaussLegendre::n; ++i) {
            const Quad t = m + d / 2 * (1 + rule.x[i]);
            sum += rule.w[i] * q_exp(-t * t);
        }
        return sum * d / q_sqrt(pi);
    }
    return y > Quad(0.5) && m > Quad(0.5) ? q_erfc(m) - q_erfc(y) : q_erf(y) - q_erf(m);
}

Quad leaky(Quad x, Quad a) { return x > 0 ? x : a * x; }

// |value - reference| in units in the last place of T, where the reference is above `floor`; below, over `floor`.
template <class T>
double ulps(T value, Quad reference, double floor) {
    const double size = std::max(static_cast<double>(q_abs(reference)), floor);
    int exponent;
    std::frexp(size, &exponent);
    const double unit = std::ldexp(1.0, exponent - std::numeric_limits<T>::digits);
    const double error = static_cast<double>(q_abs(Quad(value) - reference)) / unit;
    return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

// ---- Differences ----------------------------------------------------------------------------------------------------

// Pairs (m, d) of every regime: moderate; d tiny; m saturated, d any; m + d near zero; both tiny; huge.
template <class T>
class Pairs {
public:
    static constexpr int regimes = 6;

    void draw(int regime, T& m, T& d) {
        const double far = single<T> ? 60.0 : 400.0, tiny = single<T> ? -31.0 : -300.0;
        switch (regime) {
            case 0: m = T(signed_(6.0)), d = T(signed_(6.0)); break;
            case 1: m = T(signed_(3.0)), d = T(sign() * std::pow(10.0, tiny * unit())); break;
            case 2: m = T(signed_(far)), d = T(signed_(far)); break;
            case 3: m = T(signed_(far)), d = T(-static_cast<double>(m) + signed_(3.0)); break;
            case 4:
                m = T(sign() * std::pow(10.0, -20.0 * unit())), d = T(sign() * std::pow(10.0, -20.0 * unit()));
                break;
            default: m = T(signed_(1000.0)), d = T(signed_(2000.0)); break;
        }
    }

private:
    double unit() { return std::uniform_real_distribution<>(0.0, 1.0)(random); }
    double sign() { return unit() < 0.5 ? -1.0 : 1.0; }
    double signed_(double size) { return size * (2.0 * unit() - 1.0); }

    std::mt19937_64 random{20240601};
};

// A difference this small has met the smallest normal number: what is below is absolute, not relative.
template <class T>
constexpr double smallest = single<T> ? 1e-30 : 1e-291;

template <class T, class Phi, class Reference>
void check_difference(const Phi& phi, Reference reference, double limit, int count) {
    Pairs<T> pairs;
    for (int regime = 0; regime < Pairs<T>::regimes; ++regime) {
        double worst = 0.0;
        T worst_m{}, worst_d{};
        for (int i = 0; i < count; ++i) {
            T m, d;
            pairs.draw(regime, m, d);
            const double error =
                ulps(phi.change(m, phi.anchor(m), d).difference, reference(Quad(m), Quad(d)), smallest<T>);
            if (error > worst) worst = error, worst_m = m, worst_d = d;
        }
        CHECK_CLOSE(worst, 0.0, limit);
        if (worst > limit) {
            std::fprintf(stderr, "  regime %d, m = %.17g, d = %.17g\n", regime, static_cast<double>(worst_m),
                         static_cast<double>(worst_d));
        }
    }
}

template <class T>
void check_differences() {
    check_difference<T>(igb::Linear<T>{}, [](Quad, Quad d) { return d; }, 0.0, 1'000);
    const auto reference = [](Quad a) {
        return [a](Quad m, Quad d) {
            return (m > 0) == (m + d > 0) ? (m > 0 ? d : a * d) : leaky(m + d, a) - leaky(m, a);
        };
    };
    check_difference<T>(igb::Relu<T>{}, reference(0), 0.5, 20'000);
    for (const T a : {T(0.1), T(1), T(0), T(-1), T(-0.3)}) {
        check_difference<T>(igb::LeakyRelu<T>{a}, reference(Quad(a)), 2.0, 20'000);
    }
    check_difference<T>(igb::Tanh<T>{}, tanh_difference, 6.0, 20'000);
    check_difference<T>(igb::Erf<T>{}, erf_difference, 16.0, 4'000);
}

// Odd and increasing: the difference has the sign of d, and changes sign with (m, d), to the last bit.
template <class T, class Phi>
void check_symmetry(const Phi& phi) {
    Pairs<T> pairs;
    bool odd = true, increasing = true, same_slope = true;
    for (int i = 0; i < 20'000; ++i) {
        T m, d;
        pairs.draw(i % Pairs<T>::regimes, m, d);
        const auto there = phi.change(m, phi.anchor(m), d), back = phi.change(-m, phi.anchor(-m), -d);
        odd = odd && there.difference == -back.difference;
        same_slope = same_slope && there.slope == back.slope && there.slope >= T{0};
        increasing = increasing && std::signbit(there.difference) == std::signbit(d);
    }
    CHECK(odd);
    CHECK(increasing);
    CHECK(same_slope);
}

template <class T, class Phi>
void check_limits(const Phi& phi) {
    const T infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
    const double unit = std::numeric_limits<T>::epsilon();
    for (const T m : {T(0), T(0.5), T(-3), T(100), T(-1e4)}) {
        const auto up = phi.change(m, phi.anchor(m), infinity), down = phi.change(m, phi.anchor(m), -infinity);
        CHECK_CLOSE(up.difference, 1.0 - static_cast<double>(phi.value(m)), 4 * unit);
        CHECK_CLOSE(down.difference, -1.0 - static_cast<double>(phi.value(m)), 4 * unit);
        CHECK_CLOSE(up.slope, 0.0, std::numeric_limits<T>::min());
        CHECK_CLOSE(down.slope, 0.0, std::numeric_limits<T>::min());
        CHECK(phi.change(m, phi.anchor(m), T{0}).difference == T{0});
        CHECK(std::isnan(phi.change(m, phi.anchor(m), nan).difference));
    }
    CHECK(std::isnan(phi.change(nan, phi.anchor(nan), T{1}).difference));
}

// change().slope is phi'(m + d); m + d itself is rounded when phi' is asked for, hence the tolerance.
template <class T, class Phi>
void check_slope_of_change(const Phi& phi) {
    Pairs<T> pairs;
    double worst = 0.0;
    for (int i = 0; i < 50'000; ++i) {
        T m, d;
        pairs.draw(i % Pairs<T>::regimes, m, d);
        const T y = m + d;
        const double slope = static_cast<double>(phi.slope(y));
        if (std::abs(y) > T(5) && Phi::smooth) continue;
        const double error = std::abs(static_cast<double>(phi.change(m, phi.anchor(m), d).slope) - slope);
        worst = std::max(worst, error / (slope + 1e-300) / std::numeric_limits<T>::epsilon());
    }
    CHECK_CLOSE(worst, 0.0, Phi::smooth ? 60.0 : 0.0);
}

// ---- Values, slopes, curvatures -------------------------------------------------------------------------------------

template <class T, class Phi, class Value, class Slope, class Curvature>
void check_functions(const Phi& phi, double limit, Value value, Slope slope, Curvature curvature) {
    std::mt19937_64 random(11);
    double worst[3] = {};
    for (int i = 0; i < 100'000; ++i) {
        const double size = i % 3 == 0 ? 1e-3 : (i % 3 == 1 ? 1.5 : (single<T> ? 9.0 : 20.0));
        const T x = static_cast<T>(std::uniform_real_distribution<>(-size, size)(random));
        const long double exact = x;
        const double floor = std::numeric_limits<T>::min() * 1e3;
        worst[0] = std::max(worst[0], ulps(phi.value(x), Quad(value(exact)), floor));
        worst[1] = std::max(worst[1], ulps(phi.slope(x), Quad(slope(exact)), floor));
        worst[2] = std::max(worst[2], ulps(phi.curvature(x), Quad(curvature(exact)), floor));
    }
    for (const double error : worst) CHECK_CLOSE(error, 0.0, limit);
}

template <class T>
void check_all_functions() {
    const long double two_over_sqrt_pi = 2.0L * std::numbers::inv_sqrtpi_v<long double>;
    const auto one = [](long double) { return 1.0L; };
    const auto zero = [](long double) { return 0.0L; };
    const auto sech2 = [](long double x) { return 1.0L / (std::cosh(x) * std::cosh(x)); };
    const auto bell = [=](long double x) { return two_over_sqrt_pi * std::exp(-x * x); };
    const long double a = T(0.2);
    check_functions<T>(igb::Linear<T>{}, 0.0, [](long double x) { return x; }, one, zero);
    check_functions<T>(
        igb::Relu<T>{}, 0.0, [](long double x) { return x > 0 ? x : 0.0L; },
        [](long double x) { return x > 0 ? 1.0L : 0.0L; }, zero);
    check_functions<T>(
        igb::LeakyRelu<T>{T(0.2)}, 0.5, [=](long double x) { return x > 0 ? x : a * x; },
        [=](long double x) { return x > 0 ? 1.0L : a; }, zero);
    check_functions<T>(
        igb::Tanh<T>{}, 8.0, [](long double x) { return std::tanh(x); }, sech2,
        [=](long double x) { return -2.0L * std::tanh(x) * sech2(x); });
    check_functions<T>(
        igb::Erf<T>{}, 4.0, [](long double x) { return std::erf(x); }, bell,
        [=](long double x) { return -2.0L * x * bell(x); });
    CHECK(igb::Relu<T>{}.slope(T{0}) == T{0});
}

void check_flags_and_visit() {
    static_assert(igb::Linear<double>::odd && igb::Tanh<double>::odd && igb::Erf<double>::odd);
    static_assert(!igb::Relu<double>::odd && !igb::LeakyRelu<double>::odd);
    static_assert(igb::Linear<double>::smooth && igb::Tanh<double>::smooth && igb::Erf<double>::smooth);
    static_assert(!igb::Relu<double>::smooth && !igb::LeakyRelu<double>::smooth);
    const auto value = [](ActivationKind kind) {
        return igb::visit<double>(Activation{kind, 0.25}, [](const auto& phi) { return phi.value(-2.0); });
    };
    CHECK(value(ActivationKind::linear) == -2.0);
    CHECK(value(ActivationKind::relu) == 0.0);
    CHECK(value(ActivationKind::leaky_relu) == -0.5);
    CHECK_CLOSE(value(ActivationKind::tanh), std::tanh(-2.0), 1e-15);
    CHECK_CLOSE(value(ActivationKind::erf), std::erf(-2.0), 1e-15);
}

template <class T>
void check_all() {
    check_all_functions<T>();
    check_symmetry<T>(igb::Tanh<T>{});
    check_symmetry<T>(igb::Erf<T>{});
    check_limits<T>(igb::Tanh<T>{});
    check_limits<T>(igb::Erf<T>{});
    check_slope_of_change<T>(igb::Relu<T>{});
    check_slope_of_change<T>(igb::LeakyRelu<T>{T(0.1)});
    check_slope_of_change<T>(igb::Tanh<T>{});
    check_slope_of_change<T>(igb::Erf<T>{});
#if defined(IGB_QUADMATH) || LDBL_MANT_DIG >= 113
    check_differences<T>();
#else
    std::puts("differences not checked: this compiler has no quadruple precision to check them against");
#endif
}

}  // namespace

int main() {
    check_all<float>();
    check_all<double>();
    check_flags_and_visit();
    return summary();
}
