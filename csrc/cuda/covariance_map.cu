// Pairs of inputs, in tiles of 32 x 32 on and above the diagonal. A block takes one tile, each of its 16 x 16 threads
// the four pairs (a, b), (a, b + 16), (a + 16, b), (a + 16, b + 16), in whose registers two numbers of each side serve
// four pairs: what is summed over terms or features is in shared memory, of both sides, chunk by chunk, and read half
// as often as it is used. The sums of a block have a place of their own and a fixed order.
#include "cuda/covariance_map.h"

#include "cuda/launch.h"

namespace igb::cuda {
namespace {

constexpr unsigned across = 16;  // threads of a block in x and in y
constexpr unsigned threads = across * across, warps = threads / warp_size;
constexpr unsigned each = 2;  // inputs of a thread on either side
constexpr unsigned side = across * each;
constexpr unsigned chunk = 32;        // terms or features in shared memory together
constexpr unsigned pitch = side + 1;  // of shared memory, for the banks
constexpr Grid team{across, across};

std::int64_t tiles_of(std::int64_t count) { return (count + side - 1) / side; }

// One block for every tile: row y of them, which has tiles - y, and row tiles - 1 - y together make a row of the grid.
Grid blocks_of(std::int64_t count) {
    const auto tiles = static_cast<unsigned>(tiles_of(count));
    return {tiles + 1, (tiles + 1) / 2};
}

IGB_DEVICE unsigned thread_of_block() { return threadIdx.y * across + threadIdx.x; }
IGB_DEVICE std::int64_t block_of_grid() { return std::int64_t{blockIdx.y} * gridDim.x + blockIdx.x; }
IGB_DEVICE std::int64_t blocks_of_grid() { return std::int64_t{gridDim.x} * gridDim.y; }

// The inputs of a block, and the pairs of a thread. Of an odd number of tiles, the grid's last row names its own twice:
// the second has no pairs.
struct Tile {
    std::int64_t count, first_a, first_b;

    IGB_DEVICE explicit Tile(std::int64_t inputs) : count(inputs) {
        const std::int64_t tiles = gridDim.x - 1, x = blockIdx.x, y = blockIdx.y, mirror = tiles - 1 - y;
        const bool upper = x < tiles - y;
        const std::int64_t row = upper ? y : mirror, column = upper ? y + x : mirror + x - (tiles - y);
        first_a = row * side;
        first_b = (upper || mirror > y ? column : tiles) * side;
    }

    IGB_DEVICE std::int64_t a(unsigned i) const { return first_a + threadIdx.y + i * across; }
    IGB_DEVICE std::int64_t b(unsigned j) const { return first_b + threadIdx.x + j * across; }
    IGB_DEVICE bool has(unsigned i, unsigned j) const { return a(i) < b(j) && b(j) < count; }
    IGB_DEVICE std::int64_t at(unsigned i, unsigned j) const { return a(i) * count + b(j); }

    // body(i, j) for the pairs of this thread.
    template <class Body>
    IGB_DEVICE void for_pairs(const Body& body) const {
        IGB_UNROLL
        for (unsigned i = 0; i < each; ++i) {
            IGB_UNROLL
            for (unsigned j = 0; j < each; ++j) {
                if (has(i, j)) body(i, j);
            }
        }
    }

    IGB_DEVICE Correlation correlation(const InputView& in, const PairMatrices& pairs, unsigned i, unsigned j) const {
        return correlation_of(in, a(i), b(j), pairs.covariance[at(i, j)], pairs.distance[at(i, j)]);
    }
};

struct Sum {
    IGB_DEVICE double operator()(double a, double b) const { return a + b; }
};
struct Least {
    IGB_DEVICE double operator()(double a, double b) const { return a < b ? a : b; }
};
struct Largest {
    IGB_DEVICE double operator()(double a, double b) const { return a > b ? a : b; }
};

// Of the whole block, in an order that is always the same; for the first thread. of_warps: `warps` numbers to share.
template <class Operation>
IGB_DEVICE double over_block(double value, double* of_warps, Operation operation) {
    for (int step = warp_size / 2; step > 0; step /= 2) {
        value = operation(value, __shfl_xor_sync(0xffffffffu, value, step));
    }
    const unsigned thread = thread_of_block();
    __syncthreads();
    if (thread % warp_size == 0) of_warps[thread / warp_size] = value;
    __syncthreads();
    value = of_warps[0];
    for (unsigned w = 1; w < warps; ++w) value = operation(value, of_warps[w]);
    return value;
}

IGB_DEVICE double* part_of(const PairMatrices& pairs, PairMatrices::Part part) {
    return pairs.parts + part * blocks_of_grid() + block_of_grid();
}

IGB_DEVICE void add_steep(const PairMatrices& pairs, double mine, double* of_warps) {
    const double sum = over_block(mine, of_warps, Sum{});
    if (thread_of_block() == 0) *part_of(pairs, PairMatrices::steep) += sum;
}

IGB_DEVICE void add_term(const PairMatrices& pairs, std::int64_t at, const PairTerm& term, double& steep) {
    pairs.product[at] += term.product;
    pairs.spread[at] += term.spread;
    steep += term.steep;
}

// ---- Both sides in shared memory ------------------------------------------------------------------------------------

// What arrays [block of inputs][number][pair_block] hold of numbers [first, first + chunk) of the tile's inputs, as
// [number][input]; 0 beyond the end of either.
IGB_DEVICE void share(const double* from, std::int64_t numbers, std::int64_t padded, std::int64_t input,
                      std::int64_t first, double* to) {
    constexpr unsigned lanes = pair_block, rows = threads / lanes;
    static_assert(rows == chunk);
    const unsigned lane = thread_of_block() % lanes, row = thread_of_block() / lanes;
    for (unsigned block = 0; block < side / lanes; ++block) {
        const std::int64_t number = first + row, at = input + block * lanes;
        const bool there = number < numbers && at < padded;
        to[row * pitch + block * lanes + lane] = there ? from[at * numbers + number * lanes + lane] : 0.0;
    }
}

// sum_j (u_ja - u_jb)^2 / 2 for the four pairs. Twin: sum_features.
IGB_DEVICE void sum_features(const PairSeriesView& view, std::int64_t padded, const Tile& tile, double* of_a,
                             double* of_b, double (&apart)[each][each]) {
    for (std::int64_t first = 0; first < view.features; first += chunk) {
        __syncthreads();
        share(view.feature, view.features, padded, tile.first_a, first, of_a);
        share(view.feature, view.features, padded, tile.first_b, first, of_b);
        __syncthreads();
        for (unsigned n = 0; n < chunk; ++n) {
            IGB_UNROLL
            for (unsigned i = 0; i < each; ++i) {
                IGB_UNROLL
                for (unsigned j = 0; j < each; ++j) {
                    const double change =
                        of_b[n * pitch + threadIdx.x + j * across] - of_a[n * pitch + threadIdx.y + i * across];
                    apart[i][j] += change * change;
                }
            }
        }
    }
    IGB_UNROLL
    for (unsigned i = 0; i < each; ++i) {
        IGB_UNROLL
        for (unsigned j = 0; j < each; ++j) apart[i][j] *= 0.5 * view.feature_scale2;
    }
}

// Horner's rule, from the last term down to the second, and one step to the first: with partial sums
// b_n = f_na f_nb + x b_(n+1), first = b_0 and rest = sum_(n > 0) b_n. Twin: sum_series.
IGB_DEVICE void sum_series(const PairSeriesView& view, std::int64_t padded, const Tile& tile, double* of_a,
                           double* of_b, const double (&x)[each][each], double (&first)[each][each],
                           double (&rest)[each][each]) {
    for (std::int64_t begin = (view.terms - 1) / std::int64_t{chunk} * chunk; begin >= 0; begin -= chunk) {
        __syncthreads();
        share(view.series, view.terms, padded, tile.first_a, begin, of_a);
        share(view.series, view.terms, padded, tile.first_b, begin, of_b);
        __syncthreads();
        const std::int64_t left = view.terms - begin;
        for (unsigned n = left < chunk ? static_cast<unsigned>(left) : chunk; n-- > 0;) {
            const double beyond_first = begin + n > 0 ? 1.0 : 0.0;
            IGB_UNROLL
            for (unsigned i = 0; i < each; ++i) {
                const double f_a = of_a[n * pitch + threadIdx.y + i * across];
                IGB_UNROLL
                for (unsigned j = 0; j < each; ++j) {
                    const double f_b = of_b[n * pitch + threadIdx.x + j * across];
                    first[i][j] = f_b * f_a + x[i][j] * first[i][j];
                    rest[i][j] += beyond_first * first[i][j];
                }
            }
        }
    }
}

// ---- What phi makes of the pairs ------------------------------------------------------------------------------------

// sum_n f_na f_nb c^n and its distance from c = 1 (series_term). Twin: add_series in cpu/covariance_rows.cpp.
// Blocks: tiles; threads: 16 x 16.
template <int parity>
IGB_KERNEL(threads)
add_series_kernel(InputView in, PairSeriesView view, double weight, bool mirrored, PairMatrices pairs) {
    IGB_SHARED(double, of_a, chunk* pitch);
    IGB_SHARED(double, of_b, chunk* pitch);
    IGB_SHARED(double, of_warps, warps);
    const Tile tile(in.count);
    double x[each][each] = {}, first[each][each] = {}, rest[each][each] = {}, apart[each][each] = {};
    tile.for_pairs([&](unsigned i, unsigned j) {
        const double c = tile.correlation(in, pairs, i, j).c;
        x[i][j] = parity == 0 ? c : c * c;
    });
    sum_series(view, in.padded, tile, of_a, of_b, x, first, rest);
    sum_features(view, in.padded, tile, of_a, of_b, apart);
    double steep = 0.0;
    tile.for_pairs([&](unsigned i, unsigned j) {
        const Correlation at = tile.correlation(in, pairs, i, j);
        add_term(pairs, tile.at(i, j), series_term<parity>(at, first[i][j], rest[i][j], apart[i][j], weight, mirrored),
                 steep);
    });
    add_steep(pairs, steep, of_warps);
}

// (2 / pi) asin(c h_a h_b) (erf_term), and what the variances alone make. Twin: add_erf. Blocks: tiles; threads: 16 x
// 16.
IGB_KERNEL(threads)
add_erf_kernel(InputView in, PairSeriesView view, double weight, bool mirrored, PairMatrices pairs) {
    IGB_SHARED(double, of_a, chunk* pitch);
    IGB_SHARED(double, of_b, chunk* pitch);
    IGB_SHARED(double, of_warps, warps);
    const Tile tile(in.count);
    double apart[each][each] = {}, steep = 0.0;
    sum_features(view, in.padded, tile, of_a, of_b, apart);
    tile.for_pairs([&](unsigned i, unsigned j) {
        const ErfInput a = erf_input(in.seen[tile.a(i)]), b = erf_input(in.seen[tile.b(j)]);
        PairTerm term = erf_term(tile.correlation(in, pairs, i, j), a, b, weight, mirrored);
        term.spread += weight * apart[i][j];
        add_term(pairs, tile.at(i, j), term, steep);
    });
    add_steep(pairs, steep, of_warps);
}

// slope x + bend |x| (piecewise_linear_term). Twin: add_piecewise_linear. Blocks: tiles; threads: 16 x 16.
IGB_KERNEL(threads)
add_piecewise_linear_kernel(InputView in, PiecewiseLinearView view, double weight, bool mirrored, PairMatrices pairs) {
    IGB_SHARED(double, of_warps, warps);
    const Tile tile(in.count);
    double steep = 0.0;
    tile.for_pairs([&](unsigned i, unsigned j) {
        const Correlation at = tile.correlation(in, pairs, i, j);
        add_term(pairs, tile.at(i, j), piecewise_linear_term(in, tile.a(i), tile.b(j), at, view, weight, mirrored),
                 steep);
    });
    add_steep(pairs, steep, of_warps);
}

// Chebyshev series in the angle (curve_term). Twin: add_curve in cpu/covariance_map.cpp. Blocks: tiles; threads: 16 x
// 16.
IGB_KERNEL(threads) add_curve_kernel(InputView in, CurveView view, double weight, PairMatrices pairs) {
    IGB_SHARED(double, of_warps, warps);
    const Tile tile(in.count);
    double steep = 0.0;
    tile.for_pairs([&](unsigned i, unsigned j) {
        const Correlation at = tile.correlation(in, pairs, i, j);
        add_term(pairs, tile.at(i, j), curve_term(in, tile.a(i), tile.b(j), at, view, weight), steep);
    });
    add_steep(pairs, steep, of_warps);
}

// ---- The next layer -------------------------------------------------------------------------------------------------

// K' = carry K + gain E[phi_a phi_b] + cross m_a m_b + bias and T' (next_pair), and their sums over the block. Twin:
// settle. Blocks: tiles; threads: 16 x 16.
IGB_KERNEL(threads) settle_kernel(InputView in, InputView next, PairMap map, PairMatrices pairs) {
    IGB_SHARED(double, of_warps, warps);
    const Tile tile(in.count);
    double covariances = 0.0, distances = 0.0, correlations = 0.0;
    tile.for_pairs([&](unsigned i, unsigned j) {
        const std::int64_t at = tile.at(i, j);
        const NextPair pair = next_pair(in, next, map, tile.a(i), tile.b(j), pairs.covariance[at], pairs.distance[at],
                                        pairs.product[at], pairs.spread[at]);
        pairs.covariance[at] = pair.covariance;
        pairs.distance[at] = pair.near;
        covariances += pair.covariance;
        distances += pair.distance;
        correlations += pair.correlation;
    });
    covariances = over_block(covariances, of_warps, Sum{});
    distances = over_block(distances, of_warps, Sum{});
    correlations = over_block(correlations, of_warps, Sum{});
    if (thread_of_block() == 0) {
        *part_of(pairs, PairMatrices::covariances) = covariances;
        *part_of(pairs, PairMatrices::distances) = distances;
        *part_of(pairs, PairMatrices::correlations) = correlations;
    }
}

// The smallest angle above 0 and the largest. Twin: find_angles in cpu/covariance_map.cpp. Blocks: tiles; threads:
// 16 x 16.
IGB_KERNEL(threads) find_angles_kernel(InputView in, PairMatrices pairs) {
    IGB_SHARED(double, of_warps, warps);
    const Tile tile(in.count);
    double low = 4.0, high = 0.0;
    tile.for_pairs([&](unsigned i, unsigned j) {
        const Correlation at = tile.correlation(in, pairs, i, j);
        const double angle = pair_angle(at);
        if (at.s > 0.0) low = angle < low ? angle : low;
        high = angle > high ? angle : high;
    });
    low = over_block(low, of_warps, Least{});
    high = over_block(high, of_warps, Largest{});
    if (thread_of_block() == 0) {
        *part_of(pairs, PairMatrices::covariances) = low;
        *part_of(pairs, PairMatrices::distances) = high;
    }
}

// ---- The first layer ------------------------------------------------------------------------------------------------

// K = sum_k x_ak x_bk and T = sum_k (x_ak -+ x_bk)^2 / 2, scaled, in the order of k. Twin: compare_inputs. Blocks:
// tiles; threads: 16 x 16, with the features of both sides in shared memory, chunk by chunk.
IGB_KERNEL(threads)
compare_inputs_kernel(const double* __restrict__ x, std::int64_t features, double scale, PairMatrices pairs) {
    IGB_SHARED(double, of_a, chunk* pitch);
    IGB_SHARED(double, of_b, chunk* pitch);
    const Tile tile(pairs.count);
    double product[each][each] = {}, difference2[each][each] = {}, sum2[each][each] = {};
    for (std::int64_t begin = 0; begin < features; begin += chunk) {
        __syncthreads();
        for (unsigned i = thread_of_block(); i < chunk * side; i += threads) {
            const std::int64_t k = begin + i % chunk, a = tile.first_a + i / chunk, b = tile.first_b + i / chunk;
            of_a[i % chunk * pitch + i / chunk] = k < features && a < tile.count ? x[a * features + k] : 0.0;
            of_b[i % chunk * pitch + i / chunk] = k < features && b < tile.count ? x[b * features + k] : 0.0;
        }
        __syncthreads();
        for (unsigned k = 0; k < chunk; ++k) {
            IGB_UNROLL
            for (unsigned i = 0; i < each; ++i) {
                const double x_a = of_a[k * pitch + threadIdx.y + i * across];
                IGB_UNROLL
                for (unsigned j = 0; j < each; ++j) {
                    const double x_b = of_b[k * pitch + threadIdx.x + j * across];
                    const double change = x_a - x_b, sum = x_a + x_b;
                    product[i][j] += x_a * x_b;
                    difference2[i][j] += change * change;
                    sum2[i][j] += sum * sum;
                }
            }
        }
    }
    tile.for_pairs([&](unsigned i, unsigned j) {
        const double twice = product[i][j] < 0.0 ? sum2[i][j] : difference2[i][j];
        pairs.covariance[tile.at(i, j)] = scale * product[i][j];
        pairs.distance[tile.at(i, j)] = scale * (0.5 * twice);
    });
}

// T from K (first_distance). Twin: CovarianceMap::start_from_covariance. Blocks: tiles; threads: 16 x 16.
IGB_KERNEL(threads) start_from_covariance_kernel(const double* __restrict__ given, PairMatrices pairs) {
    const Tile tile(pairs.count);
    tile.for_pairs([&](unsigned i, unsigned j) {
        const std::int64_t a = tile.a(i), b = tile.b(j), at = tile.at(i, j), n = pairs.count;
        pairs.covariance[at] = given[at];
        pairs.distance[at] = first_distance(given[a * n + a], given[b * n + b], given[at]);
    });
}

}  // namespace

std::int64_t pair_blocks(std::int64_t count) {
    const Grid blocks = blocks_of(count);
    return std::int64_t{blocks.x} * blocks.y;
}

void compare_inputs(GpuStream stream, const double* x, std::int64_t features, double scale, const PairMatrices& pairs) {
    launch(stream, blocks_of(pairs.count), team, compare_inputs_kernel, x, features, scale, pairs);
}

void start_from_covariance(GpuStream stream, const double* covariance, const PairMatrices& pairs) {
    launch(stream, blocks_of(pairs.count), team, start_from_covariance_kernel, covariance, pairs);
}

void add_piecewise_linear(GpuStream stream, const InputView& in, const PiecewiseLinearView& view, double weight,
                          bool mirrored, const PairMatrices& pairs) {
    launch(stream, blocks_of(in.count), team, add_piecewise_linear_kernel, in, view, weight, mirrored, pairs);
}

void add_erf(GpuStream stream, const InputView& in, const PairSeriesView& features, double weight, bool mirrored,
             const PairMatrices& pairs) {
    launch(stream, blocks_of(in.count), team, add_erf_kernel, in, features, weight, mirrored, pairs);
}

void add_series(GpuStream stream, const InputView& in, const PairSeriesView& view, double weight, bool mirrored,
                const PairMatrices& pairs) {
    const auto kernel = view.parity > 0   ? add_series_kernel<1>
                        : view.parity < 0 ? add_series_kernel<-1>
                                          : add_series_kernel<0>;
    launch(stream, blocks_of(in.count), team, kernel, in, view, weight, mirrored, pairs);
}

void add_curve(GpuStream stream, const InputView& in, const CurveView& view, double weight, const PairMatrices& pairs) {
    launch(stream, blocks_of(in.count), team, add_curve_kernel, in, view, weight, pairs);
}

void settle(GpuStream stream, const InputView& in, const InputView& next, const PairMap& map,
            const PairMatrices& pairs) {
    launch(stream, blocks_of(in.count), team, settle_kernel, in, next, map, pairs);
}

void find_angles(GpuStream stream, const InputView& in, const PairMatrices& pairs) {
    launch(stream, blocks_of(in.count), team, find_angles_kernel, in, pairs);
}

}  // namespace igb::cuda
