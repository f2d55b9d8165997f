// The BLAS and LAPACK operations that the engines use, for float and double, on column-major matrices. Each call
// runs on the calling thread alone (igbfast's own loops are the parallel ones), so that the result does not depend on
// the number of threads. Dimensions that the BLAS's 32-bit integers cannot hold are a std::length_error.
#pragma once

#include <cstddef>
#include <string>

namespace igb::blas {

enum class Trans : char { no = 'N', yes = 'T' };

// C (m x n) = alpha op(A) op(B) + beta C, with op(A) m x k and op(B) k x n. beta = 0 does not read C.
void gemm(Trans transa, Trans transb, std::size_t m, std::size_t n, std::size_t k, float alpha, const float* a,
          std::size_t lda, const float* b, std::size_t ldb, float beta, float* c, std::size_t ldc);
void gemm(Trans transa, Trans transb, std::size_t m, std::size_t n, std::size_t k, double alpha, const double* a,
          std::size_t lda, const double* b, std::size_t ldb, double beta, double* c, std::size_t ldc);

// The lower triangle of C (n x n) = alpha A^T A + beta C, with A k x n; the strict upper triangle is left as it is.
void syrk_tn(std::size_t n, std::size_t k, float alpha, const float* a, std::size_t lda, float beta, float* c,
             std::size_t ldc);
void syrk_tn(std::size_t n, std::size_t k, double alpha, const double* a, std::size_t lda, double beta, double* c,
             std::size_t ldc);

// B (m x n) = alpha B L^T, in place, with L (n x n) lower triangular; its strict upper triangle is not read.
void trmm_right_lower_transposed(std::size_t m, std::size_t n, float alpha, const float* l, std::size_t ldl, float* b,
                                 std::size_t ldb);
void trmm_right_lower_transposed(std::size_t m, std::size_t n, double alpha, const double* l, std::size_t ldl,
                                 double* b, std::size_t ldb);

// B (n x m) = L^-1 B, or L^-T B, in place, with L (n x n) lower triangular; its strict upper triangle is not read.
void trsm_left_lower(Trans trans, std::size_t n, std::size_t m, const float* l, std::size_t ldl, float* b,
                     std::size_t ldb);
void trsm_left_lower(Trans trans, std::size_t n, std::size_t m, const double* l, std::size_t ldl, double* b,
                     std::size_t ldb);

// Cholesky: the lower triangle of A (n x n) becomes L with A = L L^T; the strict upper triangle is left as it is.
// Returns 0, or the (1-based) order of the first leading minor that is not positive.
int potrf_lower(std::size_t n, float* a, std::size_t lda);
int potrf_lower(std::size_t n, double* a, std::size_t lda);

std::string description();  // the library behind these calls, as it names itself

}  // namespace igb::blas
