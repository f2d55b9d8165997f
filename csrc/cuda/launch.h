// How kernels are written and started, so that one source serves the GPU and a machine without one. A kernel is an
// IGB_KERNEL function template of plain CUDA C++ (threadIdx, blockIdx, blockDim, gridDim); launch() starts it. Compiled by
// nvcc that is CUDA; by a C++ compiler it is host_launch.h, which the tests bring: every CUDA thread of a block becomes a
// thread of the operating system, where the address and thread sanitizers see what it does.
#pragma once

#ifdef __CUDACC__

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#define IGB_KERNEL __global__

namespace igb::cuda {

using GpuStream = cudaStream_t;

inline void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) {
        throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
    }
}

template <class... Parameters, class... Arguments>
void launch(GpuStream stream, unsigned blocks, unsigned threads, void (*kernel)(Parameters...),
            Arguments... arguments) {
    kernel<<<blocks, threads, 0, stream>>>(arguments...);
    check(cudaGetLastError(), "the launch of a kernel");
}

}  // namespace igb::cuda

#else
#include "host_launch.h"
#endif
