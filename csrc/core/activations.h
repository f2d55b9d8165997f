// The activations phi, each with its slope phi', curvature phi'' and exact difference phi(m + d) - phi(m).
// The difference is right relative to itself, to 5 ulp (tanh), 14 ulp (erf) or 2 ulp (the others), however small d and
// however saturated m (tests/cpp/test_activations.cpp measures it down to 1e-30 in float and 1e-291 in double, where it
// turns absolute): a network deep in the ordered phase keeps its tiny spread sigma_y2 around large centres m.
// The slope that comes with it is phi'(m + d).
// anchor(m) is what change() needs of m, computed once per node. All is branch-free: a loop over d vectorises.
#pragma once

#include "core/activation_kind.h"
#include "core/config.h"
#include "core/elementary.h"

namespace igb::inline IGB_ISA {

template <class T>
struct Change {
    T difference;  // phi(m + d) - phi(m)
    T slope;       // phi'(m + d)
};

// For odd phi, saturated to the last bit of T beyond `far`: (|m|, d of the sign that leads away from zero), with m held
// at far and d shortened by as much (without loss: what leads back from far is long); 0 if it never comes
// back.
template <class T>
struct FromFar {
    T m, outward;
};

template <class T>
IGB_HD FromFar<T> from_far(T m, T d, T far) {
    const T size = absolute(m), outward = flip_sign(d, sign_of(m));
    const T held = size > far ? far : size;
    const T shortened = outward + (size - held), away = positive_part(outward);
    return {held, shortened > away ? away : shortened};
}

template <class T>
struct Linear {
    static constexpr bool smooth = true, odd = true;

    IGB_HD T value(T x) const { return x; }
    IGB_HD T slope(T) const { return T{1}; }
    IGB_HD T curvature(T) const { return T{0}; }
    IGB_HD T anchor(T) const { return T{0}; }
    IGB_HD Change<T> change(T, T, T d) const { return {d, T{1}}; }
};

template <class T>
struct Relu {
    static constexpr bool smooth = false, odd = false;

    IGB_HD T value(T x) const { return T{0} > x ? T{0} : x; }  // nan stays nan
    IGB_HD T slope(T x) const { return x > T{0} ? T{1} : T{0}; }
    IGB_HD T curvature(T) const { return T{0}; }
    IGB_HD T anchor(T) const { return T{0}; }

    IGB_HD Change<T> change(T m, T, T d) const {
        const T y = m + d;
        const T from_above = -m > d ? -m : d;
        const T from_below = T{0} > y ? T{0} : y;
        return {m > T{0} ? from_above : from_below, slope(y)};
    }
};

template <class T>
struct LeakyRelu {
    static constexpr bool smooth = false, odd = false;

    T a;  // the slope below zero

    IGB_HD T value(T x) const { return x > T{0} ? x : a * x; }
    IGB_HD T slope(T x) const { return x > T{0} ? T{1} : a; }
    IGB_HD T curvature(T) const { return T{0}; }
    IGB_HD T anchor(T) const { return T{0}; }

    // On one side of zero: d or a d. Across it: a (m + d) - m, or (m + d) - a m, which cancels when a < 0 (a = -1 is
    // |x|): with y + y_low = m + d and the rounding of the product carried along, what remains is right.
    IGB_HD Change<T> change(T m, T, T d) const {
        const T y = m + d;
        const T y_low = sum_error(m, d, y);
        const T ay = a * y, am = a * m;
        const T down = (ay - m) + (product_error(a, y, ay) + a * y_low);
        const T up = (y - am) + (y_low - product_error(a, m, am));
        const T from_above = y > T{0} ? d : down;
        const T from_below = y > T{0} ? up : a * d;
        return {m > T{0} ? from_above : from_below, slope(y)};
    }
};

template <class T>
struct Tanh {
    static constexpr bool smooth = true, odd = true;
    static constexpr bool single = std::is_same_v<T, float>;

    // With v = e^(-2|x|): tanh|x| = (1 - v) / (1 + v), and 1 - v is exact for small x.
    IGB_HD T value(T x) const {
        const Decay v = decay(absolute(x), 0);
        return flip_sign(v.rest / (T{1} + v.scaled), sign_of(x));
    }

    IGB_HD T slope(T x) const {
        const Decay v = decay(absolute(x), 0);
        const T r = T{1} / (T{1} + v.scaled);
        return T{4} * (v.scaled * r) * r;
    }

    IGB_HD T curvature(T x) const {
        const Decay v = decay(absolute(x), 0);
        const T r = T{1} / (T{1} + v.scaled);
        return flip_sign(T{-8} * (v.scaled * r) * (r * r) * v.rest, sign_of(x));
    }

    // S e^(-2|m|), |m| held at `far`; S = 2^shift, see below.
    IGB_HD T anchor(T m) const {
        const T size = absolute(m);
        return decay(size > far ? far : size, shift).scaled;
    }

    // Let E = e^(-2|m|), v = e^(-2|d|). Both saturated or not, near or far, away from zero (d of the sign of m) and
    // towards it and beyond,
    //     |tanh(m + d) - tanh m| = 2 E (1 - v) / ((1 + E) (1 + E v)),   1 - tanh^2(m + d) = 4 E v / (1 + E v)^2
    //     |tanh(m + d) - tanh m| = 2 E (1 - v) / ((1 + E) (v + E)),     1 - tanh^2(m + d) = 4 E v / (v + E)^2
    // and the sign is that of d. Nothing cancels and d enters without being added to m. E and v are held times S =
    // 2^shift, so that v / E keeps its meaning where v alone would underflow.
    IGB_HD Change<T> change(T m, T anchor, T d) const {
        const T outward = from_far(m, d, far).outward;
        const Decay v = decay(absolute(outward), shift);
        const T e = anchor * inverse_scale;
        const T denominator = choose_by_sign(outward, v.scaled + anchor, scale + e * v.scaled);
        const T one_e = T{1} + e;
        const T inverse = T{1} / (denominator * one_e);
        const T r = one_e * inverse;
        const T size = (T{2} * v.rest) * (anchor * inverse);
        return {flip_sign(size, sign_of(d)), (T{4} * (anchor * r)) * (v.scaled * r)};
    }

private:
    static constexpr int shift = single ? 60 : 500;
    static constexpr T scale = static_cast<T>(single ? 0x1p60 : 0x1p500);
    static constexpr T inverse_scale = static_cast<T>(single ? 0x1p-60 : 0x1p-500);
    static constexpr T far = static_cast<T>(single ? 43.5 : 354.0);  // e^(-2 far) is just above the smallest normal

    struct Decay {
        T scaled;  // 2^shift v, v = e^(-2 x); 0 when below the smallest normal number
        T rest;    // 1 - v
    };

    static IGB_HD Decay decay(T x, int by) {
        constexpr T ln2 = static_cast<T>(0.69314718055994531);
        const T lowest = -ln2 * static_cast<T>(Format<T>::bias + by);
        T z = T{-2} * x;
        z = z < lowest ? lowest : z;
        const ScaledExp<T> e = scaled_exp(z, T{0}, by);
        const T scaled_power = e.power();
        const T power = by == 0 ? scaled_power : scaled_power * inverse_scale;
        return {scaled_power + scaled_power * e.p, (T{1} - power) - power * e.p};
    }
};

template <class T>
struct Erf {
    static constexpr bool smooth = true, odd = true;
    static constexpr bool single = std::is_same_v<T, float>;

    IGB_HD T value(T x) const { return ferf(x); }
    IGB_HD T slope(T x) const { return two_over_sqrt_pi * gaussian(x); }
    IGB_HD T curvature(T x) const { return T{-2} * x * slope(x); }

    // e^(-m^2), |m| held at `far`.
    IGB_HD T anchor(T m) const {
        const T size = absolute(m);
        return gaussian(size > far ? far : size);
    }

    // Let X(x) = e^(x^2) erfc(x) = s P(t) (elementary.h), m >= 0 by oddness, y = m + d, w = m^2 - y^2 = -d (2 m + d):
    //     erf y - erf m = e^(-m^2) [X(m) - X(y) - (e^w - 1) X(y)],   y >= -0.475,
    //     X(m) - X(y) = d s_m s_y (P(t_y) - b s_m P[t_m, t_y])
    // with the divided difference P[,] by Horner's rule: the terms have one sign and each is exact for small d.
    // Below, erfc m + erfc|y| - 2.
    IGB_HD Change<T> change(T m, T anchor, T d) const {
        using E = Erfcx<T>;
        const FromFar<T> start = from_far(m, d, far);
        const T a = start.m;
        T outward = start.outward;
        outward = outward > E::last - a ? E::last - a : outward;
        outward = outward < T{-3} * far ? T{-3} * far : outward;
        const T y = a + outward;
        const Growth w = growth(a, outward);

        const bool across = y < static_cast<T>(-0.475);
        T x = across ? -y : y;
        x = x > E::last ? E::last : x;
        const T a_c = a + E::centre, x_c = x + E::centre;
        const T inverse = T{1} / (a_c * x_c);
        const ErfcxPoint<T> at_a(a, a_c, x_c * inverse), at_x(x, x_c, a_c * inverse);
        const T s_a = at_a.s + at_a.s * at_a.s_error, s_x = at_x.s + at_x.s * at_x.s_error;
        const auto p = E::polynomial(DividedDifferenceRule{at_a.t, at_x.t});
        const T p_x = p.value + p.slope * (at_x.t - at_a.t);
        const T erfcx_x = s_x * p_x;
        const T same_side = (outward * s_a) * s_x * (p_x - (E::b * s_a) * p.slope) - w.less_one * erfcx_x;
        const T both_tails = anchor * (s_a * p.value + w.factor * erfcx_x);
        const T size = across ? T{2} - both_tails : absolute(anchor * same_side);
        return {flip_sign(size, sign_of(d)), two_over_sqrt_pi * anchor * w.factor};
    }

private:
    static constexpr T two_over_sqrt_pi = static_cast<T>(1.1283791670955126);
    static constexpr T far = static_cast<T>(single ? 9.25 : 26.5);  // e^(-far^2) is just above the smallest normal
    static constexpr T vanishing = static_cast<T>(single ? 88.0 : 709.0);  // e^-vanishing is held as 0

    // e^w and e^w - 1 for w = -d (2 a + d), with the roundings of sum and product carried along.
    struct Growth {
        T factor, less_one;
    };

    static IGB_HD Growth growth(T a, T d) {
        const T sum = T{2} * a + d;
        const T product = d * sum;
        const T product_low = product_error(d, sum, product) + d * sum_error(T{2} * a, d, sum);
        const bool vanishes = product > vanishing;
        const ScaledExp<T> e = scaled_exp(vanishes ? -vanishing : -product, vanishes ? T{0} : -product_low, 0);
        const T power = e.power();
        return {power + power * e.p, (power - T{1}) + power * e.p};
    }

    // P(t_a) and P[t_a, t_x] = (P(t_x) - P(t_a)) / (t_x - t_a) in one pass.
    struct DividedDifferenceRule {
        struct Result {
            T value, slope;
        };

        T t_a, t_x;

        IGB_HD Result operator()(T c0) const { return {c0, T{0}}; }

        template <class... C>
        IGB_HD Result operator()(T c0, C... rest) const {
            const Result tail = (*this)(rest...);
            return {c0 + t_a * tail.value, tail.value + t_x * tail.slope};
        }
    };
};

// f(phi) with the functor that the activation names.
template <class T, class F>
inline auto visit(const Activation& activation, F&& f) {
    switch (activation.kind) {
        case ActivationKind::linear: return f(Linear<T>{});
        case ActivationKind::relu: return f(Relu<T>{});
        case ActivationKind::leaky_relu: return f(LeakyRelu<T>{static_cast<T>(activation.parameter)});
        case ActivationKind::tanh: return f(Tanh<T>{});
        case ActivationKind::erf: return f(Erf<T>{});
    }
    __builtin_unreachable();  // Activation is checked where it is made
}

}  // namespace igb::inline IGB_ISA
