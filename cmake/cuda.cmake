# The CUDA half, as the static library igbfast_cuda, where IGBFAST_CUDA asks for it; igbfast_cuda_built says whether.
# Compiled for A100, H100 and B200, and as PTX for what comes after.
set(igbfast_cuda_built FALSE)
if(NOT IGBFAST_CUDA MATCHES "^(ON|OFF|AUTO)$")
    message(FATAL_ERROR "IGBFAST_CUDA must be ON, OFF or AUTO, got ${IGBFAST_CUDA}")
endif()
if(NOT IGBFAST_CUDA STREQUAL "OFF")
    set(CMAKE_CUDA_ARCHITECTURES "80-real;90-real;100" CACHE STRING "GPUs to compile for")
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
        set(igbfast_cuda_built TRUE)
    elseif(IGBFAST_CUDA STREQUAL "ON")
        message(FATAL_ERROR "IGBFAST_CUDA=ON, but there is no CUDA compiler. Name nvcc by the environment variable "
                            "CUDACXX or by CMAKE_CUDA_COMPILER, or use IGBFAST_CUDA=OFF.")
    endif()
endif()

if(igbfast_cuda_built)
    enable_language(CUDA)
    set(CMAKE_CUDA_STANDARD 20)
    file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/cuda/*.cu)
    add_library(igbfast_cuda STATIC ${cuda_sources})
    target_link_libraries(igbfast_cuda PUBLIC igbfast_flags)
    target_compile_options(igbfast_cuda PRIVATE
        -Xcompiler=-Wall,-Wextra,-Wshadow -Xptxas=--warn-on-spills
        $<$<BOOL:${IGBFAST_WERROR}>:-Xcompiler=-Werror> $<$<BOOL:${IGBFAST_WERROR}>:--Werror=all-warnings>)
endif()
