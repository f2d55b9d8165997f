// The launch shape of kernels that make the rows of a batch of matrices, with x along the rows: neighbouring threads
// write neighbouring numbers, and no thread divides.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/launch.h"

namespace igb::cuda {

struct RowGrid {
    Grid blocks, threads;
};

// `length`: of a row, in what a thread takes at once. A block has 256 threads, as many of them along a short row as it
// needs. Thread x makes place x of rows y, y + step, ... of matrices z, z + step, ...; where the rows would make more
// than some 8192 blocks, several times what a GPU holds at once, a thread takes several and keeps what it knows of its
// place.
inline RowGrid row_grid(std::int64_t length, std::int64_t rows, std::int64_t matrices) {
    constexpr std::int64_t threads = 256, most_blocks = 8192, most_in_z = 65535;
    const auto parts = [](std::int64_t whole, std::int64_t part) { return (whole + part - 1) / part; };
    std::int64_t x = 16;
    while (x < threads && x < length) x *= 2;
    const std::int64_t y = threads / x, along = parts(length, x), z = std::min(matrices, most_in_z);
    const std::int64_t down =
        std::min(parts(rows, y), std::max<std::int64_t>(1, most_blocks / std::max<std::int64_t>(1, along * z)));
    return {{static_cast<unsigned>(along), static_cast<unsigned>(down), static_cast<unsigned>(z)},
            {static_cast<unsigned>(x), static_cast<unsigned>(y)}};
}

}  // namespace igb::cuda
