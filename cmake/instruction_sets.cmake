# One binary for every processor of an architecture: the kernels are compiled once for each instruction set, into the
# object library igbfast_<isa>, where IGB_ISA names the namespace that holds them. csrc/cpu/dispatch.cpp picks one set
# when the library loads; the features that it asks the processor for are those that the flags here let the compiler
# use. Everything else is compiled for the architecture's baseline.
set(igbfast_kernel_sources
    csrc/cpu/normals.cpp csrc/cpu/weights.cpp csrc/cpu/activate.cpp csrc/cpu/expectations.cpp csrc/cpu/tabulated.cpp
    csrc/cpu/covariance_rows.cpp csrc/cpu/kernels.cpp)

function(igbfast_add_isa isa)
    add_library(igbfast_${isa} OBJECT ${igbfast_kernel_sources})
    target_link_libraries(igbfast_${isa} PRIVATE igbfast_flags)
    target_compile_definitions(igbfast_${isa} PRIVATE IGB_ISA=${isa})
    target_compile_options(igbfast_${isa} PRIVATE -fno-math-errno -fno-trapping-math ${ARGN})
    if(NOT IGBFAST_SANITIZE)
        target_compile_options(igbfast_${isa} PRIVATE -O3)
    endif()
    set(igbfast_isas ${igbfast_isas} ${isa} PARENT_SCOPE)
endfunction()

set(igbfast_isas)
igbfast_add_isa(baseline)

# By what the compiler builds for, not by the machine it runs on: it may be a cross compiler.
include(CheckCXXSourceCompiles)
check_cxx_source_compiles("
#ifndef __x86_64__
#error not x86-64
#endif
int main() {}" IGBFAST_X86_64)
if(IGBFAST_X86_64)
    set(avx2 -mavx2 -mfma -mbmi -mbmi2)
    igbfast_add_isa(avx2 ${avx2})
    igbfast_add_isa(avx512 ${avx2} -mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl -mprefer-vector-width=512)
endif()
