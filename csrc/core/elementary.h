// Elementary functions of float and double as plain code without branches or library calls, so that one definition
// vectorises for every instruction set and compiles for CUDA. Largest errors, in units in the last place of the result,
// over the whole range given (tests/cpp/test_elementary.cpp measures them):
//     fexp         1.0   every x: 0 and inf beyond the range of T, gradual underflow between
//     fexpm1       1.9   every x
//     flog         0.9   positive normal x
//     gaussian     1.2   e^(-x^2), every x; 0 below the smallest normal number
//     ferf         1.8   every x
//     ferfc        2.2   every x; 0 below the smallest normal number
//     turn_sincos  2.0   every angle, in turns
// Polynomials are weighted minimax fits (Remez, 40 digits), rounded so that the rounded set still fits; the errors
// given with them are relative to the function. a * b + c is left for the compiler to contract, so results may differ
// by rounding between machines.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/config.h"

namespace igb::inline IGB_ISA {

// ---- Bits -----------------------------------------------------------------------------------------------------------

template <class T>
struct Format;  // of the IEEE number T

template <>
struct Format<float> {
    using Bits = std::uint32_t;
    static constexpr int mantissa = 23, bias = 127;
    static constexpr Bits sign = 0x80000000u;
};

template <>
struct Format<double> {
    using Bits = std::uint64_t;
    static constexpr int mantissa = 52, bias = 1023;
    static constexpr Bits sign = 0x8000000000000000u;
};

template <class T>
using BitsOf = typename Format<T>::Bits;

template <class To, class From>
IGB_HD To bit_copy(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    __builtin_memcpy(&to, &from, sizeof(To));
    return to;
}

template <class T>
IGB_HD BitsOf<T> sign_of(T x) {  // the sign bit alone
    return bit_copy<BitsOf<T>>(x) & Format<T>::sign;
}

template <class T>
IGB_HD T flip_sign(T x, BitsOf<T> sign) {  // x or -x
    return bit_copy<T>(bit_copy<BitsOf<T>>(x) ^ sign);
}

template <class T>
IGB_HD T absolute(T x) {
    return bit_copy<T>(bit_copy<BitsOf<T>>(x) & ~Format<T>::sign);
}

// Choices by the sign bit alone, by bits: ternaries that ask about the same number again cost compilers their vectors.
template <class T>
IGB_HD T choose_by_sign(T x, T if_negative, T otherwise) {
    const BitsOf<T> yes = bit_copy<BitsOf<T>>(if_negative), no = bit_copy<BitsOf<T>>(otherwise);
    const BitsOf<T> negative = BitsOf<T>{0} - (bit_copy<BitsOf<T>>(x) >> (8 * sizeof(T) - 1));  // all ones or none
    return bit_copy<T>(no ^ ((yes ^ no) & negative));
}

template <class T>
IGB_HD T positive_part(T x) {
    return choose_by_sign(x, T{0}, x);
}

template <class T>
IGB_HD T square_root(T x) {
#if defined(__CUDA_ARCH__)
    return ::sqrt(x);
#else
    if constexpr (std::is_same_v<T, float>) {
        return __builtin_sqrtf(x);
    } else {
        return __builtin_sqrt(x);
    }
#endif
}

// c0 + c1 x + c2 x^2 + ...
template <class T>
IGB_HD T horner(T, T c0) {
    return c0;
}

template <class T, class... C>
IGB_HD T horner(T x, T c0, C... rest) {
    return c0 + x * horner<T>(x, rest...);
}

// a b - p without rounding, where p is a b rounded: by a fused multiply-add where the machine has one, else by
// splitting both factors into halves (Dekker).
template <class T>
IGB_HD T product_error(T a, T b, T p) {
#if defined(__CUDA_ARCH__)
    return ::fma(a, b, -p);
#elif defined(__FMA__) || defined(__FP_FAST_FMA) || defined(__aarch64__)
    if constexpr (std::is_same_v<T, float>) {
        return __builtin_fmaf(a, b, -p);
    } else {
        return __builtin_fma(a, b, -p);
    }
#else
    constexpr BitsOf<T> upper = ~((BitsOf<T>{1} << ((Format<T>::mantissa + 2) / 2)) - 1);
    const T a1 = bit_copy<T>(bit_copy<BitsOf<T>>(a) & upper), a2 = a - a1;
    const T b1 = bit_copy<T>(bit_copy<BitsOf<T>>(b) & upper), b2 = b - b1;
    return (((a1 * b1 - p) + a1 * b2) + a2 * b1) + a2 * b2;
#endif
}

// a + b - sum without rounding, where sum is a + b rounded (Knuth).
template <class T>
IGB_HD T sum_error(T a, T b, T sum) {
    const T b_seen = sum - a;
    return (a - (sum - b_seen)) + (b - b_seen);
}

// ---- Exponential ----------------------------------------------------------------------------------------------------

// (e^r - 1 - r) / r^2 for |r| <= 0.3473: degree 5 (float, error of expm1 3.6e-9) and 10 (double, 8e-19).
template <class T>
IGB_HD T expm1_tail(T r) {
    if constexpr (std::is_same_v<T, float>) {
        return horner<float>(r, 0.5f, 0.166666359f, 0.0416664854f, 0.00834097434f, 0.00139338232f, 0.000156560418f);
    } else {
        return horner<double>(r, 0.5, 0.16666666666666677, 0.041666666666666505, 0.0083333333333215128,
                              0.0013888888888963487, 0.000198412698864777, 2.4801587171075625e-05,
                              2.7557243803770619e-06, 2.7557403266868194e-07, 2.5109195260855197e-08,
                              2.0875327777916235e-09);
    }
}

// e^(x + x_low) = 2^n (1 + p), |p| < 0.42. `exponent` holds n + shift in its low bits, as a biased IEEE exponent, so
// that shifting it into place gives 2^(n + shift): the caller keeps n + shift within the range of its use.
template <class T>
struct ScaledExp {
    BitsOf<T> exponent;
    T p;

    IGB_HD T power() const { return bit_copy<T>(static_cast<BitsOf<T>>(exponent << Format<T>::mantissa)); }
};

template <class T>
IGB_HD ScaledExp<T> scaled_exp(T x, T x_low, int shift) {
    // Adding 1.5 * 2^mantissa rounds to an integer, left in the low bits. ln 2 in two parts: n times the first is
    // exact.
    constexpr bool single = std::is_same_v<T, float>;
    constexpr T log2_e = static_cast<T>(1.4426950408889634);
    constexpr T ln2_high = single ? static_cast<T>(0.693359375) : static_cast<T>(0.69314718036912382);
    constexpr T ln2_low = single ? static_cast<T>(-2.12194440e-4) : static_cast<T>(1.9082149292705877e-10);
    const T round = static_cast<T>(single ? 12582912.0 : 6755399441055744.0) + static_cast<T>(Format<T>::bias + shift);
    const T rounded = x * log2_e + round;
    const T n = rounded - round;
    const T r = ((x - n * ln2_high) - n * ln2_low) + x_low;
    return {bit_copy<BitsOf<T>>(rounded), r + (r * r) * expm1_tail(r)};
}

// e^x everywhere: 0 and inf beyond the range, gradual underflow between, nan for nan.
template <class T>
IGB_HD T fexp(T x) {
    constexpr bool single = std::is_same_v<T, float>;
    constexpr T lowest = static_cast<T>(single ? -104.0 : -746.0), highest = static_cast<T>(single ? 89.0 : 710.0);
    x = x < lowest ? lowest : x;
    x = x > highest ? highest : x;
    const ScaledExp<T> e = scaled_exp(x, T{0}, Format<T>::bias);
    // n + 2 bias, halved twice: two factors, since 2^n itself may lie outside the range of T.
    const BitsOf<T> both = e.exponent & static_cast<BitsOf<T>>(4 * Format<T>::bias + 3);
    const BitsOf<T> half = both >> 1;
    const T first = bit_copy<T>(static_cast<BitsOf<T>>(half << Format<T>::mantissa));
    const T second = bit_copy<T>(static_cast<BitsOf<T>>((both - half) << Format<T>::mantissa));
    return ((T{1} + e.p) * first) * second;
}

// e^x - 1, to the relative accuracy of x near zero.
template <class T>
IGB_HD T fexpm1(T x) {
    constexpr bool single = std::is_same_v<T, float>;
    constexpr T lowest = static_cast<T>(single ? -20.0 : -40.0), highest = static_cast<T>(single ? 89.0 : 710.0);
    x = x < lowest ? lowest : x;
    x = x > highest ? highest : x;
    const ScaledExp<T> e = scaled_exp(x, T{0}, -1);
    const T power = e.power();  // 2^(n - 1), so that 2^n never overflows alone
    return (power * e.p + (power - static_cast<T>(0.5))) * T{2};
}

// x^2 = high^2 + low, high^2 exact, for |x| <= 28 (double) or 16 (float): for the exponential of large squares.
template <class T>
struct SplitSquare {
    T high, low;
};

template <class T>
IGB_HD SplitSquare<T> split_square(T x) {
    constexpr T round = static_cast<T>(std::is_same_v<T, float> ? 49152.0 : 3221225472.0);  // to 2^-8, to 2^-21
    const T head = (x + round) - round;
    return {head * head, (x - head) * (x + head)};
}

// e^(-x^2), relative accuracy for every x until it falls below the smallest normal number; then 0.
template <class T>
IGB_HD T gaussian(T x) {
    constexpr T beyond = static_cast<T>(std::is_same_v<T, float> ? 9.375 : 26.63);
    x = absolute(x);
    x = x > beyond ? beyond : x;
    const SplitSquare<T> s = split_square(x);
    const ScaledExp<T> e = scaled_exp(-s.high, -s.low, 0);
    const T power = e.power();
    return power + power * e.p;
}

// ---- Logarithm ------------------------------------------------------------------------------------------------------

// ln x for positive normal x. x = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2)).
template <class T>
IGB_HD T flog(T x) {
    if constexpr (std::is_same_v<T, float>) {
        // ln(1 + f) = f - f^2/2 + f^3 P(f): P of degree 7, error 6e-9.
        const std::uint32_t u = bit_copy<std::uint32_t>(x);
        const std::int32_t e = static_cast<std::int32_t>(u - 0x3F3504F3u) >> 23;
        const float f = bit_copy<float>(u - (static_cast<std::uint32_t>(e) << 23)) - 1.0f;
        const float p = horner<float>(f, 0.333333313f, -0.250008225f, 0.200012609f, -0.166233346f, 0.142009482f,
                                      -0.131595001f, 0.127669603f, -0.076431714f);
        const float k = static_cast<float>(e);
        const float square = f * f;
        return k * 0.693359375f + (f + ((square * f) * p + (-0.5f * square + k * -2.12194440e-4f)));
    } else {
        // With s = f / (2 + f): ln(1 + f) = f - f^2/2 + s (f^2/2 + s^2 R(s^2)): R of degree 6, error 1.3e-18.
        constexpr std::uint64_t sqrt_half = 0x3FE6A09E667F3BCDu, one = 0x3FF0000000000000u;
        const std::uint64_t u = bit_copy<std::uint64_t>(x) + (one - sqrt_half);
        // The biased exponent to double by placing it in the mantissa of 2^52.
        const double k = bit_copy<double>((u >> 52) | 0x4330000000000000u) - (4503599627370496.0 + 1023.0);
        const double f = bit_copy<double>((u & 0x000FFFFFFFFFFFFFu) + sqrt_half) - 1.0;
        const double s = f / (2.0 + f);
        const double z = s * s;
        const double r =
            z * horner<double>(z, 0.66666666666667351, 0.39999999999409352, 0.28571428743686705, 0.22222198428937531,
                               0.1818357235777871, 0.1531383207559435, 0.14798259829104862);
        const double half_square = 0.5 * f * f;
        return k * 0.69314718036912382 - ((half_square - (s * (half_square + r) + k * 1.9082149292705877e-10)) - f);
    }
}

// ---- Sine and cosine of a fraction of a turn -----------------------------------------------------------------------

template <class T>
struct SineCosine {
    T sine, cosine;
};

// sin and cos of (k + q) quarter turns, |q| <= 1/2, k modulo 4. Polynomials in z = q^2: sin(pi q / 2) / q - 1 of degree
// 3 (float, error of the sine 1.0e-8) and 6 (double, 3.2e-17); (cos(pi q / 2) - 1) / z of degree 3 (4.4e-10) and 6
// (3.1e-19).
template <class T>
IGB_HD SineCosine<T> quarter_sincos(BitsOf<T> k, T q) {
    const T z = q * q;
    T s, c;
    if constexpr (std::is_same_v<T, float>) {
        s = q + q * horner<float>(z, 0.570796311f, -0.645962596f, 0.0796702132f, -0.00457447348f);
        c = 1.0f + z * horner<float>(z, -1.23370051f, 0.253668547f, -0.0208555963f, 0.000894483994f);
    } else {
        s = q + q * horner<double>(z, 0.57079632679489667, -0.64596409750625927, 0.079692626246716025,
                                   -0.0046817541435226007, 0.00016044123522776345, -3.5989388061110032e-06,
                                   5.6727960425690123e-08);
        c = 1.0 + z * horner<double>(z, -1.2337005501361697, 0.2536695079010417, -0.020863480763180973,
                                     0.00091926027263247083, -2.5202027447794394e-05, 4.7103341314916403e-07,
                                     -6.2894041921558842e-09);
    }
    constexpr int to_sign = static_cast<int>(8 * sizeof(T)) - 2;  // bit 1 of k to the sign bit
    const BitsOf<T> sine_sign = static_cast<BitsOf<T>>(k & 2u) << to_sign;
    const BitsOf<T> cosine_sign = static_cast<BitsOf<T>>((k + 1u) & 2u) << to_sign;
    // Odd quarters swap the two, by bits: 64-bit comparisons do not vectorise for every instruction set.
    const BitsOf<T> s_bits = bit_copy<BitsOf<T>>(s), c_bits = bit_copy<BitsOf<T>>(c);
    const BitsOf<T> swap = (s_bits ^ c_bits) & (BitsOf<T>{0} - (k & 1u));
    return {bit_copy<T>(s_bits ^ swap ^ sine_sign), bit_copy<T>(c_bits ^ swap ^ cosine_sign)};
}

// sin and cos of 2 pi w / 2^32. The nearest quarter turn is integer arithmetic; the rest converts exactly enough
// (relative 2^-24).
IGB_HD SineCosine<float> turn_sincos(std::uint32_t w) {
    const std::uint32_t k = (w + 0x20000000u) >> 30;
    const std::int32_t rest = static_cast<std::int32_t>(w - (k << 30));
    return quarter_sincos<float>(k, static_cast<float>(rest) * 0x1p-30f);
}

// sin and cos of 2 pi w / 2^64, of which the 54 leading bits count: 52 of them, below the quarter turn, become the
// mantissa of a number in [1, 2), which costs no conversion from integer.
IGB_HD SineCosine<double> turn_sincos(std::uint64_t w) {
    const std::uint64_t centred = w + 0x2000000000000000u;
    const std::uint64_t fraction = (centred << 2) >> 12;
    return quarter_sincos<double>(centred >> 62, bit_copy<double>(fraction | 0x3FF0000000000000u) - 1.5);
}

// ---- Error function -------------------------------------------------------------------------------------------------

// erf(x) for |x| <= 1: x + x P(x^2), P of degree 6 (float, error 1.8e-9) and 11 (double, 1.6e-17).
template <class T>
IGB_HD T erf_near(T x) {
    const T z = x * x;
    if constexpr (std::is_same_v<T, float>) {
        return x + x * horner<float>(z, 0.128379166f, -0.37612626f, 0.112835787f, -0.0268533472f, 0.00518716453f,
                                     -0.000799788511f, 7.80705086e-05f);
    } else {
        return x + x * horner<double>(z, 0.12837916709551256, -0.37612638903183343, 0.11283791670936945,
                                      -0.026866170641957149, 0.0052239775967096152, -0.00085483254832400277,
                                      0.00012055280428611963, -1.4924464035381976e-05, 1.6444127087629734e-06,
                                      -1.6183783378765003e-07, 1.36156819328055e-08, -7.6056982988347875e-10);
    }
}

// erfcx(x) = e^(x^2) erfc(x) = s P(t), s = 1/(x + centre), t = a - b s in [-1, 1]: one polynomial on the whole
// half-line x >= -0.6, degree 11 for x <= 9.4 (float, error 9.2e-9) and 24 for x <= 26.7 (double, 2.5e-17).
template <class T>
struct Erfcx {
    static constexpr bool single = std::is_same_v<T, float>;
    static constexpr T centre = static_cast<T>(single ? 3.0 : 4.0);
    static constexpr T a = static_cast<T>(single ? 1.5 : 1.25), b = static_cast<T>(single ? 6.0 : 7.625);
    static constexpr T last = static_cast<T>(single ? 9.375 : 26.63);  // where e^(-x^2) has become 0

    // rule(c0, c1, ...): Horner's rule or another, on the coefficients of P.
    template <class Rule>
    static IGB_HD auto polynomial(Rule rule) {
        if constexpr (single) {
            return rule(1.7103343f, -1.77403867f, 1.26548016f, -0.606401026f, 0.167712331f, -0.00615904992f,
                        -0.0119427023f, 0.00202377164f, 0.000967129483f, -0.000222913688f, -7.99318441e-05f,
                        1.9289133e-05f);
        } else {
            return rule(
                1.4952266524055513, -1.7472442564705974, 1.6911643957618989, -1.360189626516555, 0.90263574657314893,
                -0.48404898133434998, 0.20015668501295436, -0.056546332676110984, 0.0060125572073008084,
                0.0030170034966588185, -0.0014461160274225706, 3.9459441749474527e-05, 0.00014837240042049363,
                -2.7932752835666798e-05, -1.4167851646519974e-05, 4.6851459420763738e-06, 1.5415211906761824e-06,
                -6.5925391866717694e-07, -2.0644528397044738e-07, 8.5909586422419592e-08, 3.1116350800701606e-08,
                -9.6344538160150285e-09, -4.1234649261896136e-09, 6.8368476781411455e-10, 3.1402036505066863e-10);
        }
    }
};

template <class T>
struct HornerRule {
    T t;

    template <class... C>
    IGB_HD T operator()(C... c) const {
        return horner<T>(t, c...);
    }
};

// erfcx(x) for -0.6 <= x <= last, to 8 ulp: a relative error of s comes back up to four times larger.
template <class T>
IGB_HD T erfcx_plain(T x) {
    using E = Erfcx<T>;
    const T s = T{1} / (x + E::centre);
    return s * E::polynomial(HornerRule<T>{E::a - E::b * s});
}

// Horner's rule at t + t_low, the last `carried` steps of which keep what rounding loses.
template <class T>
struct CarryingHornerRule {
    struct Sum {
        T sum, lost;
    };

    T t, t_low;

    template <class... C>
    IGB_HD Sum operator()(C... c) const {
        return step<7>(c...);
    }

private:
    template <int carried, class... C>
    IGB_HD Sum step(T c0, C... rest) const {
        if constexpr (carried == 0) {
            return {horner<T>(t, c0, rest...), T{0}};
        } else {
            const Sum tail = step<carried - 1>(rest...);
            const T product = tail.sum * t;
            const T sum = product + c0;
            return {sum, tail.lost * t +
                             (product_error(tail.sum, t, product) + tail.sum * t_low + sum_error(product, c0, sum))};
        }
    }
};

// s and t at x. An error of s would come back up to eight times larger in derivatives, so it is measured and mended:
// 1/(x + centre) = s (1 + s_error) for any s near it.
template <class T>
struct ErfcxPoint {
    T s, s_error, t, t_low;

    IGB_HD ErfcxPoint(T x, T denominator, T reciprocal) : s(reciprocal) {
        using E = Erfcx<T>;
        const T one = s * denominator;
        const T denominator_low = sum_error(x, E::centre, denominator);
        s_error = ((T{1} - one) - product_error(s, denominator, one)) - s * denominator_low;
        const T bs = E::b * s;
        t = E::a - bs;
        t_low = sum_error(E::a, -bs, t) - product_error(E::b, s, bs) - bs * s_error;
    }
};

// erfc(x) for -0.6 <= x, with the errors of s, of t and of the leading terms of P carried along.
template <class T>
IGB_HD T erfc_far(T x) {
    using E = Erfcx<T>;
    x = x > E::last ? E::last : x;
    const T denominator = x + E::centre;
    const ErfcxPoint<T> at(x, denominator, T{1} / denominator);
    const auto p = E::polynomial(CarryingHornerRule<T>{at.t, at.t_low});
    const T erfcx = at.s * p.sum;
    const T erfcx_low = product_error(at.s, p.sum, erfcx) + (at.s * p.lost + erfcx * at.s_error);
    const SplitSquare<T> square = split_square(x);
    const ScaledExp<T> e = scaled_exp(-square.high, -square.low, 0);
    return (erfcx + (erfcx * e.p + erfcx_low * (T{1} + e.p))) * e.power();
}

// 1 - erf(x), to relative accuracy also where it is tiny; 0 below the smallest normal number.
template <class T>
IGB_HD T ferfc(T x) {
    const T tail = erfc_far(absolute(x));
    const T far = x < T{0} ? T{2} - tail : tail;
    return absolute(x) < static_cast<T>(0.46875) ? T{1} - erf_near(x) : far;
}

template <class T>
IGB_HD T ferf(T x) {
    T size = absolute(x);
    size = size > Erfcx<T>::last ? Erfcx<T>::last : size;
    const T far = flip_sign(T{1} - gaussian(size) * erfcx_plain(size), sign_of(x));
    return size < T{1} ? erf_near(x) : far;
}

}  // namespace igb::inline IGB_ISA
