// Lengths first, since every pair needs two of them; then a block for each row of pairs; then the sums of the rows.
#include "cuda/contrasts.h"

#include "core/histogram_bin.h"
#include "cuda/launch.h"

namespace igb::cuda {
namespace {

constexpr unsigned threads = 256;

// What makes means over the nodes, in units.origin^2, of the products of one network.
struct Scale {
    double width, ratio;

    IGB_HD Scale(const double* units, double nodes) : width(nodes), ratio(units[1] / units[0]) {}
    IGB_HD double origin(double product) const { return product / width; }
    IGB_HD double cross(double product) const { return ratio * product / width; }
    IGB_HD double difference(double product) const { return ratio * ratio / width * product; }
};

IGB_HD Count* bin_of(Count* histogram, std::int64_t network, double value) {
    return histogram + network * histogram_bins + histogram_bin(value);
}

// |y_a|^2 of every input. Twin: the first loop of sum_pairs. Blocks: (inputs, networks); a thread an input.
template <class T>
IGB_KERNEL(threads)
lengths_kernel(PairBatch batch, const double* __restrict__ products, const double* __restrict__ units,
               InputLength* __restrict__ lengths, Count* histogram) {
    const std::int64_t n = batch.inputs, g = blockIdx.y;
    const std::int64_t a = std::int64_t{blockIdx.x} * threads + threadIdx.x;
    if (a >= n) return;
    const double* const of = products + g * n * n;
    const Scale scale(units + 2 * g, batch.width);
    const double cross = a == 0 ? 0.0 : scale.cross(of[a]);
    const double square = a == 0 ? 0.0 : scale.difference(of[a * n + a]);
    const InputLength length = input_length<T>(scale.origin(of[0]), cross, square);
    lengths[g * n + a] = length;
    if (histogram != nullptr) atomicAdd(bin_of(histogram, g, units[2 * g] * units[2 * g] * length.norm), Count{1});
}

// c_ab of input b with all a > b, summed. Twin: the second loop of sum_pairs. Blocks: (b, networks), each with its
// contiguous row of products; threads take every 256th pair and fold their sums in halves, always in the same order.
IGB_KERNEL(threads)
pairs_kernel(PairBatch batch, const double* __restrict__ products, const double* __restrict__ units,
             const InputLength* __restrict__ lengths, double* __restrict__ rows, Count* histogram) {
    IGB_SHARED(double, sums, threads);
    const std::int64_t n = batch.inputs, b = blockIdx.x, g = blockIdx.y;
    const double* const row = products + (g * n + b) * n;
    const Scale scale(units + 2 * g, batch.width);
    const double origin = scale.origin(products[g * n * n]);
    const InputLength of_b = lengths[g * n + b];
    double sum = 0.0;
    for (std::int64_t a = b + 1 + threadIdx.x; a < n; a += threads) {
        const InputLength of_a = lengths[g * n + a];
        const double product = b == 0 ? 0.0 : scale.difference(row[a]);
        sum += along(origin, of_a, of_b, product);
        if (histogram != nullptr && of_a.inverse != 0.0 && of_b.inverse != 0.0)
            atomicAdd(bin_of(histogram, g, contrast(of_a, of_b, product)), Count{1});
    }
    sums[threadIdx.x] = sum;
    for (unsigned half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) rows[g * n + b] = sums[0] * of_b.inverse;
}

struct PairSums {
    double q = 0.0, directions = 0.0, c = 0.0;

    IGB_HD void add(const PairSums& other) {
        q += other.q;
        directions += other.directions;
        c += other.c;
    }
};

// The sums over inputs and rows of pairs, of a network a block.
IGB_KERNEL(threads)
sums_kernel(PairBatch batch, const InputLength* __restrict__ lengths, const double* __restrict__ rows,
            double* __restrict__ out) {
    IGB_SHARED(PairSums, sums, threads);
    const std::int64_t n = batch.inputs, g = blockIdx.x;
    PairSums sum;
    for (std::int64_t a = threadIdx.x; a < n; a += threads) {
        const double norm = lengths[g * n + a].norm;
        sum.add({norm, norm == 0.0 ? 0.0 : 1.0, rows[g * n + a]});
    }
    sums[threadIdx.x] = sum;
    for (unsigned half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x].add(sums[threadIdx.x + half]);
    }
    if (threadIdx.x > 0) return;
    out[4 * g] = sums[0].q;
    out[4 * g + 1] = static_cast<double>(n);
    out[4 * g + 2] = sums[0].c;
    out[4 * g + 3] = 0.5 * sums[0].directions * (sums[0].directions - 1.0);
}

}  // namespace

template <class T>
void contrasts(GpuStream stream, const PairBatch& batch, const double* products, const double* units,
               const PairScratch& scratch, double* sums, Count* q_histogram, Count* c_histogram) {
    const auto inputs = static_cast<unsigned>(batch.inputs), networks = static_cast<unsigned>(batch.networks);
    const Grid block{threads};
    launch(stream, Grid{(inputs + threads - 1) / threads, networks}, block, lengths_kernel<T>, batch, products, units,
           scratch.lengths, q_histogram);
    launch(stream, Grid{inputs, networks}, block, pairs_kernel, batch, products, units, scratch.lengths, scratch.rows,
           c_histogram);
    launch(stream, Grid{networks}, block, sums_kernel, batch, scratch.lengths, scratch.rows, sums);
}

template void contrasts<float>(GpuStream, const PairBatch&, const double*, const double*, const PairScratch&, double*,
                               Count*, Count*);
template void contrasts<double>(GpuStream, const PairBatch&, const double*, const double*, const PairScratch&, double*,
                                Count*, Count*);

}  // namespace igb::cuda
