// The elementary functions against the long double library, in units in the last place of the result, over dense and
// random arguments of their whole range; and what they do at its ends.
#include "core/elementary.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <random>
#include <vector>

#include "check.h"

namespace {

template <class T>
constexpr bool single = std::is_same_v<T, float>;

template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();

// |value - reference| in units in the last place of the reference; below the normal numbers, of the smallest of them.
template <class T>
double ulps(T value, long double reference) {
    int exponent;
    std::frexp(reference, &exponent);
    const int last = std::max(exponent, std::numeric_limits<T>::min_exponent) - std::numeric_limits<T>::digits;
    const double error = static_cast<double>(std::abs(value - reference) / std::ldexp(1.0L, last));
    return std::isnan(error) ? infinity<double> : error;
}

// Half of the arguments evenly spaced over [low, high], half random.
template <class T>
std::vector<T> arguments(double low, double high) {
    constexpr int count = 200'000;
    std::mt19937_64 random(20240229);
    std::uniform_real_distribution<double> uniform(low, high);
    std::vector<T> x(count);
    for (int i = 0; i < count; ++i) {
        const double value = i % 2 == 0 ? low + (high - low) * i / count : uniform(random);
        x[static_cast<std::size_t>(i)] = static_cast<T>(value);
    }
    return x;
}

template <class T, class F, class Reference>
double worst(const std::vector<T>& x, F f, Reference reference) {
    std::vector<T> y(x.size());
    const T* const from = x.data();
    T* const to = y.data();
    const int n = static_cast<int>(x.size());
#pragma omp simd
    for (int i = 0; i < n; ++i) to[i] = f(from[i]);
    double result = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        result = std::max(result, ulps(y[i], reference(static_cast<long double>(x[i]))));
    }
    return result;
}

#define CHECK_ULPS(limit, low, high, f, reference) \
    CHECK_CLOSE(                                   \
        worst(arguments<T>(low, high), [](T x) { return f(x); }, [](long double x) { return reference; }), 0.0, limit)

template <class T>
void check_exponentials() {
    const double bottom = single<T> ? -103.0 : -745.0, normal = single<T> ? -87.3 : -708.3;
    const double top = single<T> ? 88.7 : 709.7, square = single<T> ? 9.3 : 26.5;
    CHECK_ULPS(1.5, normal, top, igb::fexp, std::exp(x));
    CHECK_ULPS(1.5, bottom, normal, igb::fexp, std::exp(x));  // gradual underflow
    CHECK_ULPS(1.5, -1.0, 1.0, igb::fexp, std::exp(x));
    CHECK_ULPS(2.0, -1.5, 1.5, igb::fexpm1, std::expm1(x));
    CHECK_ULPS(2.0, -1e-4, 1e-4, igb::fexpm1, std::expm1(x));
    CHECK_ULPS(2.0, -50.0, top, igb::fexpm1, std::expm1(x));
    CHECK_ULPS(1.5, -square, square, igb::gaussian, std::exp(-x * x));
    CHECK(igb::fexp(infinity<T>) == infinity<T> && igb::fexp(-infinity<T>) == T{0} && igb::fexp(T{0}) == T{1});
    CHECK(igb::fexp(T{1000}) == infinity<T> && igb::fexp(T{-1000}) == T{0});
    CHECK(igb::fexpm1(infinity<T>) == infinity<T> && igb::fexpm1(-infinity<T>) == T{-1} && igb::fexpm1(T{0}) == T{0});
    CHECK(igb::gaussian(infinity<T>) == T{0} && igb::gaussian(T{0}) == T{1} && igb::gaussian(T{50}) == T{0});
    const T nan = std::numeric_limits<T>::quiet_NaN();
    CHECK(std::isnan(igb::fexp(nan)) && std::isnan(igb::fexpm1(nan)) && std::isnan(igb::gaussian(nan)));
    const T tiny = std::numeric_limits<T>::min() * 4;
    CHECK(igb::fexpm1(tiny) == tiny && igb::fexpm1(-tiny) == -tiny);
}

template <class T>
void check_logarithm() {
    CHECK_ULPS(1.5, 1e-3, 3.0, igb::flog, std::log(x));
    CHECK_ULPS(1.5, 0.9, 1.1, igb::flog, std::log(x));
    CHECK_ULPS(1.5, 0.999, 1.001, igb::flog, std::log(x));
    std::vector<T> x;  // every exponent
    std::mt19937_64 random(3);
    for (int e = std::numeric_limits<T>::min_exponent; e < std::numeric_limits<T>::max_exponent; ++e) {
        for (int i = 0; i < 50; ++i) {
            x.push_back(std::ldexp(static_cast<T>(std::uniform_real_distribution<>(0.5, 1.0)(random)), e));
        }
    }
    CHECK_CLOSE(worst(x, [](T v) { return igb::flog(v); }, [](long double v) { return std::log(v); }), 0.0, 1.5);
    CHECK(igb::flog(T{1}) == T{0});
}

template <class T>
void check_error_functions() {
    const double end = single<T> ? 9.1 : 26.4;
    CHECK_ULPS(2.0, -1e-3, 1e-3, igb::ferf, std::erf(x));
    CHECK_ULPS(2.0, -1.1, 1.1, igb::ferf, std::erf(x));
    CHECK_ULPS(2.0, 0.9, 7.0, igb::ferf, std::erf(x));
    CHECK_ULPS(2.0, -7.0, 0.5, igb::ferfc, std::erfc(x));
    CHECK_ULPS(2.0, 0.4, 3.0, igb::ferfc, std::erfc(x));
    CHECK_ULPS(2.5, 2.5, end, igb::ferfc, std::erfc(x));
    CHECK(igb::ferf(infinity<T>) == T{1} && igb::ferf(-infinity<T>) == T{-1} && igb::ferf(T{0}) == T{0});
    CHECK(igb::ferfc(infinity<T>) == T{0} && igb::ferfc(-infinity<T>) == T{2} && igb::ferfc(T{0}) == T{1});
    const T nan = std::numeric_limits<T>::quiet_NaN();
    CHECK(std::isnan(igb::ferf(nan)) && std::isnan(igb::ferfc(nan)));
}

// sin(2 pi f) for a fraction f of a turn, reduced before it meets pi.
long double sine_of_turn(long double f) {
    const long double half_turns = std::rint(2.0L * f);
    const long double value = std::sin(2.0L * std::numbers::pi_v<long double> * (f - half_turns / 2.0L));
    return std::fmod(half_turns, 2.0L) == 0.0L ? value : -value;
}

template <class T>
void check_turns() {
    using Bits = igb::BitsOf<T>;
    constexpr int bits = static_cast<int>(8 * sizeof(T));
    constexpr Bits counted = single<T> ? ~Bits{0} : ~Bits{0x3FF};  // a double angle has 54 bits
    std::mt19937_64 random(5);
    double sine = 0.0, cosine = 0.0;
    for (int i = 0; i < 200'000; ++i) {
        Bits w = static_cast<Bits>(random());
        if (i % 4 == 0) w = (w & 0xFFFFF) + (static_cast<Bits>(random() % 8) << (bits - 3));  // close to an eighth
        const long double fraction = std::ldexp(static_cast<long double>(w & counted), -bits);
        const auto angle = igb::turn_sincos(w);
        sine = std::max(sine, ulps(angle.sine, sine_of_turn(fraction)));
        cosine = std::max(cosine, ulps(angle.cosine, sine_of_turn(fraction + 0.25L)));
    }
    CHECK_CLOSE(sine, 0.0, 2.0);
    CHECK_CLOSE(cosine, 0.0, 2.0);
    CHECK(igb::turn_sincos(Bits{0}).sine == T{0} && igb::turn_sincos(Bits{0}).cosine == T{1});
    CHECK(igb::turn_sincos(Bits{1} << (bits - 2)).sine == T{1});
    CHECK(igb::turn_sincos(Bits{1} << (bits - 1)).cosine == T{-1});
}

// The compensations: value + error is the sum or the product, to twice the precision of T (as far as long double
// tells).
template <class T>
void check_carried_errors() {
    constexpr long double unit = single<T> ? 0x1p-46L : 0x1p-62L;
    std::mt19937_64 random(7);
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    long double worst_sum = 0.0, worst_product = 0.0;
    for (int i = 0; i < 100'000; ++i) {
        const T a = static_cast<T>(uniform(random)), b = static_cast<T>(uniform(random) * (i % 3 == 0 ? 1e3 : 1.0));
        const T sum = a + b, product = a * b;
        const long double a_long = a, b_long = b;
        const long double sum_left = (a_long + b_long - sum) - igb::sum_error(a, b, sum);
        const long double product_left = (a_long * b_long - product) - igb::product_error(a, b, product);
        worst_sum = std::max(worst_sum, std::abs(sum_left / (std::abs(a_long) + std::abs(b_long))));
        worst_product = std::max(worst_product, std::abs(product_left / product));
    }
    CHECK_CLOSE(worst_sum, 0.0, unit);
    CHECK_CLOSE(worst_product, 0.0, unit);
}

template <class T>
void check_all() {
    check_exponentials<T>();
    check_logarithm<T>();
    check_error_functions<T>();
    check_turns<T>();
    check_carried_errors<T>();
}

}  // namespace

int main() {
    check_all<float>();
    check_all<double>();
    return summary();
}
