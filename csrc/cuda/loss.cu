// The head is small next to any layer: a thread an input, a warp a block, so that few inputs have many multiprocessors.
#include "cuda/loss.h"

#include "core/normal.h"
#include "core/softmax_gradient.h"
#include "cuda/launch.h"

namespace igb::cuda {
namespace {

constexpr unsigned threads = warp_size;

Grid blocks_of(std::int64_t count) { return Grid{static_cast<unsigned>((count + threads - 1) / threads)}; }

// label = floor(classes u), u = x0 2^-32 of the input's own counter. Twin: labels_of. A thread an input of a network.
IGB_KERNEL(threads)
labels_kernel(StreamId id, std::int64_t networks, std::int64_t first, std::int64_t count, std::int64_t classes,
              std::int32_t* __restrict__ labels) {
    const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
    if (i >= networks * count) return;
    id.network += static_cast<std::uint32_t>(i / count);
    const std::uint64_t word = normal_words(id, 0, static_cast<std::uint32_t>(first + i % count)).x0;
    labels[i] = static_cast<std::int32_t>((word * static_cast<std::uint64_t>(classes)) >> 32);
}

// softmax - one-hot, as core/softmax_gradient.h says. Twin: loss_gradient. A thread a row of logits.
template <class T>
IGB_KERNEL(threads)
cross_entropy_kernel(std::int64_t rows, std::int64_t classes, const double* __restrict__ logits,
                     const std::int32_t* __restrict__ labels, T* __restrict__ delta,
                     std::int32_t* __restrict__ exponent) {
    const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
    if (i >= rows) return;
    exponent[i] = softmax_gradient(classes, logits + i * classes, labels[i], delta + i * classes);
}

}  // namespace

void random_labels(GpuStream stream, const StreamId& id, std::int64_t networks, std::int64_t first, std::int64_t count,
                   std::int64_t classes, std::int32_t* labels) {
    launch(stream, blocks_of(networks * count), Grid{threads}, labels_kernel, id, networks, first, count, classes,
           labels);
}

template <class T>
void cross_entropy_gradient(GpuStream stream, std::int64_t rows, std::int64_t classes, const double* logits,
                            const std::int32_t* labels, T* delta, std::int32_t* exponent) {
    launch(stream, blocks_of(rows), Grid{threads}, cross_entropy_kernel<T>, rows, classes, logits, labels, delta,
           exponent);
}

template void cross_entropy_gradient(GpuStream, std::int64_t, std::int64_t, const double*, const std::int32_t*, float*,
                                     std::int32_t*);
template void cross_entropy_gradient(GpuStream, std::int64_t, std::int64_t, const double*, const std::int32_t*, double*,
                                     std::int32_t*);

}  // namespace igb::cuda
