// How kernels are written and started, so that one source serves the GPU and a machine without one. A kernel is a
// function template of plain CUDA C++, IGB_KERNEL(threads) f(...), started by launch(); an IGB_ROOMY_KERNEL may take
// all the registers that there are. It and the functions that it calls, IGB_DEVICE, or IGB_APART to be really called,
// may use
//     threadIdx, blockIdx, blockDim, gridDim   in x and y (blocks also in z)
//     IGB_SHARED(T, name, count);              an array that the threads of a block share, at the top of the kernel
//     __syncthreads()                          by all threads of the block
//     __shfl_down_sync, __shfl_xor_sync        by all threads of the warp, mask 0xffffffff
//     atomicAdd, atomicOr                      on integers: sums of floating point numbers would depend on the order
//     IGB_UNROLL, IGB_UNROLL_BY(times)         before a loop whose arrays are to stay in registers; or to be kept short
// Compiled by nvcc that is CUDA; by a C++ compiler it is host_launch.h, which the tests bring: every thread of a block
// becomes a thread of the operating system or a fiber, where the sanitizers see what it does.
#pragma once

#include "cuda/stream.h"

namespace igb::cuda {

struct Grid {
    unsigned x, y = 1, z = 1;  // y and z: at most 65,535
};

inline constexpr unsigned warp_size = 32;

}  // namespace igb::cuda

#ifdef __CUDACC__

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#define IGB_DEVICE __device__ __forceinline__
#define IGB_APART inline __device__ __noinline__
#define IGB_KERNEL(threads) __global__ void __launch_bounds__(threads)
#define IGB_ROOMY_KERNEL(threads) __global__ void __launch_bounds__(threads, 1)
#define IGB_SHARED(T, name, count) __shared__ T name[count]
#define IGB_PRAGMA(text) _Pragma(#text)
#define IGB_UNROLL IGB_PRAGMA(unroll)
#define IGB_UNROLL_BY(times) IGB_PRAGMA(unroll times)

namespace igb::cuda {

inline void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) {
        throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
    }
}

// `threads`: of a block, in x and y.
template <class... Parameters, class... Arguments>
void launch(GpuStream stream, Grid blocks, Grid threads, void (*kernel)(Parameters...), Arguments... arguments) {
    if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0) return;
    kernel<<<dim3(blocks.x, blocks.y, blocks.z), dim3(threads.x, threads.y), 0, static_cast<cudaStream_t>(stream)>>>(
        arguments...);
    check(cudaGetLastError(), "the launch of a kernel");
}

}  // namespace igb::cuda

#else
#include "host_launch.h"
#endif
