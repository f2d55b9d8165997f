// Each operation of blas.h against the sum that defines it, with leading dimensions larger than needed; what must not
// be written is not. Also from several threads at once, whose results must be the same to the last bit.
#include "cpu/blas.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"

namespace {

using igb::blas::Trans;

template <class T>
struct Matrix {
    std::size_t rows, columns, ld;
    std::vector<T> data;

    Matrix(std::size_t r, std::size_t c, std::uint32_t seed, std::size_t extra = 3)
        : rows(r), columns(c), ld(r + extra), data(ld * c) {
        for (T& value : data) {
            seed = seed * 1664525u + 1013904223u;
            value = static_cast<T>(static_cast<double>(seed) / 4294967296.0 - 0.5);
        }
    }
    T& operator()(std::size_t i, std::size_t j) { return data[i + j * ld]; }
    const T& operator()(std::size_t i, std::size_t j) const { return data[i + j * ld]; }
};

template <class T>
bool close(T got, double want, double scale) {
    return std::abs(static_cast<double>(got) - want) <= 4.0 * std::numeric_limits<T>::epsilon() * scale;
}

template <class T>
void gemm_multiplies() {
    const std::size_t m = 13, n = 7, k = 21;
    for (const Trans ta : {Trans::no, Trans::yes}) {
        for (const Trans tb : {Trans::no, Trans::yes}) {
            const Matrix<T> a(ta == Trans::no ? m : k, ta == Trans::no ? k : m, 1);
            const Matrix<T> b(tb == Trans::no ? k : n, tb == Trans::no ? n : k, 2);
            const Matrix<T> before(m, n, 3);
            Matrix<T> c = before;
            igb::blas::gemm(ta, tb, m, n, k, T(0.5), a.data.data(), a.ld, b.data.data(), b.ld, T(2), c.data.data(),
                            c.ld);
            for (std::size_t j = 0; j < n; ++j) {
                for (std::size_t i = 0; i < c.ld; ++i) {
                    double want = static_cast<double>(before(i, j));
                    if (i < m) want *= 2.0;
                    for (std::size_t l = 0; i < m && l < k; ++l) {
                        const T left = ta == Trans::no ? a(i, l) : a(l, i);
                        const T right = tb == Trans::no ? b(l, j) : b(j, l);
                        want += 0.5 * static_cast<double>(left) * static_cast<double>(right);
                    }
                    CHECK(i < m ? close(c(i, j), want, 4.0) : c(i, j) == before(i, j));
                }
            }
        }
    }
}

template <class T>
void gemm_with_beta_zero_does_not_read() {
    Matrix<T> a(2, 2, 1, 0), b(2, 2, 2, 0), c(2, 2, 3, 0);
    for (T& value : c.data) value = std::numeric_limits<T>::quiet_NaN();
    igb::blas::gemm(Trans::no, Trans::no, 2, 2, 2, T(1), a.data.data(), 2, b.data.data(), 2, T(0), c.data.data(), 2);
    for (const T value : c.data) CHECK(std::isfinite(value));
}

template <class T>
void syrk_fills_the_lower_triangle() {
    const std::size_t n = 9, k = 14;
    const Matrix<T> a(k, n, 4), before(n, n, 5);
    Matrix<T> c = before;
    igb::blas::syrk_tn(n, k, T(2), a.data.data(), a.ld, T(1), c.data.data(), c.ld);
    for (std::size_t j = 0; j < n; ++j) {
        for (std::size_t i = 0; i < n; ++i) {
            double want = static_cast<double>(before(i, j));
            for (std::size_t l = 0; l < k; ++l)
                want += 2.0 * static_cast<double>(a(l, i)) * static_cast<double>(a(l, j));
            CHECK(i >= j ? close(c(i, j), want, 8.0) : c(i, j) == before(i, j));
        }
    }
}

template <class T>
void trmm_multiplies_by_the_triangle() {
    const std::size_t m = 11, n = 6;
    const Matrix<T> l(n, n, 6), before(m, n, 7);
    Matrix<T> b = before;
    igb::blas::trmm_right_lower_transposed(m, n, T(3), l.data.data(), l.ld, b.data.data(), b.ld);
    for (std::size_t j = 0; j < n; ++j) {
        for (std::size_t i = 0; i < m; ++i) {
            double want = 0.0;
            for (std::size_t p = 0; p <= j; ++p)
                want += 3.0 * static_cast<double>(before(i, p)) * static_cast<double>(l(j, p));
            CHECK(close(b(i, j), want, 4.0));
        }
    }
}

template <class T>
void trsm_divides_by_the_triangle() {
    const std::size_t n = 6, m = 5;
    Matrix<T> l(n, n, 16), x(n, m, 17);
    for (std::size_t i = 0; i < n; ++i) l(i, i) += T(4);  // well conditioned
    for (const bool transposed : {false, true}) {
        Matrix<T> b = x;
        for (std::size_t j = 0; j < m; ++j) {
            for (std::size_t i = 0; i < n; ++i) {
                double product = 0.0;
                for (std::size_t p = 0; p < n; ++p) {
                    const bool inside = transposed ? p >= i : p <= i;
                    const double entry = static_cast<double>(transposed ? l(p, i) : l(i, p));
                    if (inside) product += entry * static_cast<double>(x(p, j));
                }
                b(i, j) = static_cast<T>(product);
            }
        }
        using igb::blas::Trans;
        igb::blas::trsm_left_lower(transposed ? Trans::yes : Trans::no, n, m, l.data.data(), l.ld, b.data.data(), b.ld);
        for (std::size_t j = 0; j < m; ++j)
            for (std::size_t i = 0; i < n; ++i) CHECK(close(b(i, j), static_cast<double>(x(i, j)), 16.0));
    }
}

template <class T>
void potrf_factors() {
    const std::size_t n = 8;
    const Matrix<T> root(20, n, 8);
    Matrix<T> a(n, n, 9);
    igb::blas::syrk_tn(n, 20, T(1), root.data.data(), root.ld, T(0), a.data.data(), a.ld);
    const Matrix<T> before = a;
    CHECK(igb::blas::potrf_lower(n, a.data.data(), a.ld) == 0);
    for (std::size_t j = 0; j < n; ++j) {
        for (std::size_t i = 0; i < n; ++i) {
            double product = 0.0;
            for (std::size_t p = 0; p <= j; ++p) product += static_cast<double>(a(i, p)) * static_cast<double>(a(j, p));
            CHECK(i >= j ? close(before(i, j), product, 8.0) : a(i, j) == before(i, j));
        }
    }
    a = before;
    a(4, 4) = T(-1);
    CHECK(igb::blas::potrf_lower(n, a.data.data(), a.ld) == 5);
}

void oversized_dimensions_are_refused() {
    const std::size_t huge = std::size_t{1} << 31;
    float x = 0.0f;
    CHECK_THROWS(std::length_error, igb::blas::syrk_tn(1, huge, 1.0f, &x, 1, 0.0f, &x, 1));
    CHECK_THROWS(std::length_error, igb::blas::potrf_lower(huge, &x, 1));
    CHECK(igb::blas::potrf_lower(0, &x, 0) == 0);
}

void threads_get_the_same_bits() {
    const std::size_t n = 150, k = 300;
    const Matrix<float> a(k, n, 10);
    const auto product = [&] {
        Matrix<float> c(n, n, 11);
        for (int repeat = 0; repeat < 10; ++repeat)
            igb::blas::syrk_tn(n, k, 1.0f, a.data.data(), a.ld, 0.5f, c.data.data(), c.ld);
        return c.data;
    };
    const std::vector<float> alone = product();
    std::vector<std::vector<float>> together(4);
    std::vector<std::thread> threads;
    for (auto& result : together) threads.emplace_back([&result, &product] { result = product(); });
    for (std::thread& thread : threads) thread.join();
    for (const auto& result : together) CHECK(result == alone);
}

template <class T>
void all() {
    gemm_multiplies<T>();
    gemm_with_beta_zero_does_not_read<T>();
    syrk_fills_the_lower_triangle<T>();
    trmm_multiplies_by_the_triangle<T>();
    trsm_divides_by_the_triangle<T>();
    potrf_factors<T>();
}

}  // namespace

int main() {
    all<float>();
    all<double>();
    oversized_dimensions_are_refused();
    threads_get_the_same_bits();
    CHECK(!igb::blas::description().empty());
    return failures();
}
