// What every core header needs: one definition of the mathematics, compiled for the host, for each instruction set
// and for CUDA. IGB_HD marks a function that both sides call; IGB_ISA names the inline namespace that keeps the copies
// of one inline function, compiled with different -march flags, apart for the linker.
#pragma once

#if defined(__CUDACC__)
#define IGB_HD __host__ __device__ __forceinline__
#else
#define IGB_HD inline __attribute__((always_inline))
#endif

#ifndef IGB_ISA
#define IGB_ISA generic
#endif
