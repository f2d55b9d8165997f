// The weight of (seed, network, layer, stream, row, column) for each law of independent weights, of mean 0 and variance
// 1, from the same Philox words as the normals of normal.h:
//     gaussian:   the normal number itself.
//     uniform:    one number a word (float) or a pair of words (double), dealt to columns as normals are: sqrt(3) times
//                 odd multiples of 2^-24 (float) or 2^-52 (double) between -1 and 1, which are never reached.
//     rademacher: -1 or 1, one bit each, the same for float and double: column = 2048 b + 512 w + 16 k + j from bit
//                 31 - k of word w of counter c0 = 16 b + j; sixteen neighbouring columns are one shift of 16 words.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/config.h"
#include "core/elementary.h"
#include "core/normal.h"
#include "core/philox.h"
#include "core/stream.h"

namespace igb::inline IGB_ISA {

// The upper 24 bits of x, as a signed number s, make (s + 1/2) 2^-23: x and ~x make opposite numbers.
IGB_HD float uniform_weight(std::uint32_t x) {
    const std::int32_t odd = (static_cast<std::int32_t>(x) >> 7) | 1;
    return static_cast<float>(odd) * (1.7320508075688772f * 0x1p-24f);
}

// The upper 52 bits of x as the mantissa of a number in [1, 2): few processors turn 64-bit integers into doubles.
IGB_HD double uniform_weight(std::uint64_t x) {
    const double centred = bit_copy<double>((x >> 12) | 0x3FF0000000000000u) - 1.5 + 0x1p-53;
    return centred * (2.0 * 1.7320508075688772);
}

// -1 if bit 31 - k of the word is set, else 1.
template <class T>
IGB_HD T rademacher_weight(std::uint32_t word, std::uint32_t k) {
    const std::uint32_t sign = (word << k) & 0x80000000u;
    if constexpr (std::is_same_v<T, float>) {
        return bit_copy<float>(sign | 0x3F800000u);
    } else {
        return bit_copy<double>((std::uint64_t{sign} << 32) | 0x3FF0000000000000u);
    }
}

struct RademacherLayout {
    static constexpr std::uint64_t lanes = 16;             // j
    static constexpr std::uint64_t bits = 32;              // k
    static constexpr std::uint64_t units = 4 * bits;       // sixteen columns each
    static constexpr std::uint64_t block = units * lanes;  // columns of one b
};

template <class T>
IGB_HD T uniform_at(const StreamId& id, std::uint32_t row, std::uint64_t column) {
    using Layout = NormalLayout<T>;
    const std::uint64_t b = column / Layout::block, k = column % Layout::block / Layout::lanes;
    const PhiloxWords w = normal_words(id, row, static_cast<std::uint32_t>(Layout::lanes * b + column % Layout::lanes));
    if constexpr (std::is_same_v<T, float>) {
        return uniform_weight(k == 0 ? w.x0 : k == 1 ? w.x1 : k == 2 ? w.x2 : w.x3);
    } else {
        return uniform_weight(k == 0 ? joined(w.x0, w.x1) : joined(w.x2, w.x3));
    }
}

template <class T>
IGB_HD T rademacher_at(const StreamId& id, std::uint32_t row, std::uint64_t column) {
    using Layout = RademacherLayout;
    const std::uint64_t b = column / Layout::block, unit = column % Layout::block / Layout::lanes;
    const PhiloxWords w = normal_words(id, row, static_cast<std::uint32_t>(Layout::lanes * b + column % Layout::lanes));
    const std::uint64_t word = unit / Layout::bits;
    return rademacher_weight<T>(word == 0   ? w.x0
                                : word == 1 ? w.x1
                                : word == 2 ? w.x2
                                            : w.x3,
                                static_cast<std::uint32_t>(unit % Layout::bits));
}

// One weight by itself: the definition. Orthogonal weights are not independent: what they are made of (cpu/haar.h) are
// the normals.
template <class T>
IGB_HD T weight_at(WeightLaw law, const StreamId& id, std::uint32_t row, std::uint64_t column) {
    if (law == WeightLaw::uniform) return uniform_at<T>(id, row, column);
    if (law == WeightLaw::rademacher) return rademacher_at<T>(id, row, column);
    return normal_at<T>(id, row, column);
}

}  // namespace igb::inline IGB_ISA
