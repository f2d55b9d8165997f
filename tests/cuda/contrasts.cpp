// The kernels of cuda/contrasts.cu, run on the host, against lengths and angles of vectors in long double: means to
// 1e-13, histograms exactly, also where inputs are nearly the same (1 - c = 1e-14) and where some are zero.
#include "cuda/contrasts.cu"

#include <cmath>
#include <random>
#include <vector>

#include "check.h"

namespace {

using igb::histogram_bin;
using igb::histogram_bins;
using igb::cuda::Count;

constexpr std::int64_t nodes = 7;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// Networks of n inputs: origins in units[0], differences in units[1], column by column; some inputs are the origin's
// opposite, so that they are zero.
struct Layers {
    std::int64_t networks, n;
    std::vector<double> units, columns;

    Layers(std::int64_t g, std::int64_t count, double ratio, bool zeros)
        : networks(g), n(count), columns(at(g * count * nodes)) {
        std::mt19937_64 generator(static_cast<unsigned long>(31 * g + count));
        std::normal_distribution<double> normal;
        for (double& value : columns) value = normal(generator);
        for (std::int64_t i = 0; i < networks; ++i) {
            units.insert(units.end(), {std::ldexp(1.0, static_cast<int>(3 * i)), 0.0});
            units.back() = units[at(2 * i)] * ratio;
            for (std::int64_t a = 1; zeros && a < n; a += 3)
                for (std::int64_t k = 0; k < nodes; ++k) column(i, a)[k] = -column(i, 0)[k] / ratio;
        }
    }

    double* column(std::int64_t g, std::int64_t a) { return columns.data() + (g * n + a) * nodes; }
    const double* column(std::int64_t g, std::int64_t a) const { return columns.data() + (g * n + a) * nodes; }
    // Column a in units of the origin.
    long double value(std::int64_t g, std::int64_t a, std::int64_t k) const {
        return column(g, a)[k] * static_cast<long double>(units[at(2 * g + (a == 0 ? 0 : 1))] / units[at(2 * g)]);
    }
    // sum_k (of column a, on top of the origin if asked, times column b likewise).
    long double product(std::int64_t g, std::int64_t a, std::int64_t b) const {
        long double sum = 0.0L;
        for (std::int64_t k = 0; k < nodes; ++k) sum += value(g, a, k) * value(g, b, k);
        return sum;
    }
    // Lower triangles; nan is where nobody looks.
    std::vector<double> products() const {
        std::vector<double> result(at(networks * n * n), std::nan(""));
        for (std::int64_t g = 0; g < networks; ++g)
            for (std::int64_t b = 0; b < n; ++b)
                for (std::int64_t a = b; a < n; ++a) {
                    long double sum = 0.0L;
                    for (std::int64_t k = 0; k < nodes; ++k)
                        sum += static_cast<long double>(column(g, a)[k]) * column(g, b)[k];
                    result[at((g * n + b) * n + a)] = static_cast<double>(sum);
                }
        return result;
    }
};

struct Sums {
    long double q = 0.0L, c = 0.0L;
    std::int64_t pairs = 0;
    std::vector<Count> q_bins = std::vector<Count>(at(histogram_bins)), c_bins = q_bins;
};

Sums expected(const Layers& y, std::int64_t g, bool zeros) {
    Sums sums;
    const long double width = nodes, unit2 = y.units[at(2 * g)] * y.units[at(2 * g)];
    const auto is_zero = [&](std::int64_t a) { return zeros && a % 3 == 1; };
    const auto own = [&](std::int64_t a, std::int64_t k) { return a == 0 ? 0.0L : y.value(g, a, k); };
    std::vector<long double> norm(at(y.n));
    for (std::int64_t a = 0; a < y.n; ++a) {
        for (std::int64_t k = 0; k < nodes; ++k) {
            const long double whole = y.value(g, 0, k) + own(a, k);
            norm[at(a)] += is_zero(a) ? 0.0L : whole * whole;
        }
        sums.q += norm[at(a)] / width;
        ++sums.q_bins[histogram_bin(static_cast<double>(unit2 * norm[at(a)] / width))];
    }
    for (std::int64_t b = 0; b < y.n; ++b) {
        for (std::int64_t a = b + 1; a < y.n; ++a) {
            if (is_zero(a) || is_zero(b)) continue;
            ++sums.pairs;
            const long double size_a = std::sqrt(norm[at(a)]), size_b = std::sqrt(norm[at(b)]);
            long double apart = 0.0L, longer = 0.0L;  // |y_a - y_b|^2, |y_a|^2 - |y_b|^2
            for (std::int64_t k = 0; k < nodes; ++k) {
                const long double away = own(a, k) - own(b, k);
                apart += away * away;
                longer += away * (2.0L * y.value(g, 0, k) + own(a, k) + own(b, k));
            }
            longer /= size_a + size_b;
            const long double less = 0.5L * (apart - longer * longer) / (size_a * size_b);
            sums.c += 1.0L - less;
            ++sums.c_bins[histogram_bin(static_cast<double>(less))];
        }
    }
    return sums;
}

template <class T>
void same_as_vectors(std::int64_t networks, std::int64_t n, double ratio, bool zeros, bool with_histograms) {
    const Layers y(networks, n, ratio, zeros);
    const std::vector<double> products = y.products();
    const double poison = -12345.0;
    std::vector<double> sums(at(4 * networks + 1), poison), rows(at(networks * n), poison);
    std::vector<igb::InputLength> lengths(at(networks * n), {poison, poison, poison, poison});
    std::vector<Count> q_bins(at(networks * histogram_bins), 1), c_bins(q_bins);  // what is there stays
    igb::cuda::contrasts<T>(nullptr, {networks, n, double{nodes}}, products.data(), y.units.data(),
                            {lengths.data(), rows.data()}, sums.data(), with_histograms ? q_bins.data() : nullptr,
                            with_histograms ? c_bins.data() : nullptr);
    CHECK(sums.back() == poison);
    for (std::int64_t g = 0; g < networks; ++g) {
        const Sums want = expected(y, g, zeros);
        const double* const got = sums.data() + 4 * g;
        CHECK_CLOSE(got[0], want.q, 1e-12 * static_cast<double>(want.q));
        CHECK(got[1] == static_cast<double>(n));
        CHECK_CLOSE(got[2], want.c, 1e-13 * static_cast<double>(n * n));
        CHECK(got[3] == static_cast<double>(want.pairs));
        bool same = true;
        for (std::int64_t bin = 0; bin < histogram_bins; ++bin) {
            const Count q = with_histograms ? want.q_bins[at(bin)] : 0, c = with_histograms ? want.c_bins[at(bin)] : 0;
            same &= q_bins[at(g * histogram_bins + bin)] == q + 1 && c_bins[at(g * histogram_bins + bin)] == c + 1;
        }
        CHECK(same);
    }
}

template <class T>
void sizes() {
    same_as_vectors<T>(1, 1, 1.0, false, true);
    same_as_vectors<T>(3, 2, 0.5, false, true);
    same_as_vectors<T>(2, 17, 1.0, true, true);
    same_as_vectors<T>(1, 17, 1e-7, false, true);
#ifndef IGB_HOST_THREADS
    same_as_vectors<T>(2, 130, 1e-3, false, true);
    same_as_vectors<T>(1, 300, 2.0, false, false);
    same_as_vectors<T>(1, 513, 0.25, true, true);
    same_as_vectors<T>(0, 5, 1.0, false, true);
#endif
}

}  // namespace

int main() {
    sizes<float>();
    sizes<double>();
    return summary();
}
