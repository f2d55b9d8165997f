// The pairs of one layer (see covariance_rows.h and core/covariance_pairs.h), compiled once for each instruction set.
#include "cpu/covariance_rows.h"

#include "core/activations.h"
#include "core/config.h"
#include "core/covariance_pairs.h"
#include "cpu/kernels.h"

namespace igb::inline IGB_ISA {

namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif
constexpr int width = vector_bytes / 8;
constexpr int block = static_cast<int>(pair_block);

typedef double Vector __attribute__((vector_size(vector_bytes)));

IGB_HD Vector load(const double* from) {
    Vector v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

// ---- Pairs ----------------------------------------------------------------------------------------------------------

// One row of pairs, what all of them share.
struct Row {
    std::int64_t a, first, columns;
    const double *covariance, *distance;
    double *product, *spread;

    IGB_HD Row(const InputView& in, const PairRows& rows, const PairSink& sink, int r)
        : a(rows.first + r), first(rows.first), columns(in.padded - rows.first) {
        const std::int64_t offset = r * columns;
        covariance = rows.covariance + offset;
        distance = rows.distance + offset;
        product = sink.product + offset;
        spread = sink.spread + offset;
    }
};

// ---- Series ---------------------------------------------------------------------------------------------------------

// With x = c, or c^2 where phi has a parity, and partial sums b_n = f_na f_nb + x b_(n+1) of Horner's rule:
//     sum_n f_na f_nb x^n = b_0,   sum_n f_na f_nb (1 - x^n) = (1 - x) sum_(n > 0) b_n
template <unsigned rows>
IGB_HD void sum_series(const PairSeriesView& view, const double* series_a, const double* series_b,
                       const double (*x)[block], double (*first)[block], double (*rest)[block]) {
    for (int v = 0; v < block; v += width) {
        Vector power[rows], partial[rows], sum[rows];
        for (unsigned r = 0; r < rows; ++r) {
            power[r] = load(x[r] + v);
            partial[r] = Vector{};
            sum[r] = Vector{};
        }
        for (std::int64_t n = view.terms - 1; n > 0; --n) {
            const Vector f_b = load(series_b + n * block + v);
            for (unsigned r = 0; r < rows; ++r) {
                partial[r] = f_b * series_a[n * block + r] + power[r] * partial[r];
                sum[r] += partial[r];
            }
        }
        const Vector f_b = load(series_b + v);
        for (unsigned r = 0; r < rows; ++r) {
            partial[r] = f_b * series_a[r] + power[r] * partial[r];
            __builtin_memcpy(first[r] + v, &partial[r], sizeof(Vector));
            __builtin_memcpy(rest[r] + v, &sum[r], sizeof(Vector));
        }
    }
}

// sum_j (u_ja - u_jb)^2 / 2
template <unsigned rows>
IGB_HD void sum_features(const PairSeriesView& view, const double* feature_a, const double* feature_b,
                         double (*apart)[block]) {
    for (int v = 0; v < block; v += width) {
        Vector sum[rows];
        for (unsigned r = 0; r < rows; ++r) sum[r] = Vector{};
        for (std::int64_t j = 0; j < view.features; ++j) {
            const Vector u_b = load(feature_b + j * block + v);
            for (unsigned r = 0; r < rows; ++r) {
                const Vector change = u_b - feature_a[j * block + r];
                sum[r] += change * change;
            }
        }
        for (unsigned r = 0; r < rows; ++r) {
            sum[r] *= 0.5 * view.feature_scale2;
            __builtin_memcpy(apart[r] + v, &sum[r], sizeof(Vector));
        }
    }
}

constexpr int row_group = 4;  // rows whose sums stay in registers together

// What the variances alone make, of all pairs.
IGB_HD void add_apart(const InputView& in, const PairSeriesView& view, double weight, const PairRows& rows,
                      PairSink& sink) {
    const std::int64_t features = view.features * pair_block;
    if (features == 0) return;
    for (int r0 = 0; r0 < block; r0 += row_group) {
        const double* const feature_a = view.feature + rows.first / pair_block * features + r0;
        for (std::int64_t b = rows.first; b < in.padded; b += pair_block) {
            alignas(64) double apart[row_group][block];
            sum_features<row_group>(view, feature_a, view.feature + b / pair_block * features, apart);
            for (int r = 0; r < row_group; ++r) {
                double* const spread = sink.spread + (r0 + r) * (in.padded - rows.first) + b - rows.first;
                for (int j = 0; j < block; ++j) spread[j] += weight * apart[r][j];
            }
        }
    }
}

template <int parity>
void add_series_of(const InputView& in, const PairSeriesView& view, double weight, bool mirrored, const PairRows& rows,
                   PairSink& sink) {
    const std::int64_t features = view.features * pair_block;
    double steep = 0.0;
    for (int r0 = 0; r0 < block; r0 += row_group) {
        const std::int64_t block_a = rows.first / pair_block;
        const double* const series_a = view.series + block_a * view.stride + r0;
        const double* const feature_a = view.feature + block_a * features + r0;
        for (std::int64_t b = rows.first; b < in.padded; b += pair_block) {
            alignas(64) double x[row_group][block], s[row_group][block], above[row_group][block];
            alignas(64) double c[row_group][block], distance[row_group][block];
            alignas(64) double first[row_group][block], rest[row_group][block], apart[row_group][block];
            for (int r = 0; r < row_group; ++r) {
                const Row row(in, rows, sink, r0 + r);
#pragma omp simd
                for (int j = 0; j < block; ++j) {
                    const std::int64_t i = b - row.first + j;
                    const Correlation at = correlation_of(in, row.a, b + j, row.covariance[i], row.distance[i]);
                    c[r][j] = at.c;
                    x[r][j] = parity == 0 ? at.c : at.c * at.c;
                    s[r][j] = at.s;
                    above[r][j] = at.above;
                    distance[r][j] = at.distance;
                }
            }
            const std::int64_t block_b = b / pair_block;
            sum_series<row_group>(view, series_a, view.series + block_b * view.stride, x, first, rest);
            sum_features<row_group>(view, feature_a, view.feature + block_b * features, apart);
            for (int r = 0; r < row_group; ++r) {
                const Row row(in, rows, sink, r0 + r);
#pragma omp simd reduction(+ : steep)
                for (int j = 0; j < block; ++j) {
                    const std::int64_t i = b - row.first + j;
                    const Correlation at{c[r][j], s[r][j], above[r][j], distance[r][j]};
                    const PairTerm term =
                        series_term<parity>(at, first[r][j], rest[r][j], apart[r][j], weight, mirrored);
                    row.product[i] += term.product;
                    row.spread[i] += term.spread;
                    steep += counts(row.a, b + j, in) * term.steep;
                }
            }
        }
    }
    sink.steep += steep;
}

}  // namespace

void add_series(const InputView& in, const PairSeriesView& view, double weight, bool mirrored, const PairRows& rows,
                PairSink& sink) {
    if (view.parity > 0) return add_series_of<1>(in, view, weight, mirrored, rows, sink);
    if (view.parity < 0) return add_series_of<-1>(in, view, weight, mirrored, rows, sink);
    add_series_of<0>(in, view, weight, mirrored, rows, sink);
}

// ---- Closed forms ---------------------------------------------------------------------------------------------------

void add_piecewise_linear(const InputView& in, const PiecewiseLinearView& view, double weight, bool mirrored,
                          const PairRows& rows, PairSink& sink) {
    for (int r = 0; r < block; ++r) {
        const Row row(in, rows, sink, r);
        double steep = 0.0;
#pragma omp simd reduction(+ : steep)
        for (std::int64_t i = 0; i < row.columns; ++i) {
            const std::int64_t b = row.first + i;
            const Correlation at = correlation_of(in, row.a, b, row.covariance[i], row.distance[i]);
            const PairTerm term = piecewise_linear_term(in, row.a, b, at, view, weight, mirrored);
            row.product[i] += term.product;
            row.spread[i] += term.spread;
            steep += counts(row.a, b, in) * term.steep;
        }
        sink.steep += steep;
    }
}

void add_erf(const InputView& in, const PairSeriesView& view, double weight, bool mirrored, const PairRows& rows,
             PairSink& sink) {
    constexpr std::int64_t chunk = 16 * pair_block;
    add_apart(in, view, weight, rows, sink);
    double steep = 0.0;
    for (std::int64_t b0 = rows.first; b0 < in.padded; b0 += chunk) {
        const std::int64_t count = in.padded - b0 < chunk ? in.padded - b0 : chunk;
        alignas(64) double share[chunk], root[chunk];
#pragma omp simd
        for (std::int64_t j = 0; j < count; ++j) {
            const ErfInput of_b = erf_input(in.seen[b0 + j]);
            share[j] = of_b.share;
            root[j] = of_b.root;
        }
        for (int r = 0; r < block; ++r) {
            const Row row(in, rows, sink, r);
            const ErfInput of_a = erf_input(in.seen[row.a]);
#pragma omp simd reduction(+ : steep)
            for (std::int64_t j = 0; j < count; ++j) {
                const std::int64_t b = b0 + j, i = b - row.first;
                const Correlation at = correlation_of(in, row.a, b, row.covariance[i], row.distance[i]);
                const PairTerm term = erf_term(at, of_a, {root[j], share[j]}, weight, mirrored);
                row.product[i] += term.product;
                row.spread[i] += term.spread;
                steep += counts(row.a, b, in) * term.steep;
            }
        }
    }
    sink.steep += steep;
}

// ---- The next layer -------------------------------------------------------------------------------------------------

PairSums settle(const InputView& in, const InputView& next, const PairMap& of_layer, const PairSink& sink,
                const PairRows& rows) {
    const PairMap map = of_layer;  // a bool that is read from memory would cost the vectors
    const std::int64_t columns = next.padded - rows.first;
    PairSums total;
    for (int r = 0; r < block; ++r) {
        const std::int64_t a = rows.first + r;
        double* const covariance = rows.covariance + r * columns;
        double* const distance = rows.distance + r * columns;
        const double* const product = sink.product + r * columns;
        const double* const spread = sink.spread + r * columns;
        double sum_covariance = 0.0, sum_distance = 0.0, sum_correlation = 0.0;
#pragma omp simd reduction(+ : sum_covariance, sum_distance, sum_correlation)
        for (std::int64_t i = 0; i < columns; ++i) {
            const std::int64_t b = rows.first + i;
            const NextPair pair = next_pair(in, next, map, a, b, covariance[i], distance[i], product[i], spread[i]);
            covariance[i] = pair.covariance;
            distance[i] = pair.near;
            const double real = counts(a, b, next);
            sum_covariance += real * pair.covariance;
            sum_distance += real * pair.distance;
            sum_correlation += real * pair.correlation;
        }
        total.covariance += sum_covariance;
        total.distance += sum_distance;
        total.correlation += sum_correlation;
    }
    return total;
}

// ---- Inputs and nodes -----------------------------------------------------------------------------------------------

void compare_inputs(const double* x, std::int64_t count, std::int64_t features, const PairRows& rows,
                    std::int64_t padded) {
    const std::int64_t columns = padded - rows.first;
    for (int r = 0; r < block; ++r) {
        const std::int64_t a = rows.first + r < count ? rows.first + r : count - 1;
        for (std::int64_t i = 0; i < columns; ++i) {
            const std::int64_t b = rows.first + i < count ? rows.first + i : count - 1;
            const double *const x_a = x + a * features, *const x_b = x + b * features;
            double product = 0.0, difference2 = 0.0, sum2 = 0.0;
#pragma omp simd reduction(+ : product, difference2, sum2)
            for (std::int64_t k = 0; k < features; ++k) {
                const double change = x_a[k] - x_b[k], sum = x_a[k] + x_b[k];
                product += x_a[k] * x_b[k];
                difference2 += change * change;
                sum2 += sum * sum;
            }
            rows.covariance[r * columns + i] = product;
            rows.distance[r * columns + i] = 0.5 * (product < 0.0 ? sum2 : difference2);
        }
    }
}

void values(const Activation& activation, std::int64_t count, const double* x, double* out) {
    visit<double>(activation, [&](const auto& phi) {
#pragma omp simd
        for (std::int64_t i = 0; i < count; ++i) out[i] = phi.value(x[i]);
    });
}

void changes(const Activation& activation, std::int64_t count, const double* m, const double* d, double* out) {
    visit<double>(activation, [&](const auto& phi) {
#pragma omp simd
        for (std::int64_t i = 0; i < count; ++i) out[i] = phi.change(m[i], phi.anchor(m[i]), d[i]).difference;
    });
}

void combine(int rows, int nodes, const double* matrix, const double* x, double* out) {
    constexpr int group = 8;
    for (int first = 0; first < rows; first += group) {
        const int here = rows - first < group ? rows - first : group;
        for (int v = 0; v < block; v += width) {
            Vector sum[group];
            for (int r = 0; r < group; ++r) sum[r] = Vector{};
            for (int k = 0; k < nodes; ++k) {
                const Vector x_k = load(x + k * block + v);
                for (int r = 0; r < group; ++r) {
                    const int row = r < here ? first + r : first;
                    sum[r] += x_k * matrix[static_cast<std::int64_t>(row) * nodes + k];
                }
            }
            for (int r = 0; r < here; ++r) {
                __builtin_memcpy(out + static_cast<std::int64_t>(first + r) * block + v, &sum[r], sizeof(Vector));
            }
        }
    }
}

extern const CovarianceKernels covariance_kernels;
const CovarianceKernels covariance_kernels{
    .add_series = add_series,
    .add_piecewise_linear = add_piecewise_linear,
    .add_erf = add_erf,
    .settle = settle,
    .compare_inputs = compare_inputs,
    .values = values,
    .changes = changes,
    .combine = combine,
};

}  // namespace igb::inline IGB_ISA
