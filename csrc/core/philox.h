// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
// 1, 2, 3" (SC 2011): four 32-bit words as a function of a 128-bit counter and a 64-bit key, ten rounds of
//     (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)).
#pragma once

#include <cstdint>

#include "core/config.h"

namespace igb::inline IGB_ISA {

struct PhiloxKey {
    std::uint32_t k0, k1;
};

template <class Word>
struct PhiloxState {
    Word x0, x1, x2, x3;
};

using PhiloxWords = PhiloxState<std::uint32_t>;

// The rounds, for one counter (Word = uint32_t) or for a vector of 64-bit lanes, of which the lower halves count and
// the upper ones may hold anything: that saves every shuffle. product(m, x) is the 64-bit product of m and (the lower
// half of) x.
template <class Word, class Product>
IGB_HD PhiloxState<Word> philox_rounds(PhiloxState<Word> c, PhiloxKey key, Product product) {
    constexpr std::uint32_t m0 = 0xD2511F53u, m1 = 0xCD9E8D57u;  // multipliers
    constexpr std::uint32_t w0 = 0x9E3779B9u, w1 = 0xBB67AE85u;  // Weyl increments of the key
    for (int round = 0; round < 10; ++round) {
        const auto p0 = product(m0, c.x0);
        const auto p1 = product(m1, c.x2);
        c = {static_cast<Word>(p1 >> 32) ^ c.x1 ^ key.k0, static_cast<Word>(p1),
             static_cast<Word>(p0 >> 32) ^ c.x3 ^ key.k1, static_cast<Word>(p0)};
        key.k0 += w0;
        key.k1 += w1;
    }
    return c;
}

struct PhiloxProduct {
    IGB_HD std::uint64_t operator()(std::uint32_t m, std::uint32_t x) const { return std::uint64_t{m} * x; }
};

IGB_HD PhiloxWords philox4x32(PhiloxWords counter, PhiloxKey key) {
    return philox_rounds(counter, key, PhiloxProduct{});
}

}  // namespace igb::inline IGB_ISA
