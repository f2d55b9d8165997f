// A number of eight leading bits, as tensor cores take it: the upper half of a float.
#pragma once

#include <cstdint>

#include "core/config.h"
#include "core/elementary.h"

namespace igb {

struct BFloat16 {
    std::uint16_t bits;
};

}  // namespace igb

namespace igb::inline IGB_ISA {

// The nearest one to a finite x, of two that are as near the one that ends in a zero bit.
IGB_HD BFloat16 to_bfloat16(float x) {
    const std::uint32_t bits = bit_copy<std::uint32_t>(x), odd = (bits >> 16) & 1u;
    return {static_cast<std::uint16_t>((bits + 0x7FFFu + odd) >> 16)};
}

}  // namespace igb::inline IGB_ISA
