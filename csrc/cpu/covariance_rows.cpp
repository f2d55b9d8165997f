// The pairs of one layer (see covariance_rows.h), compiled once for each instruction set. From K_ab and T_ab come the
// correlation c = K_ab / sqrt(q_a q_b) and, with all its digits however close the inputs are,
//
//     1 - |c| = (T_ab - (sqrt q_a - sqrt q_b)^2 / 2) / sqrt(q_a q_b)
//
// and E[(phi_a - phi_b)^2] / 2 is a part that the variances alone make, at c = 1, and s = 1 - c times something positive.
#include "cpu/covariance_rows.h"

#include "core/activations.h"
#include "core/angles.h"
#include "core/config.h"
#include "core/quadrature.h"
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

// 1 for the pairs that count, 0 for the rest. Without a branch, as all conditions here: `and` would cost the vectors.
IGB_HD double counts(std::int64_t a, std::int64_t b, const InputView& in) {
    const std::int64_t out = (a - b) & (b - in.count);  // negative if both are
    return out < 0 ? 1.0 : 0.0;
}

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

// c with its distances from 1 and from -1.
struct Correlation {
    double c, s, above;  // 1 - c, 1 + c
    double distance;     // T_ab / sqrt(q_a q_b)
};

IGB_HD Correlation correlation_of(const InputView& in, std::int64_t a, std::int64_t b, double covariance,
                                  double distance) {
    const double inverse = in.inverse_root[a] * in.inverse_root[b], gap = distance * inverse;
    const double change = in.root_change[a] - in.root_change[b];
    const double apart = (distance - 0.5 * change * change) * inverse, together = absolute(covariance * inverse);
    const bool close = gap < 0.5;  // then 1 - |c| is known better than |c|
    double near = close ? apart : 1.0 - together;
    near = near > 0.0 ? near : 0.0;
    const double held = together < 1.0 ? together : 1.0, size = close ? 1.0 - near : held;
    const bool negative = covariance < 0.0;
    return {negative ? -size : size, negative ? 1.0 + size : near, negative ? near : 1.0 + size, gap};
}

// ---- Series ---------------------------------------------------------------------------------------------------------

// With x = c, or c^2 where phi has a parity, and partial sums b_n = f_na f_nb + x b_(n+1) of Horner's rule:
//     sum_n f_na f_nb x^n = b_0,   sum_n f_na f_nb (1 - x^n) = (1 - x) sum_(n > 0) b_n
template <unsigned rows>
IGB_HD void sum_series(const SeriesView& view, const double* series_a, const double* series_b, const double (*x)[block],
                       double (*first)[block], double (*rest)[block]) {
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
IGB_HD void sum_features(const SeriesView& view, const double* feature_a, const double* feature_b,
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
IGB_HD void add_apart(const InputView& in, const SeriesView& view, double weight, const PairRows& rows,
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
void add_series_of(const InputView& in, const SeriesView& view, double weight, bool mirrored, const PairRows& rows,
                   PairSink& sink) {
    const std::int64_t features = view.features * pair_block;
    const double turn = mirrored ? 1.0 : 0.0;
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
                    // 1 - c^2 = s (1 + c); 1 - c^(2m + 1) = (1 - c^2m) + c^2m s
                    const bool opposite = turn * c[r][j] < 0.0;
                    const double own = opposite ? above[r][j] : s[r][j], other = opposite ? s[r][j] : above[r][j];
                    double slope = parity == 0 ? rest[r][j] : other * rest[r][j];
                    if (parity < 0) slope += first[r][j];
                    row.product[i] += weight * (parity < 0 ? c[r][j] * first[r][j] : first[r][j]);
                    row.spread[i] += weight * (apart[r][j] + own * slope);
                    steep += counts(row.a, b + j, in) * absolute(weight * slope * distance[r][j]);
                }
            }
        }
    }
    sink.steep += steep;
}

}  // namespace

void add_series(const InputView& in, const SeriesView& view, double weight, bool mirrored, const PairRows& rows,
                PairSink& sink) {
    if (view.parity > 0) return add_series_of<1>(in, view, weight, mirrored, rows, sink);
    if (view.parity < 0) return add_series_of<-1>(in, view, weight, mirrored, rows, sink);
    add_series_of<0>(in, view, weight, mirrored, rows, sink);
}

// ---- Closed forms ---------------------------------------------------------------------------------------------------

// phi(x) = slope x + bend |x|, whose two parts do not mix: |x| sees |c| = cos t, and with J = sin t - t cos t
//     E[|u| |v|] = sqrt(q_a q_b) (|c| + (2 / pi) J),   at a distance of sqrt(q_a q_b) (1 - |c| - (2 / pi) J) from c = 1
void add_piecewise_linear(const InputView& in, const PiecewiseLinearView& view, double weight, bool mirrored,
                          const PairRows& rows, PairSink& sink) {
    constexpr double two_over_pi = 2.0 / pi;
    const double slope2 = weight * view.slope2, bend2 = weight * view.bend2, turn = mirrored ? 1.0 : 0.0;
    for (int r = 0; r < block; ++r) {
        const Row row(in, rows, sink, r);
        const double seen = in.seen[row.a], seen_change = in.seen_change[row.a];
        double steep = 0.0;
#pragma omp simd reduction(+ : steep)
        for (std::int64_t i = 0; i < row.columns; ++i) {
            const std::int64_t b = row.first + i;
            const Correlation at = correlation_of(in, row.a, b, row.covariance[i], row.distance[i]);
            const double size = seen * in.seen[b], change = seen_change - in.seen_change[b];
            const double apart = 0.5 * change * change;
            const double near = at.c < 0.0 ? at.above : at.s, far = absolute(at.c);
            const double excess = two_over_pi * sine_excess_from(near < 1.0 ? near : 1.0);
            const double own = turn * at.c < 0.0 ? at.above : at.s;
            const double spread = slope2 * (apart + size * own) + bend2 * (apart + size * (near - excess));
            row.product[i] += size * (slope2 * at.c + bend2 * (far + excess));
            row.spread[i] += spread;
            steep += counts(row.a, b, in) * spread;
        }
        sink.steep += steep;
    }
}

// E[erf u erf v] = (2 / pi) A(c), sin A = c h_a h_b with h^2 = 2 q / (1 + 2 q), and the distance from c = 1 is the angle
// between A(1) and A(c), whose sine is taken so that nothing cancels.
void add_erf(const InputView& in, const SeriesView& view, double weight, bool mirrored, const PairRows& rows,
             PairSink& sink) {
    constexpr double two_over_pi = 2.0 / pi;
    constexpr std::int64_t chunk = 16 * pair_block;
    const double scale = weight * two_over_pi, straight_on = mirrored ? 0.0 : 1.0;
    add_apart(in, view, weight, rows, sink);
    double steep = 0.0;
    for (std::int64_t b0 = rows.first; b0 < in.padded; b0 += chunk) {
        const std::int64_t count = in.padded - b0 < chunk ? in.padded - b0 : chunk;
        alignas(64) double share[chunk], root[chunk];  // 1 - h^2, h
#pragma omp simd
        for (std::int64_t j = 0; j < count; ++j) {
            const double inverse = 1.0 / (0.5 + in.seen[b0 + j] * in.seen[b0 + j]);
            share[j] = 0.5 * inverse;
            root[j] = in.seen[b0 + j] * square_root(inverse);
        }
        for (int r = 0; r < block; ++r) {
            const Row row(in, rows, sink, r);
            const double inverse = 1.0 / (0.5 + in.seen[row.a] * in.seen[row.a]), share_a = 0.5 * inverse;
            const double root_a = in.seen[row.a] * square_root(inverse);
#pragma omp simd reduction(+ : steep)
            for (std::int64_t j = 0; j < count; ++j) {
                const std::int64_t b = b0 + j, i = b - row.first;
                const Correlation at = correlation_of(in, row.a, b, row.covariance[i], row.distance[i]);
                const double largest = root_a * root[j];                    // sin A(1)
                const double rest2 = share_a + share[j] * (1.0 - share_a);  // cos^2 A(1)
                const double cosine_at_1 = square_root(rest2);
                // Of |c|; then what is between A(c) and A(1), or A(-1) if that is what is asked for.
                const double size = absolute(at.c), sine = size * largest;
                const double cosine = square_root(at.s * at.above + (at.c * at.c) * rest2);
                const double sum = largest * cosine + sine * cosine_at_1;
                const double direction = straight_on * at.c;  // below zero: from A(1), although c is nearer to -1
                const double closing = largest * largest * (at.s * at.above) / (sum > 0.0 ? sum : 1.0);
                const double straight = cosine * cosine_at_1, across = largest * sine;
                const double angle = angle_of(sine, cosine);
                const double between =
                    angle_of(direction < 0.0 ? sum : closing, direction < 0.0 ? straight - across : straight + across);
                row.product[i] += scale * flip_sign(angle, sign_of(at.c));
                row.spread[i] += scale * between;
                const double slope = largest / (cosine > 0.0 ? cosine : 1.0);
                steep += counts(row.a, b, in) * (scale * slope * at.distance);
            }
        }
    }
    sink.steep += steep;
}

// ---- The next layer -------------------------------------------------------------------------------------------------

PairSums settle(const InputView& in, const InputView& next, const PairMap& map, const PairSink& sink,
                const PairRows& rows) {
    const std::int64_t columns = next.padded - rows.first;
    const double turn = map.mirrored ? 1.0 : 0.0, twice_bias = 2.0 * map.bias;
    PairSums total;
    for (int r = 0; r < block; ++r) {
        const std::int64_t a = rows.first + r;
        double* const covariance = rows.covariance + r * columns;
        double* const distance = rows.distance + r * columns;
        const double* const product = sink.product + r * columns;
        const double* const spread = sink.spread + r * columns;
        const double mean = map.cross * map.mean[a], mean_change = map.mean_change[a];
        double sum_covariance = 0.0, sum_distance = 0.0, sum_correlation = 0.0;
#pragma omp simd reduction(+ : sum_covariance, sum_distance, sum_correlation)
        for (std::int64_t i = 0; i < columns; ++i) {
            const std::int64_t b = rows.first + i;
            const double change = mean_change - map.mean_change[b];
            const double k = map.carry * covariance[i] + (map.gain * product[i] + mean * map.mean[b] + map.bias);
            // D of the next layer, or half the squared sum.
            const double was = covariance[i], if_sum = turn * was, if_difference = (1.0 - turn) * was;
            const double near_before = distance[i], far_before = (in.q[a] + in.q[b]) - near_before;
            const double carried = if_difference < 0.0 ? far_before : near_before;
            const double d = map.carry * carried + (map.gain * spread[i] + map.cross * (0.5 * change * change)) +
                             (if_sum < 0.0 ? twice_bias : 0.0);
            // The smaller of it and |K| is right; the other follows from the variances.
            const double half_sum = 0.5 * (next.q[a] + next.q[b]);
            const bool negative = k < 0.0;
            const double size = absolute(k), left = half_sum - size > 0.0 ? half_sum - size : 0.0;
            const double same_sign = if_sum < 0.0 ? -k : k;
            const bool near = d < same_sign;
            const double new_size = near ? half_sum - d : size, t = near ? d : left;
            const double new_k = negative ? -new_size : new_size;
            covariance[i] = new_k;
            distance[i] = t;
            const double real = counts(a, b, next);
            sum_covariance += real * new_k;
            sum_distance += real * (negative ? 2.0 * half_sum - t : t);
            sum_correlation += real * correlation_of(next, a, b, new_k, t).c;
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
