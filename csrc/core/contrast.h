// Lengths and angles of vectors y_a = y_0 + d_a known by the products of the origin y_0 and the differences d_a, all
// over the same count: what an input has of its own keeps its digits however close the inputs are.
#pragma once

#include <cmath>
#include <limits>

#include "core/config.h"

namespace igb::inline IGB_ISA {

// How far, relative to its terms, a sum of numbers that were computed in T may be from zero and yet be but rounding.
template <class T>
inline constexpr double rounding_of_length = 64.0 * static_cast<double>(std::numeric_limits<T>::epsilon());

// |y_a|^2 = |y_0|^2 + 2 y_0 . d_a + |d_a|^2, and 0 where that is but rounding: an input that has gone to zero.
template <class T>
IGB_HD double squared_length(double origin, double cross, double difference) {
    const double length2 = origin + 2.0 * cross + difference;
    const double noise = rounding_of_length<T> * (origin + difference);
    return length2 <= noise ? 0.0 : length2;
}

struct InputLength {
    double cross, square;  // y_0 . d_a, |d_a|^2
    double norm, inverse;  // |y_a|^2, 1 / |y_a|, or 0 where the norm is
};

template <class T>
IGB_HD InputLength input_length(double origin, double cross, double square) {
    const double norm = squared_length<T>(origin, cross, square);
    return {cross, square, norm, norm == 0.0 ? 0.0 : 1.0 / std::sqrt(norm)};
}

// y_a . y_b / |y_a|, with `product` = d_a . d_b.
IGB_HD double along(double origin, const InputLength& a, const InputLength& b, double product) {
    return (origin + a.cross + b.cross + product) * a.inverse;
}

// 1 - c from |y_a - y_b|^2 less the difference of the lengths, squared: nothing cancels next to c = 1.
IGB_HD double contrast(const InputLength& a, const InputLength& b, double product) {
    const double apart2 = a.square + b.square - 2.0 * product;
    const double longer2 = 2.0 * (a.cross - b.cross) + (a.square - b.square);
    const double longer = longer2 * a.inverse * b.inverse / (a.inverse + b.inverse);
    const double result = 0.5 * (apart2 - longer * longer) * a.inverse * b.inverse;
    return result < 0.0 ? 0.0 : result;
}

}  // namespace igb::inline IGB_ISA
