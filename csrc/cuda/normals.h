// The GPU twin of cpu/normals.cpp: a block of an array of standard normals, the same function of the same counters.
#pragma once

#include <cstdint>

#include "cpu/kernels.h"
#include "cuda/launch.h"

namespace igb::cuda {

// Rows [first_row, first_row + rows) and columns [first_column, first_column + columns); first_column a multiple of 64.
struct Block {
    std::uint32_t first_row;
    std::uint32_t rows;
    std::uint64_t first_column;
    std::uint64_t columns;
};

// Fills out[row * ld + column], memory of the device, with ld >= columns.
void fill_normals(GpuStream stream, const StreamId& id, const Block& block, float* out, std::uint64_t ld);
void fill_normals(GpuStream stream, const StreamId& id, const Block& block, double* out, std::uint64_t ld);

}  // namespace igb::cuda
