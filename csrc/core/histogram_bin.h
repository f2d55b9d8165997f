// The bins of histograms that merge: a value is counted by the sixteen leading bits of its double, sign, exponent and
// four bits of the mantissa, so bins are 3 to 6 % wide at any scale and the same for every layer, network and run.
#pragma once

#include <cstdint>

#include "core/elementary.h"

namespace igb::inline IGB_ISA {

inline constexpr std::int64_t histogram_bins = 65536;

IGB_HD std::uint16_t histogram_bin(double value) {
    return static_cast<std::uint16_t>(bit_copy<std::uint64_t>(value) >> 48);
}

}  // namespace igb::inline IGB_ISA
