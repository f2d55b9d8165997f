// The host's side of csrc/cuda/launch.h: a kernel runs with one thread of the operating system for each CUDA thread of a
// block. Such a thread goes through the blocks one after the other, without waiting for its neighbours, so that the
// thread sanitizer sees two CUDA threads that touch the same memory, of one block or of two.
#pragma once

#include <thread>
#include <vector>

#define IGB_KERNEL

struct Index3 {
    unsigned x = 0, y = 0, z = 0;
};

inline thread_local Index3 threadIdx, blockIdx, blockDim, gridDim;

namespace igb::cuda {

using GpuStream = void*;

template <class... Parameters, class... Arguments>
void launch(GpuStream, unsigned blocks, unsigned threads, void (*kernel)(Parameters...), Arguments... arguments) {
    std::vector<std::thread> team;
    for (unsigned t = 0; t < threads; ++t) {
        team.emplace_back([=] {
            threadIdx.x = t;
            blockDim = {threads, 1, 1};
            gridDim = {blocks, 1, 1};
            for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) kernel(arguments...);
        });
    }
    for (std::thread& thread : team) thread.join();
}

}  // namespace igb::cuda
