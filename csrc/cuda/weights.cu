// A thread takes one counter at a time, all that it deals (core/dealt.h), and sixteen neighbouring threads write
// sixteen neighbours: whole sectors of memory, in every type.
#include "cuda/weights.h"

#include <stdexcept>
#include <type_traits>

#include "core/dealt.h"
#include "cuda/launch.h"
#include "cuda/row_grid.h"

namespace igb::cuda {
namespace {

template <class Out, class T>
IGB_HD Out stored(T number) {
    if constexpr (std::is_same_v<Out, BFloat16>) {
        return to_bfloat16(number);
    } else {
        return number;
    }
}

IGB_HD std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// How many steps from one number of a counter to the next lead from `column` to `end` or beyond; at least none.
IGB_HD std::int64_t steps(std::int64_t column, std::int64_t end) {
    return column < end ? (end - column + dealt_lanes - 1) / dealt_lanes : 0;
}

// W_ij, the number of (seed, network, layer, stream, i, j), core/weights.h. Twin: weights_f32, weights_f64 of
// cpu/weights.cpp. Shape: row_grid(counters of the blocks of columns that are touched, rows, networks).
template <class Numbers, class Out>
IGB_KERNEL(256)
weights_kernel(StreamId id, WeightBlock block, WeightBatch batch, std::int64_t counters, Out* out) {
    const std::int64_t place = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (place >= counters) return;
    const std::int64_t counter = block.first_column / Numbers::block * dealt_lanes + place;
    // The counter's first column, from the first that is asked for; blocks may begin before that.
    const std::int64_t first = counter / dealt_lanes * Numbers::block + counter % dealt_lanes - block.first_column;
    for (std::int64_t g = blockIdx.z; g < batch.networks; g += gridDim.z) {
        for (std::int64_t i = std::int64_t{blockIdx.y} * blockDim.y + threadIdx.y; i < block.rows;
             i += std::int64_t{gridDim.y} * blockDim.y) {
            const Numbers numbers = dealt<Numbers>(id, g, block.first_row + i, counter);
            Out* const row = out + g * batch.between + i * batch.ld;
            for (std::int64_t part = 0; part < Numbers::parts; ++part) {
                const std::int64_t start = first + dealt_lanes * Numbers::bits * part;
                if constexpr (Numbers::bits == 1) {
                    if (start >= 0 && start < block.columns) row[start] = stored<Out>(numbers(part));
                } else {
                    const std::int64_t end = least(Numbers::bits, steps(start, block.columns));
                    for (std::int64_t bit = steps(start, 0); bit < end; ++bit) {
                        row[start + dealt_lanes * bit] = stored<Out>(numbers(part, bit));
                    }
                }
            }
        }
    }
}

template <class Numbers, class Out>
void fill(GpuStream stream, const StreamId& id, const WeightBlock& block, const WeightBatch& batch, Out* out) {
    if (block.columns == 0) return;
    const std::int64_t end = (block.first_column + block.columns + Numbers::block - 1) / Numbers::block;
    const std::int64_t counters = (end - block.first_column / Numbers::block) * dealt_lanes;
    const RowGrid grid = row_grid(counters, block.rows, batch.networks);
    launch(stream, grid.blocks, grid.threads, weights_kernel<Numbers, Out>, id, block, batch, counters, out);
}

// The rows of a tile that a thread takes: row + 16 k, nodes node + 16 k of their member, from one counter.
template <class T>
struct NodePlace {
    std::int64_t row, node, counter;

    IGB_HD NodePlace(const NodeSlab& slab, std::int64_t place) {
        constexpr std::int64_t block = DealtNormals<T>::block;
        const std::int64_t lane = place % dealt_lanes;
        row = place / dealt_lanes * block + lane;
        const std::int64_t member = row / slab.member;  // whole: members begin at multiples of 64
        node = row - member * slab.member;
        const std::int64_t column = member * slab.stride + slab.first + node;
        counter = column / block * dealt_lanes + lane;
    }
};

template <class T>
std::int64_t places(const NodeSlab& slab) {
    return slab.rows() / DealtNormals<T>::parts;
}

// Z_k(i), k = 0 .. columns - 1, at row a = k of the stream and the column of node i. Twin: GramRun::fill of
// cpu/forward_gram.cpp. Shape: row_grid(counters of a column of the tile, columns, networks).
template <class T>
IGB_KERNEL(256)
nodes_kernel(StreamId id, TileBatch tiles, T* tile) {
    using Numbers = DealtNormals<T>;
    const NodeSlab slab = tiles.slab;
    const std::int64_t place = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (place >= slab.rows() / Numbers::parts) return;
    const NodePlace<T> at(slab, place);
    for (std::int64_t g = blockIdx.z; g < tiles.networks; g += gridDim.z) {
        for (std::int64_t a = std::int64_t{blockIdx.y} * blockDim.y + threadIdx.y; a < tiles.columns;
             a += std::int64_t{gridDim.y} * blockDim.y) {
            const Numbers numbers = dealt<Numbers>(id, g, a, at.counter);
            T* const column = tile + g * tiles.between() + a * slab.rows() + at.row;
            for (std::int64_t k = 0; k < Numbers::parts; ++k) {
                column[dealt_lanes * k] = at.node + dealt_lanes * k < slab.nodes ? numbers(k) : T{0};
            }
        }
    }
}

// y_i(0) += scale_g b_i, b_i the number of row 0 and the column of node i. Twin: add_bias of cpu/layer.cpp. Shape:
// row_grid(counters of a column of the tile, 1, networks).
template <class T>
IGB_KERNEL(256)
bias_kernel(StreamId id, const double* scale, TileBatch tiles, T* tile) {
    using Numbers = DealtNormals<T>;
    const NodeSlab slab = tiles.slab;
    const std::int64_t place = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (place >= slab.rows() / Numbers::parts || threadIdx.y > 0) return;
    const NodePlace<T> at(slab, place);
    for (std::int64_t g = blockIdx.z; g < tiles.networks; g += gridDim.z) {
        const Numbers numbers = dealt<Numbers>(id, g, 0, at.counter);
        const T factor = static_cast<T>(scale[g]);
        T* const origin = tile + g * tiles.between() + at.row;
        for (std::int64_t k = 0; k < Numbers::parts; ++k) {
            if (at.node + dealt_lanes * k < slab.nodes) origin[dealt_lanes * k] += factor * numbers(k);
        }
    }
}

}  // namespace

template <class T>
void fill_weights(GpuStream stream, WeightLaw law, const StreamId& id, const WeightBlock& block,
                  const WeightBatch& batch, T* out) {
    using Number = std::conditional_t<std::is_same_v<T, double>, double, float>;
    switch (law) {
        case WeightLaw::gaussian: return fill<DealtNormals<Number>>(stream, id, block, batch, out);
        case WeightLaw::uniform: return fill<DealtUniforms<Number>>(stream, id, block, batch, out);
        case WeightLaw::rademacher: return fill<DealtSigns<Number>>(stream, id, block, batch, out);
        case WeightLaw::orthogonal: break;
    }
    throw std::invalid_argument("orthogonal weights are not independent: no block of them can be drawn by itself");
}

template <class T>
void fill_nodes(GpuStream stream, const StreamId& id, const TileBatch& tiles, T* tile) {
    const RowGrid grid = row_grid(places<T>(tiles.slab), tiles.columns, tiles.networks);
    launch(stream, grid.blocks, grid.threads, nodes_kernel<T>, id, tiles, tile);
}

template <class T>
void add_bias(GpuStream stream, const StreamId& id, const double* scale, const TileBatch& tiles, T* tile) {
    const RowGrid grid = row_grid(places<T>(tiles.slab), 1, tiles.networks);
    launch(stream, grid.blocks, grid.threads, bias_kernel<T>, id, scale, tiles, tile);
}

#define IGB_INSTANTIATE(T) \
    template void fill_weights(GpuStream, WeightLaw, const StreamId&, const WeightBlock&, const WeightBatch&, T*)

IGB_INSTANTIATE(float);
IGB_INSTANTIATE(double);
IGB_INSTANTIATE(BFloat16);

template void fill_nodes(GpuStream, const StreamId&, const TileBatch&, float*);
template void fill_nodes(GpuStream, const StreamId&, const TileBatch&, double*);
template void add_bias(GpuStream, const StreamId&, const double*, const TileBatch&, float*);
template void add_bias(GpuStream, const StreamId&, const double*, const TileBatch&, double*);

}  // namespace igb::cuda
