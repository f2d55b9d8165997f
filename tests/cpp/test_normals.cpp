// Standard normals: their definition by Philox words, spelt out again in long double; every instruction set against the
// one-element definition; then their law: moments, Kolmogorov-Smirnov, tails far out, independence. Seeds are fixed, so
// the statistical checks (5 standard errors) pass or fail for good.
#include "core/normal.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numbers>
#include <vector>

#include "check.h"
#include "cpu/kernels.h"

namespace {

using igb::PhiloxWords;
using igb::StreamId;

constexpr double errors = 5.0;  // allowed, in standard errors

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
constexpr std::uint64_t scale = 32;  // fewer numbers where each takes long
#else
constexpr std::uint64_t scale = 1;
#endif

template <class T>
constexpr bool single = std::is_same_v<T, float>;

template <class T>
void fill(const StreamId& id, std::uint32_t row, std::uint64_t begin, std::uint64_t count, T* out) {
    if constexpr (single<T>) {
        igb::kernels().tile_f32.normals(id, row, begin, count, out);
    } else {
        igb::kernels().tile_f64.normals(id, row, begin, count, out);
    }
}

template <class T>
std::vector<T> draw(const StreamId& id, std::uint32_t row, std::uint64_t begin, std::uint64_t count) {
    std::vector<T> out(count);
    fill(id, row, begin, count, out.data());
    return out;
}

// ---- Definition -----------------------------------------------------------------------------------------------------

// Philox words to normals once more, by the text of core/normal.h and the long double library.
long double by_definition(bool in_single, const StreamId& id, std::uint32_t row, std::uint64_t column) {
    const std::uint64_t block = in_single ? 64 : 32, b = column / block, k = column % block / 16, j = column % 16;
    const PhiloxWords w =
        igb::philox4x32({static_cast<std::uint32_t>(16 * b + j), row, id.layer + (id.stream << 24), id.network},
                        {static_cast<std::uint32_t>(id.seed & 0xFFFFFFFFu), static_cast<std::uint32_t>(id.seed >> 32)});
    long double u, turn;
    if (in_single) {
        const std::uint32_t x = k < 2 ? w.x0 : w.x2, v = k < 2 ? w.x1 : w.x3;
        u = static_cast<float>(x) * 0x1p-32f + 0x1p-33f;  // as rounded: ln u is steep near one
        turn = v * 0x1p-32L;
    } else {
        const std::uint64_t x = (std::uint64_t{w.x0} << 32) + w.x1, v = (std::uint64_t{w.x2} << 32) + w.x3;
        u = (static_cast<long double>(x >> 12) + 0.5L) * 0x1p-52L;
        turn = static_cast<long double>(v >> 10) * 0x1p-54L;
    }
    const long double r = std::sqrt(-2.0L * std::log(u)), angle = 2.0L * std::numbers::pi_v<long double> * turn;
    return k % 2 == 0 ? r * std::cos(angle) : r * std::sin(angle);
}

template <class T>
void check_definition() {
    const StreamId ids[] = {{0, 0, 0, 0}, {0xFEDCBA9876543210u, 7, 0xFFFFFF, 3}, {1, 0xFFFFFFFFu, 12, 1}};
    const std::uint64_t last = igb::NormalLayout<T>::columns - 1;
    double worst = 0.0;
    for (const StreamId& id : ids) {
        for (const std::uint32_t row : {0u, 1u, 0x80000000u}) {
            for (std::uint64_t i = 0; i < 300; ++i) {
                for (const std::uint64_t column : {i, last - i}) {
                    const long double reference = by_definition(single<T>, id, row, column);
                    const auto error = std::abs(igb::normal_at<T>(id, row, column) - reference);
                    worst = std::max(worst, static_cast<double>(error));
                }
            }
        }
    }
    CHECK_CLOSE(worst, 0.0, single<T> ? 1e-6 : 2e-15);
}

// The arrays of the instruction set in use: elementwise the definition up to rounding, and to the last bit the same
// numbers however a row is cut.
template <class T>
void check_arrays() {
    const StreamId id{0x0123456789ABCDEFu, 3, 5, 2};
    constexpr std::uint64_t columns = 1000;
    const std::vector<T> row = draw<T>(id, 9, 0, columns);
    double worst = 0.0;
    for (std::uint64_t i = 0; i < columns; ++i) {
        const double reference = static_cast<double>(igb::normal_at<T>(id, 9, i));
        worst = std::max(worst, std::abs(static_cast<double>(row[i]) - reference) / std::abs(reference));
    }
    CHECK_CLOSE(worst, 0.0, single<T> ? 1e-6 : 2e-15);

    bool same = true, kept = true;
    for (const std::uint64_t begin : {0u, 64u, 128u, 640u}) {
        for (std::uint64_t count = 0; count <= 200; ++count) {
            std::vector<T> part(count + 1, T{77});
            fill(id, 9, begin, count, part.data());
            same = same && std::memcmp(part.data(), row.data() + begin, count * sizeof(T)) == 0;
            kept = kept && part[count] == T{77};  // nothing is written beyond the end
        }
    }
    CHECK(same);
    CHECK(kept);
    const std::uint64_t far = igb::NormalLayout<T>::columns - 64;
    const std::vector<T> end = draw<T>(id, 9, far, 64);
    CHECK_CLOSE(end[63], igb::normal_at<T>(id, 9, far + 63), 1e-6);
}

// ---- Law ------------------------------------------------------------------------------------------------------------

// Mean powers 1 .. 6 against 0, 1, 0, 3, 0, 15; var(x^k) = E[x^2k] - E[x^k]^2.
template <class T>
void check_moments() {
    constexpr double moment[13] = {1, 0, 1, 0, 3, 0, 15, 0, 105, 0, 945, 0, 10395};
    constexpr std::uint64_t columns = 4096, rows = 2048 / scale;
    double sum[7] = {};
    for (std::uint32_t row = 0; row < rows; ++row) {
        for (const T value : draw<T>({2024, 0, 1, 0}, row, 0, columns)) {
            const double x = static_cast<double>(value);
            double power = 1.0;
            for (int k = 1; k <= 6; ++k) sum[k] += power *= x;
        }
    }
    const double n = static_cast<double>(columns * rows);
    for (int k = 1; k <= 6; ++k) {
        CHECK_CLOSE(sum[k] / n, moment[k], errors * std::sqrt((moment[2 * k] - moment[k] * moment[k]) / n));
    }
}

// sqrt(n) D exceeds 2.5 once in 130,000 times.
template <class T>
void check_distribution() {
    std::vector<T> x = draw<T>({99, 1, 2, 1}, 4, 0, (1u << 21) / scale);
    std::sort(x.begin(), x.end());
    const double n = static_cast<double>(x.size());
    double distance = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double below = 0.5 * std::erfc(-static_cast<double>(x[i]) * std::numbers::sqrt2 / 2);
        distance = std::max({distance, below - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - below});
    }
    CHECK_CLOSE(std::sqrt(n) * distance, 0.0, 2.5);
}

// How many lie beyond 3, 4, 5 and 5.5 standard deviations, on each side.
template <class T>
void check_tails(std::uint64_t count) {
    constexpr int levels = 4;
    constexpr double level[levels] = {3.0, 4.0, 5.0, 5.5};
    constexpr std::uint64_t columns = 8192;
    const std::uint64_t rows = count / scale / columns;
    std::vector<T> x(columns);
    std::uint64_t above[levels] = {}, below[levels] = {};
    for (std::uint64_t row = 0; row < rows; ++row) {
        fill({31415926535u, 2, 3, 0}, static_cast<std::uint32_t>(row), 0, columns, x.data());
        for (int k = 0; k < levels; ++k) {
            const T t = static_cast<T>(level[k]);
            int over = 0, under = 0;
#pragma omp simd reduction(+ : over, under)
            for (std::uint64_t i = 0; i < columns; ++i) {
                over += x[i] > t;
                under += x[i] < -t;
            }
            above[k] += static_cast<std::uint64_t>(over);
            below[k] += static_cast<std::uint64_t>(under);
        }
    }
    for (int k = 0; k < levels; ++k) {
        const double p = 0.5 * std::erfc(level[k] / std::numbers::sqrt2);
        const double expected = p * static_cast<double>(rows * columns);
        if (expected < 10.0) continue;  // the short run under sanitizers
        CHECK_CLOSE(above[k], expected, errors * std::sqrt(expected));
        CHECK_CLOSE(below[k], expected, errors * std::sqrt(expected));
    }
}

// Correlations of values and of squares between what lies shift apart in one array, or in the same place of two arrays.
template <class T>
void check_uncorrelated(const std::vector<T>& a, const std::vector<T>& b, std::size_t shift) {
    double product = 0.0, squares = 0.0;
    const std::size_t n = a.size() - shift;
    for (std::size_t i = 0; i < n; ++i) {
        const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i + shift]);
        product += x * y;
        squares += (x * x - 1.0) * (y * y - 1.0);
    }
    const double root = std::sqrt(static_cast<double>(n));
    CHECK_CLOSE(product / root, 0.0, errors);        // variance 1 a term
    CHECK_CLOSE(squares / root / 2.0, 0.0, errors);  // variance 4 a term
}

template <class T>
void check_independence() {
    constexpr std::uint64_t n = 1u << 18;
    const StreamId id{5, 6, 7, 0};
    const std::vector<T> x = draw<T>(id, 8, 0, n);
    for (const std::size_t shift : {1u, 2u, 3u, 8u, 15u, 16u, 17u, 32u, 48u, 64u, 128u, 4096u}) {
        check_uncorrelated(x, x, shift);
    }
    check_uncorrelated(x, draw<T>(id, 9, 0, n), 0);
    check_uncorrelated(x, draw<T>(id, 8 + (1u << 31), 0, n), 0);
    check_uncorrelated(x, draw<T>({5, 7, 7, 0}, 8, 0, n), 0);                             // network
    check_uncorrelated(x, draw<T>({5, 6, 8, 0}, 8, 0, n), 0);                             // layer
    check_uncorrelated(x, draw<T>({6, 6, 7, 0}, 8, 0, n), 0);                             // seed
    check_uncorrelated(x, draw<T>({5 + (std::uint64_t{1} << 32), 6, 7, 0}, 8, 0, n), 0);  // its upper half
    for (const std::uint32_t stream : {1u, 2u, 3u}) check_uncorrelated(x, draw<T>({5, 6, 7, stream}, 8, 0, n), 0);
}

template <class T>
void check_all() {
    check_definition<T>();
    int sets = 0;
    const char* const* names = igb::available_isas(&sets);
    for (int i = 0; i < sets; ++i) {
        CHECK(igb::select_isa(names[i]));
        check_arrays<T>();
    }
    check_moments<T>();
    check_distribution<T>();
    check_tails<T>(single<T> ? 1u << 29 : 1u << 28);
    check_independence<T>();
}

}  // namespace

int main() {
    check_all<float>();
    check_all<double>();
    return summary();
}
