// Haar matrices: the blocked products against one reflection after the other in long double; orthogonality to rounding,
// the transpose, the same bits on any number of threads; then the law: moments of entries (Weingarten's), traces,
// determinants. Seeds are fixed, so the statistical checks (5 standard errors) pass or fail for good.
#include "cpu/haar.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace {

using igb::at;
using igb::Size;
using igb::StreamId;

constexpr double errors = 5.0;  // allowed, in standard errors
constexpr StreamId id{0x0123456789ABCDEFu, 3, 5, 0};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
constexpr Size scale = 16;  // fewer matrices where each takes long
#else
constexpr Size scale = 1;
#endif

template <class T>
using Matrix = std::vector<T>;  // column-major

template <class T>
Matrix<T> identity(Size rows, Size columns) {
    Matrix<T> x(at(rows * columns), T{0});
    for (Size i = 0; i < std::min(rows, columns); ++i) x[at(i + i * rows)] = T{1};
    return x;
}

template <class T>
Matrix<T> normal_matrix(Size rows, Size columns) {
    Matrix<T> x(at(rows * columns));
    for (Size a = 0; a < columns; ++a) {
        igb::fill_normals({1, 0, 0, 3}, static_cast<std::uint32_t>(a), 0, rows, x.data() + a * rows);
    }
    return x;
}

template <class T>
void apply(const StreamId& from, Size order, bool transposed, Size columns, Matrix<T>& x,
           Size leading = igb::all_columns) {
    igb::Monitor monitor;
    igb::apply_haar(from, order, transposed, columns, x.data(), order, igb::max_workers(), monitor, leading);
}

template <class T>
Matrix<T> haar(const StreamId& from, Size order, bool transposed = false) {
    Matrix<T> q = identity<T>(order, order);
    apply(from, order, transposed, order, q);
    return q;
}

template <class T>
double largest_difference(const Matrix<T>& a, const Matrix<T>& b) {
    double worst = a.size() == b.size() ? 0.0 : 1.0;
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
        worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    }
    return worst;
}

constexpr double rounding(float) { return 3e-6; }
constexpr double rounding(double) { return 1e-14; }

// ---- Matrix ---------------------------------------------------------------------------------------------------------

// Q = H_0 H_1 ... H_(n-1) D by the text of haar.cpp, in long double: H_i takes x_i to -s_i |x_i| e_1, D_ii = -s_i.
template <class T>
Matrix<long double> by_definition(Size n) {
    Matrix<long double> q = identity<long double>(n, n);
    for (Size i = n - 1; i >= 0; --i) {
        std::vector<T> row(at(n));
        igb::fill_normals(id, static_cast<std::uint32_t>(i), 0, n, row.data());
        std::vector<long double> v(row.begin() + i, row.end());
        long double square = 0.0L;
        for (const long double value : v) square += value * value;
        const long double s = v[0] < 0.0L ? -1.0L : 1.0L;
        v[0] += s * std::sqrt(square);
        long double norm2 = 0.0L;
        for (const long double value : v) norm2 += value * value;
        for (Size a = 0; a < n; ++a) {
            long double* const column = q.data() + a * n + i;
            if (a == i) column[0] *= -s;
            long double product = 0.0L;
            for (std::size_t j = 0; j < v.size(); ++j) product += v[j] * column[j];
            for (std::size_t j = 0; j < v.size(); ++j) column[j] -= 2.0L * product / norm2 * v[j];
        }
    }
    return q;
}

template <class T>
void check_matrix(Size order) {
    const Matrix<T> q = haar<T>(id, order), transpose = haar<T>(id, order, true);
    double worst = 0.0, turned = 0.0;
    for (Size a = 0; a < order; ++a) {
        for (Size b = 0; b <= a; ++b) {
            double product = a == b ? -1.0 : 0.0;
            for (Size i = 0; i < order; ++i) {
                product += static_cast<double>(q[at(i + a * order)]) * static_cast<double>(q[at(i + b * order)]);
            }
            worst = std::max(worst, std::abs(product));
        }
        for (Size i = 0; i < order; ++i) {
            const T difference = q[at(i + a * order)] - transpose[at(a + i * order)];
            turned = std::max(turned, std::abs(static_cast<double>(difference)));
        }
    }
    CHECK_CLOSE(worst, 0.0, rounding(T{}));
    CHECK_CLOSE(turned, 0.0, rounding(T{}));
    if (order > 200) return;
    const Matrix<long double> reference = by_definition<T>(order);
    CHECK_CLOSE(largest_difference(Matrix<long double>(q.begin(), q.end()), reference), 0.0, rounding(T{}));
}

// Q^T Q X = X, with padding between the columns of X, which stays as it is.
template <class T>
void check_inverse(Size order, Size columns) {
    const Size ld = order + 5;
    Matrix<T> x(at(ld * columns), T{77});
    const Matrix<T> start = normal_matrix<T>(order, columns);
    for (Size i = 0; i < order * columns; ++i) x[at(i / order * ld + i % order)] = start[at(i)];
    const Matrix<T> kept = x;
    igb::Monitor monitor;
    igb::apply_haar(id, order, false, columns, x.data(), ld, igb::max_workers(), monitor);
    for (Size a = 0; a < columns; ++a) {
        for (Size i = order; i < ld; ++i) CHECK(x[at(i + a * ld)] == T{77});
        double before = 0.0, after = 0.0;
        for (Size i = a * ld; i < a * ld + order; ++i) {
            before += static_cast<double>(kept[at(i)]) * static_cast<double>(kept[at(i)]);
            after += static_cast<double>(x[at(i)]) * static_cast<double>(x[at(i)]);
        }
        CHECK_CLOSE(after / before, 1.0, rounding(T{}));
    }
    CHECK(largest_difference(x, kept) > 0.1);
    igb::apply_haar(id, order, true, columns, x.data(), ld, igb::max_workers(), monitor);
    CHECK_CLOSE(largest_difference(x, kept), 0.0, 10.0 * rounding(T{}));
}

// Only some leading columns of Q: zeros beyond them on entry, nothing of meaning beyond them on return.
template <class T>
void check_leading(Size order, Size leading) {
    constexpr Size columns = 7;
    const Matrix<T> start = normal_matrix<T>(order, columns);
    Matrix<T> x = start;
    for (Size i = 0; i < order * columns; ++i) {
        if (i % order >= leading) x[at(i)] = T{0};
    }
    Matrix<T> full = x;
    apply(id, order, false, columns, x, leading);
    apply(id, order, false, columns, full);
    CHECK_CLOSE(largest_difference(x, full), 0.0, 10.0 * rounding(T{}));

    x = full = start;
    apply(id, order, true, columns, x, leading);
    apply(id, order, true, columns, full);
    for (Size i = 0; i < order * columns; ++i) {
        if (i % order >= leading) x[at(i)] = full[at(i)];
    }
    CHECK_CLOSE(largest_difference(x, full), 0.0, 10.0 * rounding(T{}));
}

template <class T>
void check_threads(Size order, Size columns) {
    for (const bool transposed : {false, true}) {
        Matrix<T> one = normal_matrix<T>(order, columns), inside = one;
        const Matrix<T> start = one;
        igb::set_num_threads(1);
        apply(id, order, transposed, columns, one);
        for (const int threads : {2, 3}) {
            igb::set_num_threads(threads);
            Matrix<T> several = start;
            apply(id, order, transposed, columns, several);
            CHECK(std::memcmp(several.data(), one.data(), one.size() * sizeof(T)) == 0);
        }
        igb::parallel_for(2, [&](std::size_t index, int) {
            if (index == 1) apply(id, order, transposed, columns, inside);
        });
        CHECK(std::memcmp(inside.data(), one.data(), one.size() * sizeof(T)) == 0);
    }
    igb::set_num_threads(2);
}

// Told to stop at its first look: on one thread nothing is done; on several, what runs by then ends and no one waits
// for ever (which would be this test's failure).
void check_stop() {
    constexpr Size order = 1500;
    const Matrix<double> start = normal_matrix<double>(order, 2);
    for (const int threads : {1, 2, 3, 3, 3}) {
        igb::set_num_threads(threads);
        Matrix<double> x = start;
        int calls = 0;
        igb::Monitor monitor([&](double) { return ++calls > 1; });
        std::this_thread::sleep_for(std::chrono::milliseconds(120));  // it looks ten times a second
        igb::apply_haar(id, order, false, 2, x.data(), order, threads, monitor);
        if (threads == 1) CHECK(calls > 0 && monitor.stopped() && x == start);
    }
}

// ---- Law ------------------------------------------------------------------------------------------------------------

// The mean of what was added, against what it should be, in standard errors of the sample.
class Mean {
public:
    void add(double x) {
        ++count_;
        sum_ += x;
        squares_ += x * x;
    }
    void check(double expected) const {
        const double mean = sum_ / count_, variance = std::max(squares_ / count_ - mean * mean, 0.0);
        CHECK_CLOSE(mean, expected, errors * std::sqrt(variance / count_) + 1e-12);
    }

private:
    double count_ = 0.0, sum_ = 0.0, squares_ = 0.0;
};

double determinant(Matrix<double> a, Size n) {
    double result = 1.0;
    for (Size k = 0; k < n; ++k) {
        Size pivot = k;
        for (Size i = k; i < n; ++i) {
            if (std::abs(a[at(i + k * n)]) > std::abs(a[at(pivot + k * n)])) pivot = i;
        }
        if (pivot != k) result = -result;
        for (Size j = k; j < n; ++j) std::swap(a[at(k + j * n)], a[at(pivot + j * n)]);
        result *= a[at(k + k * n)];
        for (Size i = k + 1; i < n; ++i) {
            const double factor = a[at(i + k * n)] / a[at(k + k * n)];
            for (Size j = k; j < n; ++j) a[at(i + j * n)] -= factor * a[at(k + j * n)];
        }
    }
    return result;
}

// Entries of O(n) (Collins and Sniady, Commun. Math. Phys. 264, 2006) and traces: as many moments of a standard
// normal's as n allows (Diaconis and Shahshahani 1994), E tr Q = 0, E (tr Q)^2 = 1, E (tr Q)^4 = 3, E tr Q^2 = 1. One
// matrix each for many networks; each pair of entries, not only the first ones, since the reflections treat them
// differently.
void check_law(Size n) {
    const Size matrices = 40000 / scale;
    const double d = static_cast<double>(n), rest = d * (d - 1.0) * (d + 2.0);
    std::vector<Mean> first(at(n * n)), second(at(n * n)), fourth(at(n * n));
    Mean same_row, same_column, apart, crossed, trace, trace2, trace4, square_trace, sign;
    double worst = 0.0;
    for (Size m = 0; m < matrices; ++m) {
        const Matrix<double> q = haar<double>({11, static_cast<std::uint32_t>(m), 1, 0}, n);
        const auto entry = [&](Size i, Size j) { return q[at(i + j * n)]; };
        double tr = 0.0, tr_of_square = 0.0;
        for (Size i = 0; i < n; ++i) {
            tr += entry(i, i);
            for (Size j = 0; j < n; ++j) {
                const double x = entry(i, j);
                first[at(i + j * n)].add(x);
                second[at(i + j * n)].add(x * x);
                fourth[at(i + j * n)].add(x * x * x * x);
                tr_of_square += x * entry(j, i);
            }
        }
        trace.add(tr);
        trace2.add(tr * tr);
        trace4.add(tr * tr * tr * tr);
        square_trace.add(tr_of_square);
        const Size i = m % n, k = (i + 1) % n, j = m / n % n, l = (j + 1) % n;  // each pair in turn
        const auto square = [&](Size a, Size b) { return entry(a, b) * entry(a, b); };
        same_row.add(square(i, j) * square(i, l));
        same_column.add(square(i, j) * square(k, j));
        apart.add(square(i, j) * square(k, l));
        crossed.add(entry(i, j) * entry(k, l) * entry(i, l) * entry(k, j));
        const double det = determinant(q, n);
        worst = std::max(worst, std::abs(std::abs(det) - 1.0));
        sign.add(det);
    }
    for (std::size_t e = 0; e < first.size(); ++e) {
        first[e].check(0.0);
        second[e].check(1.0 / d);
        fourth[e].check(3.0 / (d * (d + 2.0)));
    }
    same_row.check(1.0 / (d * (d + 2.0)));
    same_column.check(1.0 / (d * (d + 2.0)));
    apart.check((d + 1.0) / rest);
    crossed.check(-1.0 / rest);
    trace.check(0.0);
    trace2.check(1.0);
    trace4.check(3.0);
    square_trace.check(1.0);
    sign.check(0.0);
    CHECK_CLOSE(worst, 0.0, 1e-14);
}

void check_sign_of_order_one() {
    Mean sign;
    double worst = 0.0;
    for (std::uint32_t m = 0; m < 10000 / scale; ++m) {
        const double q = haar<double>({11, m, 1, 0}, 1)[0];
        worst = std::max(worst, std::abs(std::abs(q) - 1.0));
        sign.add(q);
    }
    sign.check(0.0);
    CHECK_CLOSE(worst, 0.0, 1e-15);
}

// The coordinates of a uniform point of the sphere in three dimensions are uniform in [-1, 1] (Archimedes), for each
// entry of Q, also those that the last reflection makes. sqrt(n) D exceeds 2.5 once in 130,000 times.
void check_archimedes() {
    const Size matrices = 20000 / scale;
    std::vector<std::vector<double>> entries(9);
    for (Size m = 0; m < matrices; ++m) {
        const Matrix<float> q = haar<float>({12, static_cast<std::uint32_t>(m), 1, 0}, 3);
        for (std::size_t e = 0; e < 9; ++e) entries[e].push_back(static_cast<double>(q[e]));
    }
    for (std::vector<double>& x : entries) {
        std::sort(x.begin(), x.end());
        const double n = static_cast<double>(x.size());
        double distance = 0.0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const double below = 0.5 + 0.5 * x[i], rank = static_cast<double>(i);
            distance = std::max({distance, below - rank / n, (rank + 1.0) / n - below});
        }
        CHECK_CLOSE(std::sqrt(n) * distance, 0.0, 2.5);
    }
}

template <class T>
void check_all() {
    for (const Size order : {1, 2, 3, 63, 64, 65, 130, 600}) check_matrix<T>(order);
    check_inverse<T>(1, 3);
    check_inverse<T>(1025, 3);
    check_inverse<T>(130, 514);  // two panels of columns
    check_inverse<T>(577, 1);
    for (const Size leading : {1, 63, 64, 65, 200, 577, 600}) check_leading<T>(577, leading);
    check_threads<T>(1100, 30);
    check_threads<T>(520, 600);
}

}  // namespace

int main() {
    igb::set_num_threads(2);
    check_all<float>();
    check_all<double>();
    check_stop();
    igb::set_num_threads(1);  // for matrices this small
    for (const Size order : {2, 3, 5}) check_law(order);
    check_sign_of_order_one();
    check_archimedes();
    return summary();
}
