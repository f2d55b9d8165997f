// The standard normal number of (seed, network, layer, stream, row, column): Philox4x32-10 words turned by Box and
// Muller's r = sqrt(-2 ln u), (r cos, r sin)(2 pi v). Key: the seed. Counter: (c0, row, layer | stream << 24, network).
// One counter makes four float or two double normals, dealt to columns 16 apart, so that sixteen neighbouring counters
// fill whole vectors without a transposition:
//     float:  column = 64 b + 16 k + j, c0 = 16 b + j; k = 0, 1 from words (x0, x1), k = 2, 3 from (x2, x3)
//     double: column = 32 b + 16 k + j, c0 = 16 b + j; k = 0, 1 from words (x0 x1, x2 x3)        with j = 0..15.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/config.h"
#include "core/elementary.h"
#include "core/philox.h"
#include "core/stream.h"

namespace igb::inline IGB_ISA {

template <class T>
struct NormalLayout {
    static constexpr std::uint64_t lanes = 16;                                    // j
    static constexpr std::uint64_t normals = std::is_same_v<T, float> ? 4 : 2;    // k, per counter
    static constexpr std::uint64_t block = lanes * normals;                       // columns of one b
    static constexpr std::uint64_t columns = (std::uint64_t{1} << 32) * normals;  // of one row
};

template <class T>
struct NormalPair {
    T first, second;
};

// u = (x + 1/2) 2^-32, in (0, 1]: the smallest gives 6.8 standard deviations.
IGB_HD NormalPair<float> box_muller(std::uint32_t x, std::uint32_t turn) {
    const float u = static_cast<float>(x) * 0x1p-32f + 0x1p-33f;
    const float r = square_root(-2.0f * flog(u));
    const SineCosine<float> angle = turn_sincos(turn);
    return {r * angle.cosine, r * angle.sine};
}

// u = (m + 1/2) 2^-52 with m the leading 52 bits of x, in (0, 1): the smallest gives 8.6 standard deviations.
IGB_HD NormalPair<double> box_muller(std::uint64_t x, std::uint64_t turn) {
    const double u = bit_copy<double>((x >> 12) | 0x3FF0000000000000u) - (1.0 - 0x1p-53);
    const double r = square_root(-2.0 * flog(u));
    const SineCosine<double> angle = turn_sincos(turn);
    return {r * angle.cosine, r * angle.sine};
}

IGB_HD PhiloxKey normal_key(const StreamId& id) {
    return {static_cast<std::uint32_t>(id.seed), static_cast<std::uint32_t>(id.seed >> 32)};
}

IGB_HD PhiloxWords normal_counter(const StreamId& id, std::uint32_t row, std::uint32_t c0) {
    return {c0, row, id.layer | (id.stream << 24), id.network};
}

IGB_HD PhiloxWords normal_words(const StreamId& id, std::uint32_t row, std::uint32_t c0) {
    return philox4x32(normal_counter(id, row, c0), normal_key(id));
}

IGB_HD std::uint64_t joined(std::uint32_t high, std::uint32_t low) { return (std::uint64_t{high} << 32) | low; }

// One number by itself: the definition, for tests and for whoever needs few.
template <class T>
IGB_HD T normal_at(const StreamId& id, std::uint32_t row, std::uint64_t column) {
    using Layout = NormalLayout<T>;
    const std::uint64_t b = column / Layout::block, k = column % Layout::block / Layout::lanes;
    const PhiloxWords w = normal_words(id, row, static_cast<std::uint32_t>(Layout::lanes * b + column % Layout::lanes));
    NormalPair<T> pair;
    if constexpr (std::is_same_v<T, float>) {
        pair = k < 2 ? box_muller(w.x0, w.x1) : box_muller(w.x2, w.x3);
    } else {
        pair = box_muller(joined(w.x0, w.x1), joined(w.x2, w.x3));
    }
    return k % 2 == 0 ? pair.first : pair.second;
}

}  // namespace igb::inline IGB_ISA
