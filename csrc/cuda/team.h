// Who works out a point of a batch of Gaussian expectations, and the kernels that do: Solo, a thread by itself, or
// Team, the threads of a block. Included by CUDA sources alone.
//
// Closed forms take a thread a point. All others take a block a point, 128 threads that share out its nodes: a point
// has 10^3 to 10^6 of them, its sums need a common memory, and a batch has thousands of points. The threads of a block
// do the same with the same numbers wherever nodes are not concerned, and so never part.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/hermite.h"
#include "core/tanh_moments.h"
#include "cuda/expectations.h"
#include "cuda/launch.h"

// The rules of tanh and of tables need most of the registers each: inlined into one kernel they would spill, while
// across a call (IGB_APART) next to nothing is kept.
namespace igb::cuda {

// ---- Workers --------------------------------------------------------------------------------------------------------

// A thread by itself.
struct Solo {
    static constexpr bool is_team = false, takes_tables = false;

    IGB_DEVICE bool writes() const { return true; }
};

// The threads of a block.
struct Team {
    static constexpr bool is_team = true, takes_tables = false;
    static constexpr int size = 128, lanes = 32, warps = size / lanes;
    static constexpr int most_sums = 7;
    static constexpr int chunk = 16, chunk_row = size + 8;  // terms of a Hermite series at a time; 8: no bank conflicts
    static constexpr int series = 2 * series_capacity;      // two of them
    static constexpr int pool_size = series + chunk * chunk_row;
    static constexpr int memory_size = pool_size + (most_sums + 1) * size;
    static_assert(pool_size >= 4 * NoiseRule::capacity);

    int rank;
    double* pool;     // for whoever is at work, between two sums
    double* scratch;  // of the sums

    IGB_DEVICE Team(int thread, double* memory) : rank(thread), pool(memory), scratch(memory + pool_size) {}
    IGB_DEVICE double* row(std::size_t k) const { return scratch + k * size; }
    IGB_DEVICE int lane() const { return rank % lanes; }
    IGB_DEVICE int warp() const { return rank / lanes; }
    IGB_DEVICE bool writes() const { return rank == 0; }
};

// One that can take tables, for which a kernel needs twice the registers.
struct TableTeam : Team {
    static constexpr bool takes_tables = true;

    IGB_DEVICE TableTeam(int thread, double* memory) : Team(thread, memory) {}
};

struct Add {
    IGB_DEVICE double operator()(double a, double b) const { return a + b; }
};

struct Larger {
    IGB_DEVICE double operator()(double a, double b) const { return a > b ? a : b; }
};

// Over the lanes of a warp, for all of them.
template <class Operation>
IGB_DEVICE double over_warp(double value, Operation operation) {
    for (int step = 16; step > 0; step /= 2) value = operation(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
}

// Each value over all threads, for all threads, always in the same order. What was in shared memory before can be
// written over afterwards.
template <std::size_t K, class Operation>
IGB_DEVICE void combine(const Team& team, double (&values)[K], Operation operation) {
    static_assert(K <= Team::most_sums);
    double* const results = team.row(Team::most_sums);
    for (std::size_t k = 0; k < K; ++k) team.row(k)[team.rank] = values[k];
    __syncthreads();
    for (auto k = static_cast<std::size_t>(team.warp()); k < K; k += Team::warps) {
        const double* const from = team.row(k) + team.lane();
        double value = from[0];
        for (int i = 1; i < Team::warps; ++i) value = operation(value, from[i * Team::lanes]);
        value = over_warp(value, operation);
        if (team.lane() == 0) results[k] = value;
    }
    __syncthreads();
    for (std::size_t k = 0; k < K; ++k) values[k] = results[k];
}

// Each lane's sum over the parts, for all threads of that lane.
template <std::size_t K>
IGB_DEVICE void over_parts(const Team& team, double (&values)[K]) {
    for (std::size_t k = 0; k < K; ++k) team.row(k)[team.rank] = values[k];
    __syncthreads();
    for (std::size_t k = 0; k < K; ++k) {
        const double* const from = team.row(k) + team.lane();
        values[k] = from[0];
        for (int i = 1; i < Team::warps; ++i) values[k] += from[i * Team::lanes];
    }
    __syncthreads();
}

// ---- Kernels --------------------------------------------------------------------------------------------------------

inline constexpr unsigned solo_threads = 128;
inline constexpr std::int64_t most_blocks = 1 << 16;  // beyond, a block or thread takes several points

// A Job works out number i of a batch, job(worker, i), and says by which phi: job.phi. All kernels may take the
// registers that there are: a thread has dozens of numbers in hand, and waits for arithmetic, not for memory.

// Twin of the loops over points of cpu/moments.h where all shares of phi have closed forms: a thread a point, in blocks
// of 128, as many as there are points for up to most_blocks.
template <class Job>
IGB_ROOMY_KERNEL(solo_threads)
solo_kernel(Job job, std::int64_t count) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step)
        job(Solo{}, i);
}

// The same where tanh is among them, whose expectations are sums over the nodes of a quadrature (tanh_moments.h): a
// block of 128 threads a point. 128: four warps share the nodes of the noise of 32 centres, and several blocks fit into
// the shared memory of a multiprocessor, 33 KiB each.
template <class Job>
IGB_ROOMY_KERNEL(Team::size)
team_kernel(Job job, std::int64_t count) {
    IGB_SHARED(double, memory, Team::memory_size);
    const Team team(static_cast<int>(threadIdx.x), memory);
    for (std::int64_t i = blockIdx.x; i < count; i += gridDim.x) job(team, i);
}

// The same where tables are among them (table_moments.h): a block of 128 threads a point, for quadrature cells five at
// a time, Hermite series by all threads, and double integrals with a cell a warp.
template <class Job>
IGB_ROOMY_KERNEL(Team::size)
table_kernel(Job job, std::int64_t count) {
    IGB_SHARED(double, memory, Team::memory_size);
    const TableTeam team(static_cast<int>(threadIdx.x), memory);
    for (std::int64_t i = blockIdx.x; i < count; i += gridDim.x) job(team, i);
}

// job(worker, i) for i = 0, ..., count - 1, by the kernel that suits its phi.
template <class Job>
void start(GpuStream stream, const Job& job, std::int64_t count) {
    const bool solo = job.phi.kind == TheoryKind::closed;
    const std::int64_t blocks = solo ? (count + solo_threads - 1) / solo_threads : count;
    const Grid grid{static_cast<unsigned>(std::min(blocks, most_blocks))};
    switch (job.phi.kind) {
        case TheoryKind::closed: return launch(stream, grid, Grid{solo_threads}, solo_kernel<Job>, job, count);
        case TheoryKind::ruled: return launch(stream, grid, Grid{Team::size}, team_kernel<Job>, job, count);
        case TheoryKind::tabulated: return launch(stream, grid, Grid{Team::size}, table_kernel<Job>, job, count);
    }
}

}  // namespace igb::cuda
