// A product with a matrix of random numbers that is never stored: a block makes the normals that it needs, chunk by
// chunk, in shared memory. Each is used for up to 128 columns, and costs about as much as 50 multiply-adds.
#include "cuda/gram_rows.h"

#include "core/dealt.h"
#include "cuda/launch.h"

namespace igb::cuda {
namespace {

constexpr unsigned side = 16;  // threads of a block in x and in y
constexpr unsigned threads = side * side;
constexpr unsigned quad = 4;  // nodes of a thread
constexpr unsigned nodes_of_block = side * quad;

// Numbers that are read and written at once.
template <class T>
struct alignas(16) Quad {
    T v[quad];
};

// k from one barrier to the next: so many that every thread makes one counter's normals for the nodes of the block.
template <class T>
constexpr unsigned chunk = threads / nodes_of_block * DealtNormals<T>::parts;

// Rows of shared memory are a little longer than they need to be, for the banks.
constexpr unsigned z_quads = side + 4;

template <class T>
IGB_HD void put(Quad<T>* row, unsigned at, T value) {
    row[at / quad].v[at % quad] = value;
}

// One counter's normals, of row k of the stream: `counter` is that from the first of the 64 columns on.
template <class T>
IGB_HD void put_normals(const StreamId& id, unsigned network, std::int64_t k, std::int64_t first_column,
                        unsigned counter, Quad<T>* z) {
    using Normals = DealtNormals<T>;
    constexpr unsigned lanes = dealt_lanes, block = Normals::block;
    const std::int64_t c0 = first_column / Normals::block * dealt_lanes + counter;
    const auto normals = dealt<Normals>(id, network, k, c0);
    const unsigned first = counter / lanes * block + counter % lanes;
    for (unsigned part = 0; part < Normals::parts; ++part) put(z, first + part * lanes, normals(part));
}

// y_a = sum_k L_ak Z_k for 64 nodes and 16 * per_thread columns a. Twin: GramRun::draw in cpu/forward_gram.cpp.
// Blocks: (64 nodes of a member, columns, networks); threads: 16 x 16, each with 4 nodes and per_thread columns in
// registers, which is what a chunk has to be read into to keep up with the multiply-adds. Sums are in the order of k.
template <class T, unsigned per_thread>
IGB_KERNEL(threads)
draw_rows_kernel(StreamId id, TileBatch batch, const T* __restrict__ draw, bool triangular, T* __restrict__ tile) {
    constexpr unsigned width = side * per_thread, l_quads = width / quad + 1;
    constexpr unsigned counters = nodes_of_block / DealtNormals<T>::parts;
    IGB_SHARED(Quad<T>, z, chunk<T> * z_quads);
    IGB_SHARED(Quad<T>, l, chunk<T> * l_quads);
    const unsigned thread = threadIdx.y * side + threadIdx.x;
    const NodeSlab& slab = batch.slab;
    const std::int64_t n = batch.columns, first = std::int64_t{gridDim.y - 1 - blockIdx.y} * width;  // long ones first
    const std::int64_t blocks = slab.member / nodes_of_block;
    const std::int64_t member = blockIdx.x / blocks, node = blockIdx.x % blocks * nodes_of_block;
    const std::int64_t column = member * slab.stride + slab.first + node;
    const T* const rows = draw + blockIdx.z * n * n;

    const std::int64_t last = triangular && first + width < n ? first + width : n;
    const std::int64_t end = node < slab.nodes ? last : 0;  // of k
    Quad<T> sum[per_thread] = {};
    for (std::int64_t begin = 0; begin < end; begin += chunk<T>) {
        put_normals(id, blockIdx.z, begin + thread / counters, column, thread % counters,
                    z + thread / counters * z_quads);
        const std::int64_t k = begin + thread % chunk<T>;
        for (unsigned i = thread / chunk<T>; i < width; i += threads / chunk<T>) {
            const std::int64_t a = first + i;
            const bool counts = a < n && k < n && (k <= a || !triangular);
            put(l + thread % chunk<T> * l_quads, i, counts ? rows[a * n + k] : T{0});
        }
        __syncthreads();  // the chunk is there
        IGB_UNROLL_BY(2)  // all of them take too many registers for two blocks of double
        for (unsigned step = 0; step < chunk<T>; ++step) {
            const Quad<T> normals = z[step * z_quads + threadIdx.x];
            for (unsigned j = 0; j < per_thread; ++j) {
                const T factor = l[step * l_quads + (threadIdx.y * per_thread + j) / quad].v[j % quad];
                for (unsigned i = 0; i < quad; ++i) sum[j].v[i] += factor * normals.v[i];
            }
        }
        __syncthreads();  // it has been read
    }

    const std::int64_t row = node + threadIdx.x * quad;
    for (unsigned j = 0; j < per_thread; ++j) {
        const std::int64_t a = first + threadIdx.y * per_thread + j;
        if (a >= n) break;
        for (unsigned i = 0; i < quad; ++i)
            if (row + i >= slab.nodes) sum[j].v[i] = T{0};
        T* const to = tile + (blockIdx.z * n + a) * slab.rows() + member * slab.member + row;
        *reinterpret_cast<Quad<T>*>(to) = sum[j];
    }
}

template <class T, unsigned per_thread>
void start(GpuStream stream, const StreamId& id, const TileBatch& batch, const T* draw, bool triangular, T* tile) {
    const std::int64_t width = side * per_thread;
    const Grid blocks{static_cast<unsigned>(batch.slab.rows() / nodes_of_block),
                      static_cast<unsigned>((batch.columns + width - 1) / width),
                      static_cast<unsigned>(batch.networks)};
    launch(stream, blocks, Grid{side, side}, draw_rows_kernel<T, per_thread>, id, batch, draw, triangular, tile);
}

}  // namespace

template <class T>
void draw_rows(GpuStream stream, const StreamId& id, const TileBatch& batch, const T* draw, bool triangular, T* tile) {
    const auto kernel = batch.columns <= 4 * side ? start<T, 4> : start<T, 8>;
    kernel(stream, id, batch, draw, triangular, tile);
}

template void draw_rows(GpuStream, const StreamId&, const TileBatch&, const float*, bool, float*);
template void draw_rows(GpuStream, const StreamId&, const TileBatch&, const double*, bool, double*);

}  // namespace igb::cuda
