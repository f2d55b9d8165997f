// Philox4x32-10 against the known-answer vectors published with Random123 (kat_vectors, "philox4x32 10").
#include "core/philox.h"

#include <bit>
#include <cstdint>

#include "check.h"

namespace {

using igb::philox4x32;
using igb::PhiloxKey;
using igb::PhiloxWords;

bool equal(const PhiloxWords& a, const PhiloxWords& b) {
    return a.x0 == b.x0 && a.x1 == b.x1 && a.x2 == b.x2 && a.x3 == b.x3;
}

void check_known_answers() {
    constexpr std::uint32_t ones = 0xFFFFFFFFu;
    CHECK(equal(philox4x32({0, 0, 0, 0}, {0, 0}), {0x6627E8D5u, 0xE169C58Du, 0xBC57AC4Cu, 0x9B00DBD8u}));
    CHECK(equal(philox4x32({ones, ones, ones, ones}, {ones, ones}),
                {0x408F276Du, 0x41C83B0Eu, 0xA20BC7C6u, 0x6D5451FDu}));
    CHECK(equal(philox4x32({0x243F6A88u, 0x85A308D3u, 0x13198A2Eu, 0x03707344u}, {0xA4093822u, 0x299F31D0u}),
                {0xD16CFE09u, 0x94FDCCEBu, 0x5001E420u, 0x24126EA1u}));
}

// Every bit of counter and key changes about half of the 128 bits that come out: 64 +- 5.7 each, +- 0.5 on average.
void check_avalanche() {
    const auto distance = [](const PhiloxWords& a, const PhiloxWords& b) {
        return std::popcount(a.x0 ^ b.x0) + std::popcount(a.x1 ^ b.x1) + std::popcount(a.x2 ^ b.x2) +
               std::popcount(a.x3 ^ b.x3);
    };
    const PhiloxWords counter{1, 2, 3, 4}, origin = philox4x32(counter, {5, 6});
    int sum = 0;
    for (int bit = 0; bit < 192; ++bit) {
        std::uint32_t word[6] = {counter.x0, counter.x1, counter.x2, counter.x3, 5, 6};
        word[bit / 32] ^= std::uint32_t{1} << (bit % 32);
        const int changed = distance(origin, philox4x32({word[0], word[1], word[2], word[3]}, {word[4], word[5]}));
        CHECK(changed > 64 - 34 && changed < 64 + 34);  // 6 standard deviations
        sum += changed;
    }
    CHECK_CLOSE(sum / 192.0, 64.0, 5 * 5.657 / 13.86);
}

}  // namespace

int main() {
    check_known_answers();
    check_avalanche();
    return summary();
}
