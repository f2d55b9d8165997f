// What the random numbers of one array depend on, besides row and column (see normal.h): plain data that crosses the
// boundary between instruction sets and between host and device.
#pragma once

#include <cstdint>

namespace igb {

// What an array is for, so that no two arrays of one layer share numbers.
enum class Stream : std::uint32_t { weights = 0, biases = 1, gram = 2, inputs = 3, fresh = 4, labels = 5 };

// The law of one weight; gaussian, uniform and rademacher weights are independent, of one variance. orthogonal: uniform
// (Haar) among all matrices with orthonormal rows or columns, scaled to the same mean square.
enum class WeightLaw : int { gaussian, uniform, rademacher, orthogonal };

struct StreamId {
    std::uint64_t seed;
    std::uint32_t network;
    std::uint32_t layer;   // below 2^24
    std::uint32_t stream;  // one of Stream
};

}  // namespace igb
