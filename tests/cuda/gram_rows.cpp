// The kernel of cuda/gram_rows.cu, run on the host, against the normals of cpu/normals.cpp and sums in double: to 50
// roundings of the root of the summed squares of the terms, at sizes that are no multiple of anything, padding zero,
// and nothing written beside.
#include "cuda/gram_rows.cu"

#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/kernels.h"

namespace {

using igb::cuda::NodeSlab;
using igb::cuda::TileBatch;

constexpr igb::StreamId first_network{0x123456789ABCDEF0u, 77, 5, static_cast<std::uint32_t>(igb::Stream::gram)};

igb::StreamId of_network(std::int64_t g) {
    igb::StreamId id = first_network;
    id.network += static_cast<std::uint32_t>(g);
    return id;
}

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// Numbers of all sizes, and nan where a triangular draw has nothing.
template <class T>
std::vector<T> random_draw(std::int64_t networks, std::int64_t n, bool triangular) {
    std::vector<T> draw(at(networks * n * n));
    const igb::StreamId id{99, 1, 2, 3};
    igb::fill_normals(id, static_cast<std::uint32_t>(n), 0, networks * n * n, draw.data());
    for (std::int64_t i = 0; triangular && i < networks * n * n; ++i)
        if (i % n > i / n % n) draw[at(i)] = std::numeric_limits<T>::quiet_NaN();
    return draw;
}

template <class T>
void same_as_sums(const TileBatch& batch, bool triangular) {
    const NodeSlab& slab = batch.slab;
    const std::int64_t n = batch.columns, rows = slab.rows(), guard = 64;
    const T poison = static_cast<T>(-12345);
    const std::vector<T> draw = random_draw<T>(batch.networks, n, triangular);
    std::vector<T> got(at(batch.size() + 2 * guard), poison), z(at(n * slab.nodes));
    igb::cuda::draw_rows(nullptr, first_network, batch, draw.data(), triangular, got.data() + guard);
    for (std::int64_t i = 0; i < guard; ++i) CHECK(got[at(i)] == poison && got[at(batch.size() + guard + i)] == poison);
    bool right = true, padded = true;
    for (std::int64_t g = 0; g < batch.networks; ++g) {
        for (std::int64_t s = 0; s < slab.members; ++s) {
            for (std::int64_t k = 0; k < n; ++k)
                igb::fill_normals(of_network(g), static_cast<std::uint32_t>(k), s * slab.stride + slab.first,
                                  slab.nodes, z.data() + k * slab.nodes);
            for (std::int64_t a = 0; a < n; ++a) {
                const T* const factor = draw.data() + (g * n + a) * n;
                const T* const row = got.data() + guard + (g * n + a) * rows + s * slab.member;
                for (std::int64_t i = 0; i < slab.nodes; ++i) {
                    double sum = 0.0, size = 0.0;
                    for (std::int64_t k = 0; k < (triangular ? a + 1 : n); ++k) {
                        const double term = double{factor[k]} * double{z[at(k * slab.nodes + i)]};
                        sum += term;
                        size += term * term;
                    }
                    const double unit = double{std::numeric_limits<T>::epsilon()} * std::sqrt(size);
                    right &= std::abs(double{row[i]} - sum) <= 50.0 * unit;
                }
                for (std::int64_t i = slab.nodes; i < slab.member; ++i) padded &= row[i] == T{0};
            }
        }
    }
    CHECK(right);
    CHECK(padded);
}

template <class T>
void sizes() {
    for (const bool triangular : {false, true}) {
        same_as_sums<T>({1, 1, {1, 1, 64, 0, 64}}, triangular);
        same_as_sums<T>({2, 17, {2, 65, 128, 0, 128}}, triangular);
        same_as_sums<T>({1, 130, {1, 63, 64, 0, 64}}, triangular);
#ifndef IGB_HOST_THREADS
        same_as_sums<T>({3, 2, {3, 63, 64, 128, 320}}, triangular);  // a slab from the middle of a layer
        same_as_sums<T>({2, 64, {1, 200, 256, 64, 576}}, triangular);
        same_as_sums<T>({1, 65, {2, 1, 192, 0, 192}}, triangular);  // blocks of padding alone
        same_as_sums<T>({1, 300, {3, 200, 256, 0, 256}}, triangular);
        same_as_sums<T>({0, 10, {1, 10, 64, 0, 64}}, triangular);
#endif
    }
}

}  // namespace

int main() {
    sizes<float>();
    sizes<double>();
    return summary();
}
