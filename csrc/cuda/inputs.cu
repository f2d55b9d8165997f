// A thread makes one feature of many inputs, or those of one counter, and keeps the origin's in registers.
#include "cuda/inputs.h"

#include "core/dealt.h"
#include "cuda/launch.h"
#include "cuda/row_grid.h"

namespace igb::cuda {
namespace {

// x_0 and x_a - x_0, of inputs in memory, subtracted in double. Twin: copy_differences of cpu/layer.cpp. Shape:
// row_grid(ld, columns, networks).
template <class Source, class T>
IGB_KERNEL(256)
load_kernel(const Source* given, const double* origin, InputBatch batch, T* out) {
    const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i >= batch.ld) return;
    const bool counts = i < batch.features;
    const double first = counts ? origin[i] : 0.0;
    for (std::int64_t g = blockIdx.z; g < batch.networks; g += gridDim.z) {
        for (std::int64_t a = std::int64_t{blockIdx.y} * blockDim.y + threadIdx.y; a < batch.columns;
             a += std::int64_t{gridDim.y} * blockDim.y) {
            double value = first;
            if (a > 0) value = counts ? static_cast<double>(given[(a - 1) * batch.features + i]) - first : 0.0;
            out[(g * batch.columns + a) * batch.ld + i] = static_cast<T>(value);
        }
    }
}

// x_0 and x_a - x_0, of standard normals, subtracted in T. Twin: load_inputs of cpu/layer.cpp, where there are none in
// memory. Shape: row_grid(counters of a column, columns, networks); a thread keeps the numbers of its origin.
template <class T>
IGB_KERNEL(256)
gaussian_kernel(StreamId id, std::int64_t number, InputBatch batch, T* out) {
    using Numbers = DealtNormals<T>;
    const std::int64_t place = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    const std::int64_t first = place / dealt_lanes * Numbers::block + place % dealt_lanes;
    if (first >= batch.ld) return;
    for (std::int64_t g = blockIdx.z; g < batch.networks; g += gridDim.z) {
        const Numbers origin = dealt<Numbers>(id, g, 0, place);
        for (std::int64_t a = std::int64_t{blockIdx.y} * blockDim.y + threadIdx.y; a < batch.columns;
             a += std::int64_t{gridDim.y} * blockDim.y) {
            const Numbers input = dealt<Numbers>(id, g, number + a - 1, place);
            T* const column = out + (g * batch.columns + a) * batch.ld;
            for (std::int64_t k = 0; k < Numbers::parts; ++k) {
                const std::int64_t i = first + dealt_lanes * k;
                const T value = a == 0 ? origin(k) : input(k) - origin(k);
                if (i < batch.ld) column[i] = i < batch.features ? value : T{0};
            }
        }
    }
}

}  // namespace

template <class Source, class T>
void load_inputs(GpuStream stream, const Source* given, const double* origin, const InputBatch& batch, T* out) {
    const RowGrid grid = row_grid(batch.ld, batch.columns, batch.networks);
    launch(stream, grid.blocks, grid.threads, load_kernel<Source, T>, given, origin, batch, out);
}

template <class T>
void gaussian_inputs(GpuStream stream, const StreamId& id, std::int64_t first, const InputBatch& batch, T* out) {
    constexpr std::int64_t block = DealtNormals<T>::block;
    const std::int64_t counters = (batch.ld + block - 1) / block * dealt_lanes;
    const RowGrid grid = row_grid(counters, batch.columns, batch.networks);
    launch(stream, grid.blocks, grid.threads, gaussian_kernel<T>, id, first, batch, out);
}

#define IGB_INSTANTIATE(T)                                                                     \
    template void load_inputs(GpuStream, const float*, const double*, const InputBatch&, T*);  \
    template void load_inputs(GpuStream, const double*, const double*, const InputBatch&, T*); \
    template void gaussian_inputs(GpuStream, const StreamId&, std::int64_t, const InputBatch&, T*)

IGB_INSTANTIATE(float);
IGB_INSTANTIATE(double);

}  // namespace igb::cuda
