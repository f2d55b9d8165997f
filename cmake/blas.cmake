# The BLAS and LAPACK behind csrc/cpu/blas.cpp, as the target igbfast_blas.
#   system          find_package(BLAS) and find_package(LAPACK); BLA_VENDOR chooses (OpenBLAS, Intel10_64lp, FLAME, ...)
#   scipy-openblas  the library of the Python package scipy-openblas32; igbfast_bundled_blas is the file to install
#                   beside _core, which needs nothing else at run time
#   auto            the system's where there is one that is not the slow reference BLAS, else the package's
add_library(igbfast_blas INTERFACE)
set(igbfast_bundled_blas "")
set(found FALSE)

if(IGBFAST_BLAS MATCHES "^(auto|system)$")
    set(BLA_SIZEOF_INTEGER 4)
    find_package(BLAS QUIET)
    find_package(LAPACK QUIET)
    if(BLAS_FOUND AND LAPACK_FOUND)
        set(found TRUE)
        list(GET BLAS_LIBRARIES 0 library)
        if(EXISTS "${library}")
            file(REAL_PATH "${library}" library)
        endif()
        if(IGBFAST_BLAS STREQUAL "auto" AND library MATCHES "/libblas\\."
           AND NOT library MATCHES "openblas|atlas|blis|flexiblas|mkl|armpl|nvpl|essl")
            message(STATUS "BLAS: passing over the reference implementation ${library}")
            set(found FALSE)
        endif()
    elseif(IGBFAST_BLAS STREQUAL "system")
        message(FATAL_ERROR "IGBFAST_BLAS=system, but CMake found no BLAS with LAPACK. Name one by BLA_VENDOR and "
                            "CMAKE_PREFIX_PATH, or use IGBFAST_BLAS=scipy-openblas.")
    endif()
elseif(NOT IGBFAST_BLAS STREQUAL "scipy-openblas")
    message(FATAL_ERROR "IGBFAST_BLAS must be auto, system or scipy-openblas, got ${IGBFAST_BLAS}")
endif()

if(found)
    target_link_libraries(igbfast_blas INTERFACE LAPACK::LAPACK BLAS::BLAS)
else()
    find_package(Python REQUIRED COMPONENTS Interpreter)
    execute_process(
        COMMAND ${Python_EXECUTABLE} -c
                "import os, scipy_openblas32 as b; print(os.path.join(b.get_lib_dir(), b.get_library(fullname=True)))"
        OUTPUT_VARIABLE library OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed ERROR_QUIET)
    if(failed)
        message(FATAL_ERROR "no BLAS: CMake found none on this system, and ${Python_EXECUTABLE} has no package "
                            "scipy-openblas32. Install either.")
    endif()
    target_link_libraries(igbfast_blas INTERFACE "${library}")
    target_compile_definitions(igbfast_blas INTERFACE IGB_BLAS_SCIPY_OPENBLAS)
    set(igbfast_bundled_blas "${library}")
endif()
message(STATUS "BLAS: ${library}")
