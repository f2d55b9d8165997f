// host_launch.h itself: who runs, who waits for whom, and what a block shares. That it shows the faults of kernels is
// for the tests of planted/ to say.
#include <cstdint>
#include <numeric>
#include <vector>

#include "check.h"
#include "cuda/launch.h"

#ifndef IGB_HOST_THREADS
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#endif

namespace {

using igb::cuda::Grid;
using igb::cuda::launch;

unsigned block_number() { return (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x; }

// Every thread of every block once, each with numbers of its own.
IGB_KERNEL(15) indices_kernel(unsigned* seen) {
    const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
    const bool known = gridDim.x == 3 && gridDim.y == 2 && gridDim.z == 4 && blockDim.x == 5 && blockDim.y == 3;
    seen[block_number() * blockDim.x * blockDim.y + thread] += known ? 11 : 1;
}

void indices() {
    std::vector<unsigned> seen(3 * 2 * 4 * 15, 0);
    launch(nullptr, Grid{3, 2, 4}, Grid{5, 3}, indices_kernel, seen.data());
    CHECK(seen == std::vector<unsigned>(seen.size(), 11));
    launch(nullptr, Grid{0, 2, 4}, Grid{5, 3}, indices_kernel, seen.data());
    CHECK(seen == std::vector<unsigned>(seen.size(), 11));
}

// Prefix sums by doubling, of those threads that stay: log2(threads) rounds, two barriers in each.
IGB_KERNEL(128) prefix_kernel(unsigned staying, const std::int64_t* in, std::int64_t* out) {
    IGB_SHARED(std::int64_t, sums, 128);
    if (threadIdx.x >= staying) return;
    const std::int64_t* const mine = in + blockIdx.x * staying;
    sums[threadIdx.x] = mine[threadIdx.x];
    __syncthreads();
    for (unsigned by = 1; by < staying; by *= 2) {
        const std::int64_t below = threadIdx.x >= by ? sums[threadIdx.x - by] : 0;
        __syncthreads();
        sums[threadIdx.x] += below;
        __syncthreads();
    }
    out[blockIdx.x * staying + threadIdx.x] = sums[threadIdx.x];
}

void barriers() {
    for (const unsigned staying : {1u, 31u, 100u, 128u}) {
        std::vector<std::int64_t> in(3 * staying), got(in.size(), -1), want(in.size());
        std::iota(in.begin(), in.end(), 5);
        for (unsigned b = 0; b < 3; ++b)
            std::partial_sum(in.begin() + b * staying, in.begin() + (b + 1) * staying, want.begin() + b * staying);
        launch(nullptr, Grid{3}, Grid{128}, prefix_kernel, staying, static_cast<const std::int64_t*>(in.data()),
               got.data());
        CHECK(got == want);
    }
}

// Each warp folds as often as its number says: warps do not wait for each other there.
template <class T>
IGB_KERNEL(96)
shuffles_kernel(T* down, T* across) {
    const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
    const T mine = static_cast<T>(thread) + T{1} / T{2};
    T from_below = mine, sum = mine;
    for (unsigned i = 0; i <= thread / 32; ++i) from_below = __shfl_down_sync(0xffffffffu, from_below, 3);
    for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    __syncthreads();
    down[thread] = from_below;
    across[thread] = sum;
}

template <class T>
void shuffles() {
    std::vector<T> down(96), across(96);
    launch(nullptr, Grid{1}, Grid{8, 12}, shuffles_kernel<T>, down.data(), across.data());
    const T half = T{1} / T{2};
    for (unsigned thread = 0; thread < 96; ++thread) {
        unsigned lane = thread % 32;
        for (unsigned i = 0; i <= thread / 32; ++i) lane = lane + 3 < 32 ? lane + 3 : lane;
        CHECK(down[thread] == static_cast<T>(thread / 32 * 32 + lane) + half);
        CHECK(across[thread] == static_cast<T>(32 * (thread / 32 * 32) + 31 * 16) + 32 * half);
    }
}

// What threads find in shared memory at the start, and after all have written to two arrays.
IGB_KERNEL(32) shared_kernel(unsigned* found, unsigned* kept) {
    IGB_SHARED(unsigned, first, 32);
    IGB_SHARED(unsigned, second, 32);
    const unsigned thread = threadIdx.x, i = blockIdx.x * 32 + thread;
    found[i] = first[thread] == second[thread] ? first[thread] : 0;
    __syncthreads();
    first[thread] = i;
    second[31 - thread] = i + 1000;
    __syncthreads();
    kept[i] = first[31 - thread] == i + 31 - 2 * thread && second[thread] == first[31 - thread] + 1000;
}

void shared_memory() {
    std::vector<unsigned> found(64, 0), kept(64, 0);
    launch(nullptr, Grid{2}, Grid{32}, shared_kernel, found.data(), kept.data());
    CHECK(found[0] > 100000);  // a pattern: neither zero nor what the block before has left
    CHECK(found == std::vector<unsigned>(64, found[0]));
    CHECK(kept == std::vector<unsigned>(64, 1));
}

IGB_KERNEL(100) atomics_kernel(unsigned long long* sum, unsigned* bits) {
    atomicAdd(sum, (1ull << 32) + threadIdx.x);
    atomicOr(bits, 1u << (threadIdx.x % 20));
}

void atomics() {
    unsigned long long sum = 5;
    unsigned bits = 1u << 31;
    launch(nullptr, Grid{4}, Grid{100}, atomics_kernel, &sum, &bits);
    CHECK(sum == (400ull << 32) + 4 * 4950 + 5);
    CHECK(bits == ((1u << 31) | 0xFFFFFu));
}

#ifndef IGB_HOST_THREADS

IGB_KERNEL(40) order_kernel(unsigned* next, unsigned* order) {
    order[(*next)++] = threadIdx.x;
    __syncthreads();
    order[(*next)++] = threadIdx.x;
}

// In order in one block, against it in the next, before and after a barrier.
void order_of_fibers() {
    unsigned next = 0;
    std::vector<unsigned> order(160, 1000), want(160);
    launch(nullptr, Grid{2}, Grid{40}, order_kernel, &next, order.data());
    for (unsigned i = 0; i < 80; ++i) {
        want[i] = i % 40;
        want[80 + i] = 39 - i % 40;
    }
    CHECK(order == want);
}

IGB_KERNEL(64) divergent_kernel(int* out) {
    if (threadIdx.x < 16) {
        __syncthreads();
    } else {
        *out += __shfl_xor_sync(0xffffffffu, 1, 1);
    }
}

IGB_KERNEL(1) empty_kernel() {}

template <class Statement>
bool aborts(const Statement& statement) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        std::fclose(stderr);
        statement();
        _exit(0);
    }
    int status = 0;
    return waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

void mistakes() {
    int out = 0;
    CHECK(aborts([&] { launch(nullptr, Grid{1}, Grid{64}, divergent_kernel, &out); }));
    CHECK(aborts([] { launch(nullptr, Grid{1}, Grid{1025}, empty_kernel); }));
    CHECK(aborts([] { launch(nullptr, Grid{1, 65536}, Grid{1}, empty_kernel); }));
    CHECK(!aborts([] { launch(nullptr, Grid{1, 65535}, Grid{1}, empty_kernel); }));
}

#endif

}  // namespace

int main() {
    indices();
    barriers();
    shuffles<int>();
    shuffles<float>();
    shuffles<double>();
    shuffles<std::uint64_t>();
    shared_memory();
    atomics();
#ifndef IGB_HOST_THREADS
    order_of_fibers();
    mistakes();
#endif
    return summary();
}
