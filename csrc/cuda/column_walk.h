// How the kernels of a layer go through tiles, from memory once: a walk over the columns of every row, and sums over
// rows. Included by CUDA sources alone.
//
// A walk: lanes of a warp are neighbouring rows, so that every load of it is one piece of memory; the warps of a block
// take turns with the columns, and the blocks of blockIdx.y have columns_per_part of them each. What a row sums over
// its columns goes to scratch memory in parts that depend on the number of columns alone, and finish_rows adds them up
// in their order: the result does not depend on what runs when. Column 0 is read by all blocks, so it is the finish
// that writes there.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/elementary.h"
#include "cuda/launch.h"
#include "cuda/layout.h"

namespace igb::cuda {

inline constexpr unsigned most_groups = 8;  // warps of a block, all at the same rows
inline constexpr unsigned threads_per_block = warp_size * most_groups;
inline constexpr std::int64_t columns_per_part = 256;  // also: that many squares at most are added in single precision
inline constexpr std::int64_t rows_per_part = 1024;

IGB_HD std::int64_t parts_of(std::int64_t count, std::int64_t part) { return (count + part - 1) / part; }

template <unsigned count>
struct Doubles {
    double v[count > 0 ? count : 1];
};

// ---- Walks over columns ---------------------------------------------------------------------------------------------

// The first `rows` rows of every network's tile are walked.
struct Walk {
    std::int64_t networks, columns, rows;

    std::int64_t parts() const { return parts_of(columns - 1, columns_per_part); }
};

// A Visitor has, besides `sums` and `batch`, the number of columns that it loads ahead,
//     Row start(network, row)                  what a thread knows of its row
//     Given load(row, column)                  from memory
//     void take(row, column, given)            columns >= 1
//     Doubles<sums> end(row)                   of the columns taken
//     void finish(network, row, Doubles)       with the sums over all columns; column 0
template <class Visitor>
IGB_KERNEL(threads_per_block)
visit_columns(Visitor visitor, Walk walk, double* partial) {
    constexpr unsigned sums = Visitor::sums, batch = Visitor::batch;
    IGB_SHARED(double, apart, (sums > 0 ? sums : 1) * threads_per_block);
    const auto row_blocks = static_cast<unsigned>(walk.rows / warp_size);
    const std::int64_t network = blockIdx.x / row_blocks;
    const std::int64_t row = std::int64_t{blockIdx.x % row_blocks} * warp_size + threadIdx.x;
    const std::int64_t first = 1 + std::int64_t{blockIdx.y} * columns_per_part;
    const std::int64_t end = first + columns_per_part < walk.columns ? first + columns_per_part : walk.columns;
    const unsigned groups = blockDim.y;

    auto here = visitor.start(network, row);
    for (std::int64_t column = first + threadIdx.y; column < end; column += batch * groups) {
        typename Visitor::Given given[batch];
        IGB_UNROLL
        for (unsigned i = 0; i < batch; ++i) {
            if (column + i * groups < end) given[i] = visitor.load(here, column + i * groups);
        }
        IGB_UNROLL
        for (unsigned i = 0; i < batch; ++i) {
            if (column + i * groups < end) visitor.take(here, column + i * groups, given[i]);
        }
    }
    const Doubles<sums> mine = visitor.end(here);
    if constexpr (sums > 0) {
        const unsigned thread = threadIdx.y * warp_size + threadIdx.x;
        for (unsigned k = 0; k < sums; ++k) apart[k * threads_per_block + thread] = mine.v[k];
        __syncthreads();
        for (unsigned k = threadIdx.y; k < sums; k += groups) {
            double sum = 0.0;
            for (unsigned g = 0; g < groups; ++g) sum += apart[k * threads_per_block + g * warp_size + threadIdx.x];
            partial[((network * gridDim.y + blockIdx.y) * sums + k) * walk.rows + row] = sum;
        }
    }
}

// One thread a row.
template <class Visitor>
IGB_KERNEL(threads_per_block)
finish_rows(Visitor visitor, Walk walk, std::int64_t parts, const double* partial) {
    constexpr unsigned sums = Visitor::sums;
    const std::int64_t i = std::int64_t{blockIdx.x} * threads_per_block + threadIdx.x;
    if (i >= walk.networks * walk.rows) return;
    const std::int64_t network = i / walk.rows, row = i % walk.rows;
    Doubles<sums> total{};
    if constexpr (sums > 0) {
        for (std::int64_t part = 0; part < parts; ++part) {
            const double* const of_part = partial + (network * parts + part) * sums * walk.rows + row;
            for (unsigned k = 0; k < sums; ++k) total.v[k] += of_part[k * walk.rows];
        }
    }
    visitor.finish(network, row, total);
}

// `scratch`: networks * parts * sums * rows numbers.
template <class Visitor>
void walk_columns(GpuStream stream, const Visitor& visitor, const Walk& walk, double* scratch) {
    const std::int64_t parts = walk.parts();
    unsigned groups = 1;
    while (groups < most_groups && groups < walk.columns - 1) groups *= 2;
    const auto blocks = static_cast<unsigned>(walk.networks * walk.rows / warp_size);
    launch(stream, Grid{blocks, static_cast<unsigned>(parts)}, Grid{warp_size, groups}, visit_columns<Visitor>, visitor,
           walk, scratch);
    launch(stream, Grid{static_cast<unsigned>(parts_of(walk.networks * walk.rows, threads_per_block))},
           Grid{threads_per_block}, finish_rows<Visitor>, visitor, walk, parts, static_cast<const double*>(scratch));
}

// ---- Sums over rows -------------------------------------------------------------------------------------------------

// The rows that count: [0, nodes) of each member.
struct RowSums {
    std::int64_t sets;  // of sums: networks, or more
    std::int64_t members, nodes;

    std::int64_t parts() const { return members * parts_of(nodes, rows_per_part); }
};

// out[k] = the sum over all threads of a block of mine.v[k]. Each warp sums every eighth of them, in a fixed order.
template <unsigned count>
IGB_DEVICE void sum_over_block(const Doubles<count>& mine, double* shared, double* out) {
    const unsigned lane = threadIdx.x % warp_size;
    for (unsigned k = 0; k < count; ++k) shared[k * threads_per_block + threadIdx.x] = mine.v[k];
    __syncthreads();
    for (unsigned k = threadIdx.x / warp_size; k < count; k += most_groups) {
        double sum = 0.0;
        for (unsigned i = lane; i < threads_per_block; i += warp_size) sum += shared[k * threads_per_block + i];
        for (unsigned by = warp_size / 2; by > 0; by /= 2) sum += __shfl_down_sync(0xffffffffu, sum, by);
        if (lane == 0) out[k] = sum;
    }
}

// A Source has `Sums`, a struct of doubles, and add(set, member, node, Sums&). Blocks: one for each part of each set.
template <class Source>
IGB_KERNEL(threads_per_block)
sum_rows(Source source, RowSums rows, double* partial) {
    using Sums = typename Source::Sums;
    constexpr unsigned count = sizeof(Sums) / sizeof(double);
    IGB_SHARED(double, shared, threads_per_block* count);
    const std::int64_t per_member = parts_of(rows.nodes, rows_per_part), parts = rows.members * per_member;
    const std::int64_t set = blockIdx.x / parts, part = blockIdx.x % parts, member = part / per_member;
    const std::int64_t first = part % per_member * rows_per_part;
    const std::int64_t end = first + rows_per_part < rows.nodes ? first + rows_per_part : rows.nodes;
    Sums mine{};
    for (std::int64_t node = first + threadIdx.x; node < end; node += threads_per_block) {
        source.add(set, member, node, mine);
    }
    sum_over_block(bit_copy<Doubles<count>>(mine), shared, partial + (set * parts + part) * count);
}

// out[set * count + k] = sum over the parts of partial[(set * parts + part) * count + k]. Blocks: one for each set.
template <unsigned count>
IGB_KERNEL(threads_per_block)
sum_parts(std::int64_t parts, const double* partial, double* out) {
    IGB_SHARED(double, shared, threads_per_block* count);
    const std::int64_t set = blockIdx.x;
    Doubles<count> mine{};
    for (std::int64_t part = threadIdx.x; part < parts; part += threads_per_block) {
        for (unsigned k = 0; k < count; ++k) mine.v[k] += partial[(set * parts + part) * count + k];
    }
    sum_over_block(mine, shared, out + set * count);
}

// out: for every set its Sums. `scratch`: as much for each of the parts.
template <class Source>
void sum_over_rows(GpuStream stream, const Source& source, const RowSums& rows, double* out, double* scratch) {
    constexpr unsigned count = sizeof(typename Source::Sums) / sizeof(double);
    const std::int64_t parts = rows.parts();
    launch(stream, Grid{static_cast<unsigned>(rows.sets * parts)}, Grid{threads_per_block}, sum_rows<Source>, source,
           rows, scratch);
    launch(stream, Grid{static_cast<unsigned>(rows.sets)}, Grid{threads_per_block}, sum_parts<count>, parts,
           static_cast<const double*>(scratch), out);
}

// (networks, 2, rows): of what comes out, the square of column 0 and the sum of those of the others, to be summed.
struct RowNorms {
    struct Sums {
        double origin, difference;
    };

    const double* squares;
    std::int64_t rows, member;

    IGB_DEVICE void add(std::int64_t network, std::int64_t s, std::int64_t node, Sums& sums) const {
        const double* const here = squares + 2 * network * rows + s * member + node;
        sums.origin += here[0];
        sums.difference += here[rows];
    }
};

}  // namespace igb::cuda
