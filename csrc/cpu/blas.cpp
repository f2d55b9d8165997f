// The BLAS behind blas.h, by its Fortran interface (every BLAS has that one), and the means to keep its calls on one
// thread. IGB_BLAS_SCIPY_OPENBLAS says that the library is igbfast's own copy of OpenBLAS (symbols begin with scipy_);
// otherwise it is whatever find_package(BLAS) found.
#include "cpu/blas.h"

#include <dlfcn.h>

#include <limits>
#include <mutex>
#include <stdexcept>

#ifdef IGB_BLAS_SCIPY_OPENBLAS
#define IGB_FORTRAN(name) scipy_##name##_
#else
#define IGB_FORTRAN(name) name##_
#endif

// The trailing lengths of the character arguments are part of the Fortran convention.
#define IGB_DECLARE_BLAS(T, GEMM, SYRK, TRMM, TRSM, POTRF)                                                             \
    void IGB_FORTRAN(GEMM)(const char* transa, const char* transb, const int* m, const int* n, const int* k,           \
                           const T* alpha, const T* a, const int* lda, const T* b, const int* ldb, const T* beta,      \
                           T* c, const int* ldc, std::size_t, std::size_t);                                            \
    void IGB_FORTRAN(SYRK)(const char* uplo, const char* trans, const int* n, const int* k, const T* alpha,            \
                           const T* a, const int* lda, const T* beta, T* c, const int* ldc, std::size_t, std::size_t); \
    void IGB_FORTRAN(TRMM)(const char* side, const char* uplo, const char* trans, const char* diag, const int* m,      \
                           const int* n, const T* alpha, const T* a, const int* lda, T* b, const int* ldb,             \
                           std::size_t, std::size_t, std::size_t, std::size_t);                                        \
    void IGB_FORTRAN(TRSM)(const char* side, const char* uplo, const char* trans, const char* diag, const int* m,      \
                           const int* n, const T* alpha, const T* a, const int* lda, T* b, const int* ldb,             \
                           std::size_t, std::size_t, std::size_t, std::size_t);                                        \
    void IGB_FORTRAN(POTRF)(const char* uplo, const int* n, T* a, const int* lda, int* info, std::size_t)

extern "C" {
IGB_DECLARE_BLAS(float, sgemm, ssyrk, strmm, strsm, spotrf);
IGB_DECLARE_BLAS(double, dgemm, dsyrk, dtrmm, dtrsm, dpotrf);
#ifdef IGB_BLAS_SCIPY_OPENBLAS
void scipy_openblas_set_num_threads(int n);
const char* scipy_openblas_get_config();
#endif
}

namespace igb::blas {
namespace {

int narrow(std::size_t n, const char* name) {
    if (n > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
        throw std::length_error(std::string(name) + " = " + std::to_string(n) +
                                " is more than the BLAS can index (2147483647)");
    }
    return static_cast<int>(n);
}

// A leading dimension must be at least 1 even for an empty matrix.
int leading(std::size_t ld, const char* name) { return narrow(ld == 0 ? 1 : ld, name); }

#ifdef IGB_BLAS_SCIPY_OPENBLAS

// The copy is ours alone: told once, it stays on one thread.
class OneThread {
public:
    OneThread() {
        static const bool told = (scipy_openblas_set_num_threads(1), true);
        (void)told;
    }
};

std::string found_description() { return std::string(scipy_openblas_get_config()) + " (scipy-openblas32, bundled)"; }

#else

template <class F>
F* find(const char* name) {
    return reinterpret_cast<F*>(dlsym(RTLD_DEFAULT, name));
}

// How the library found is told its number of threads; a null setter says that it has none that we know.
struct ThreadControl {
    int (*exchange_local)(int) = nullptr;  // MKL: sets this thread's number, returns the former
    void (*set)(int) = nullptr;            // OpenBLAS, FlexiBLAS, BLIS: sets the process's
    int (*get)() = nullptr;
};

ThreadControl find_thread_control() {
    ThreadControl control;
    control.exchange_local = find<int(int)>("MKL_Set_Num_Threads_Local");
    if (control.exchange_local) return control;
    for (const char* family : {"flexiblas", "openblas"}) {
        control.set = find<void(int)>((std::string(family) + "_set_num_threads").c_str());
        control.get = find<int()>((std::string(family) + "_get_num_threads").c_str());
        if (control.set && control.get) return control;
    }
    return {};
}

const ThreadControl& thread_control() {
    static const ThreadControl control = find_thread_control();
    return control;
}

// While any of our calls runs, the library is on one thread; afterwards it has its former number again, since other
// parts of the process may share it.
class OneThread {
public:
    OneThread() {
        const ThreadControl& control = thread_control();
        if (control.exchange_local) former_local_ = control.exchange_local(1);
        if (!control.set) return;
        const std::lock_guard lock(mutex);
        if (calls++ == 0) {
            former = control.get();
            if (former != 1) control.set(1);
        }
    }
    ~OneThread() {
        const ThreadControl& control = thread_control();
        if (control.exchange_local) control.exchange_local(former_local_);
        if (!control.set) return;
        const std::lock_guard lock(mutex);
        if (--calls == 0 && former != 1) control.set(former);
    }
    OneThread(const OneThread&) = delete;
    OneThread& operator=(const OneThread&) = delete;

private:
    int former_local_ = 0;
    static inline std::mutex mutex;
    static inline int calls = 0;
    static inline int former = 1;
};

std::string found_description() {
    if (const auto config = find<char*()>("openblas_get_config")) return config();
    if (const auto version = find<void(char*, int)>("MKL_Get_Version_String")) {
        char text[256] = {};
        version(text, static_cast<int>(sizeof text) - 1);
        return text;
    }
    if (const auto version = find<const char*()>("bli_info_get_version_str")) return std::string("BLIS ") + version();
    Dl_info info{};
    if (dladdr(reinterpret_cast<void*>(&IGB_FORTRAN(sgemm)), &info) != 0 && info.dli_fname) return info.dli_fname;
    return "BLAS";
}

#endif

#define IGB_DEFINE_BLAS(T, GEMM, SYRK, TRMM, TRSM, POTRF)                                                              \
    void call_gemm(Trans transa, Trans transb, int m, int n, int k, T alpha, const T* a, int lda, const T* b, int ldb, \
                   T beta, T* c, int ldc) {                                                                            \
        const char ta = static_cast<char>(transa), tb = static_cast<char>(transb);                                     \
        IGB_FORTRAN(GEMM)(&ta, &tb, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c, &ldc, 1, 1);                       \
    }                                                                                                                  \
    void call_syrk(int n, int k, T alpha, const T* a, int lda, T beta, T* c, int ldc) {                                \
        IGB_FORTRAN(SYRK)("L", "T", &n, &k, &alpha, a, &lda, &beta, c, &ldc, 1, 1);                                    \
    }                                                                                                                  \
    void call_trmm(int m, int n, T alpha, const T* l, int ldl, T* b, int ldb) {                                        \
        IGB_FORTRAN(TRMM)("R", "L", "T", "N", &m, &n, &alpha, l, &ldl, b, &ldb, 1, 1, 1, 1);                           \
    }                                                                                                                  \
    void call_trsm(Trans trans, int n, int m, const T* l, int ldl, T* b, int ldb) {                                    \
        const char t = static_cast<char>(trans);                                                                       \
        const T one = 1;                                                                                               \
        IGB_FORTRAN(TRSM)("L", "L", &t, "N", &n, &m, &one, l, &ldl, b, &ldb, 1, 1, 1, 1);                              \
    }                                                                                                                  \
    int call_potrf(int n, T* a, int lda) {                                                                             \
        int info = 0;                                                                                                  \
        IGB_FORTRAN(POTRF)("L", &n, a, &lda, &info, 1);                                                                \
        return info;                                                                                                   \
    }

IGB_DEFINE_BLAS(float, sgemm, ssyrk, strmm, strsm, spotrf)
IGB_DEFINE_BLAS(double, dgemm, dsyrk, dtrmm, dtrsm, dpotrf)

template <class T>
void checked_gemm(Trans transa, Trans transb, std::size_t m, std::size_t n, std::size_t k, T alpha, const T* a,
                  std::size_t lda, const T* b, std::size_t ldb, T beta, T* c, std::size_t ldc) {
    const OneThread one;
    call_gemm(transa, transb, narrow(m, "m"), narrow(n, "n"), narrow(k, "k"), alpha, a, leading(lda, "lda"), b,
              leading(ldb, "ldb"), beta, c, leading(ldc, "ldc"));
}

template <class T>
void checked_syrk(std::size_t n, std::size_t k, T alpha, const T* a, std::size_t lda, T beta, T* c, std::size_t ldc) {
    const OneThread one;
    call_syrk(narrow(n, "n"), narrow(k, "k"), alpha, a, leading(lda, "lda"), beta, c, leading(ldc, "ldc"));
}

template <class T>
void checked_trmm(std::size_t m, std::size_t n, T alpha, const T* l, std::size_t ldl, T* b, std::size_t ldb) {
    const OneThread one;
    call_trmm(narrow(m, "m"), narrow(n, "n"), alpha, l, leading(ldl, "ldl"), b, leading(ldb, "ldb"));
}

template <class T>
void checked_trsm(Trans trans, std::size_t n, std::size_t m, const T* l, std::size_t ldl, T* b, std::size_t ldb) {
    const OneThread one;
    call_trsm(trans, narrow(n, "n"), narrow(m, "m"), l, leading(ldl, "ldl"), b, leading(ldb, "ldb"));
}

template <class T>
int checked_potrf(std::size_t n, T* a, std::size_t lda) {
    const OneThread one;
    return call_potrf(narrow(n, "n"), a, leading(lda, "lda"));
}

}  // namespace

void gemm(Trans transa, Trans transb, std::size_t m, std::size_t n, std::size_t k, float alpha, const float* a,
          std::size_t lda, const float* b, std::size_t ldb, float beta, float* c, std::size_t ldc) {
    checked_gemm(transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void gemm(Trans transa, Trans transb, std::size_t m, std::size_t n, std::size_t k, double alpha, const double* a,
          std::size_t lda, const double* b, std::size_t ldb, double beta, double* c, std::size_t ldc) {
    checked_gemm(transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void syrk_tn(std::size_t n, std::size_t k, float alpha, const float* a, std::size_t lda, float beta, float* c,
             std::size_t ldc) {
    checked_syrk(n, k, alpha, a, lda, beta, c, ldc);
}

void syrk_tn(std::size_t n, std::size_t k, double alpha, const double* a, std::size_t lda, double beta, double* c,
             std::size_t ldc) {
    checked_syrk(n, k, alpha, a, lda, beta, c, ldc);
}

void trmm_right_lower_transposed(std::size_t m, std::size_t n, float alpha, const float* l, std::size_t ldl, float* b,
                                 std::size_t ldb) {
    checked_trmm(m, n, alpha, l, ldl, b, ldb);
}

void trmm_right_lower_transposed(std::size_t m, std::size_t n, double alpha, const double* l, std::size_t ldl,
                                 double* b, std::size_t ldb) {
    checked_trmm(m, n, alpha, l, ldl, b, ldb);
}

void trsm_left_lower(Trans trans, std::size_t n, std::size_t m, const float* l, std::size_t ldl, float* b,
                     std::size_t ldb) {
    checked_trsm(trans, n, m, l, ldl, b, ldb);
}

void trsm_left_lower(Trans trans, std::size_t n, std::size_t m, const double* l, std::size_t ldl, double* b,
                     std::size_t ldb) {
    checked_trsm(trans, n, m, l, ldl, b, ldb);
}

int potrf_lower(std::size_t n, float* a, std::size_t lda) { return checked_potrf(n, a, lda); }

int potrf_lower(std::size_t n, double* a, std::size_t lda) { return checked_potrf(n, a, lda); }

std::string description() { return found_description(); }

}  // namespace igb::blas
