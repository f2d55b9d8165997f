// The stream that kernels run on, as it crosses the boundary between CUDA sources and plain C++ (a cudaStream_t there).
#pragma once

namespace igb::cuda {

using GpuStream = void*;

}  // namespace igb::cuda
