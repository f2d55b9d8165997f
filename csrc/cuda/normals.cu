// Standard normals (core/normal.h), one counter a thread: neighbouring threads have neighbouring lanes, so that a warp
// writes whole sectors of 16 columns.
#include "cuda/normals.h"

#include <algorithm>

#include "core/normal.h"

namespace igb::cuda {
namespace {

constexpr unsigned threads_per_block = 256;
constexpr std::uint64_t most_blocks = 8192;  // beyond, a thread takes several counters

template <class T>
IGB_HD void put(T* out, std::uint64_t column, std::uint64_t columns, T value) {
    if (column < columns) out[column] = value;
}

// `counters` is that of one row, the last block of columns filled up.
template <class T>
IGB_KERNEL void normals_kernel(StreamId id, Block block, std::uint64_t counters, T* out, std::uint64_t ld) {
    using Layout = NormalLayout<T>;
    const std::uint64_t all = counters * block.rows;
    const std::uint64_t stride = std::uint64_t{gridDim.x} * blockDim.x;
    for (std::uint64_t i = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < all; i += stride) {
        const std::uint64_t row = i / counters, counter = i % counters;
        const std::uint64_t b = counter / Layout::lanes, j = counter % Layout::lanes;
        const std::uint64_t first = block.first_column / Layout::block * Layout::lanes;
        const PhiloxWords w = normal_words(id, block.first_row + static_cast<std::uint32_t>(row),
                                           static_cast<std::uint32_t>(first + counter));
        T* const here = out + row * ld;
        const std::uint64_t column = b * Layout::block + j;
        if constexpr (std::is_same_v<T, float>) {
            const NormalPair<float> front = box_muller(w.x0, w.x1), back = box_muller(w.x2, w.x3);
            put(here, column, block.columns, front.first);
            put(here, column + Layout::lanes, block.columns, front.second);
            put(here, column + 2 * Layout::lanes, block.columns, back.first);
            put(here, column + 3 * Layout::lanes, block.columns, back.second);
        } else {
            const NormalPair<double> pair = box_muller(joined(w.x0, w.x1), joined(w.x2, w.x3));
            put(here, column, block.columns, pair.first);
            put(here, column + Layout::lanes, block.columns, pair.second);
        }
    }
}

template <class T>
void fill(GpuStream stream, const StreamId& id, const Block& block, T* out, std::uint64_t ld) {
    using Layout = NormalLayout<T>;
    const std::uint64_t counters = (block.columns + Layout::block - 1) / Layout::block * Layout::lanes;
    const std::uint64_t blocks = (counters * block.rows + threads_per_block - 1) / threads_per_block;
    if (blocks == 0) return;
    launch(stream, static_cast<unsigned>(std::min(blocks, most_blocks)), threads_per_block, normals_kernel<T>, id,
           block, counters, out, ld);
}

}  // namespace

void fill_normals(GpuStream stream, const StreamId& id, const Block& block, float* out, std::uint64_t ld) {
    fill(stream, id, block, out, ld);
}

void fill_normals(GpuStream stream, const StreamId& id, const Block& block, double* out, std::uint64_t ld) {
    fill(stream, id, block, out, ld);
}

}  // namespace igb::cuda
