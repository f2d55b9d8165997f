// The kernels of cuda/weights.cu, run on the host, against the definition (core/weights.h, a number by itself), the
// CPU's rows and, for what the layers make of them, plain loops: at sizes that are no multiple of anything, over memory
// full of other numbers, of which nothing beside may change.
#include "cuda/weights.cu"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/kernels.h"

namespace {

using igb::BFloat16;
using igb::WeightLaw;
using Int = std::int64_t;

constexpr igb::StreamId id{0x123456789ABCDEF0u, 0xFFFFFFFEu, 5, static_cast<std::uint32_t>(igb::Stream::gram)};

igb::StreamId network(Int g) { return {id.seed, id.network + static_cast<std::uint32_t>(g), id.layer, id.stream}; }

template <class T>
T poison() {
    if constexpr (std::is_same_v<T, BFloat16>) {
        return {0xC640};
    } else {
        return T{-12345};
    }
}

template <class T>
bool same(T a, T b) {
    return std::memcmp(&a, &b, sizeof(T)) == 0;
}

// To two units in the last place: compilers differ in fused multiply-adds.
template <class T>
bool close(T got, T want) {
    const T unit = std::nextafter(std::abs(want), std::numeric_limits<T>::infinity()) - std::abs(want);
    return std::abs(got - want) <= 2 * unit;
}

float value(std::uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// Of the two numbers of eight bits around x the nearer, in double; where they are as near, the even one.
BFloat16 nearest(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof x);
    const std::uint32_t low = bits & 0xFFFF0000u, high = low + 0x10000u;
    const double below = std::abs(double{x} - double{value(low)}), above = std::abs(double{value(high)} - double{x});
    const bool up = above < below || (above == below && (low & 0x10000u) != 0);
    return {static_cast<std::uint16_t>((up ? high : low) >> 16)};
}

template <class T>
bool right(WeightLaw law, T got, const igb::StreamId& of, Int row, Int column) {
    using Number = std::conditional_t<std::is_same_v<T, double>, double, float>;
    const Number want =
        igb::weight_at<Number>(law, of, static_cast<std::uint32_t>(row), static_cast<std::uint64_t>(column));
    if constexpr (std::is_same_v<T, BFloat16>) {
        return same(got, nearest(want));
    } else {
        return law == WeightLaw::gaussian ? close(got, want) : same(got, want);
    }
}

// The rows that the CPU's kernels make, which begin at multiples of 64.
template <class T>
void check_rows_of_cpu(WeightLaw law, const igb::cuda::WeightBlock& block, const T* out, Int ld) {
    if constexpr (!std::is_same_v<T, BFloat16>) {
        if (block.first_column % 64 != 0) return;
        std::vector<T> row(static_cast<std::size_t>(block.columns));
        for (Int i = 0; i < block.rows; ++i) {
            igb::fill_weights(law, network(0), static_cast<std::uint32_t>(block.first_row + i), block.first_column,
                              block.columns, row.data());
            bool all = true;
            for (Int j = 0; j < block.columns; ++j) {
                const T got = out[i * ld + j], want = row[static_cast<std::size_t>(j)];
                all = all && (law == WeightLaw::gaussian ? close(got, want) : same(got, want));
            }
            CHECK(all);
        }
    }
}

template <class T>
void check_weights(WeightLaw law, const igb::cuda::WeightBlock& block, Int networks, Int ld) {
    const Int between = block.rows * ld + 3;
    std::vector<T> out(static_cast<std::size_t>(networks * between + 1), poison<T>());
    igb::cuda::fill_weights(nullptr, law, id, block, {networks, between, ld}, out.data());
    bool drawn = true, beside = same(out.back(), poison<T>());
    for (Int at = 0; at < networks * between; ++at) {
        const Int g = at / between, row = at % between / ld, column = at % between % ld;
        const T got = out[static_cast<std::size_t>(at)];
        if (row < block.rows && column < block.columns) {
            drawn = drawn && right(law, got, network(g), block.first_row + row, block.first_column + column);
        } else {
            beside = beside && same(got, poison<T>());
        }
    }
    CHECK(drawn);
    CHECK(beside);
    if (networks > 0) check_rows_of_cpu(law, block, out.data(), ld);
}

template <class T>
void check_laws() {
    for (const WeightLaw law : {WeightLaw::gaussian, WeightLaw::uniform, WeightLaw::rademacher}) {
        check_weights<T>(law, {0, 1, 0, 1}, 1, 1);
        check_weights<T>(law, {0xFFFFFFF0u, 7, 6400, 1001}, 3, 1013);
        check_weights<T>(law, {3, 2, 1984, 2177}, 1, 2177);  // blocks of 2048 columns, cut on both sides
        check_weights<T>(law, {3, 5, 7, 60}, 2, 64);         // no multiple of 64, within a block
        check_weights<T>(law, {9, 0, 0, 100}, 1, 100);
        check_weights<T>(law, {9, 3, 128, 0}, 1, 2);
        check_weights<T>(law, {9, 3, 128, 5}, 0, 5);
    }
    // The last columns that there are, whose counters end at 2^32.
    const Int end = Int{1} << (std::is_same_v<T, double> ? 33 : 34);
    for (const WeightLaw law : {WeightLaw::gaussian, WeightLaw::uniform})
        check_weights<T>(law, {0xFFFFFFFFu, 1, end - 70, 70}, 1, 70);
    CHECK_THROWS(std::invalid_argument, (check_weights<T>(WeightLaw::orthogonal, {0, 1, 0, 1}, 1, 1)));
}

// Ties, and what is a bit beside them, of both signs; the largest mantissa, which carries into the exponent.
void check_rounding() {
    for (const std::uint32_t upper : {0x3F80u, 0x3F81u, 0x3FFFu, 0xBF80u, 0xC0FFu, 0x0080u, 0x0000u}) {
        for (const std::uint32_t lower : {0x0000u, 0x0001u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
            const float x = value(upper << 16 | lower);
            CHECK(same(igb::to_bfloat16(x), nearest(x)));
        }
    }
    CHECK(igb::to_bfloat16(1.00390625f).bits == 0x3F80u);  // 1 + 2^-8: as near to 1 as to 1 + 2^-7
    CHECK(igb::to_bfloat16(1.01171875f).bits == 0x3F82u);
}

// What a tile should hold at (network, column, row): `node` is that of the member, -1 in the padding.
template <class T, class Check>
void for_tile(const igb::cuda::TileBatch& tiles, const std::vector<T>& tile, const Check& check) {
    const igb::cuda::NodeSlab& slab = tiles.slab;
    bool all = true;
    for (Int at = 0; at < tiles.size(); ++at) {
        const Int g = at / tiles.between(), a = at % tiles.between() / slab.rows(), row = at % slab.rows();
        const Int member = row / slab.member, node = row % slab.member;
        const Int column = member * slab.stride + slab.first + node;
        all = all && check(g, a, column, node < slab.nodes, tile[static_cast<std::size_t>(at)]);
    }
    CHECK(all);
    CHECK(tile.back() == poison<T>());
}

template <class T>
void check_nodes(const igb::cuda::TileBatch& tiles) {
    std::vector<T> tile(static_cast<std::size_t>(tiles.size() + 1), poison<T>());
    igb::cuda::fill_nodes(nullptr, id, tiles, tile.data());
    for_tile(tiles, tile, [](Int g, Int a, Int column, bool counts, T got) {
        return counts ? right(WeightLaw::gaussian, got, network(g), a, column) : got == T{0};
    });
}

template <class T>
void check_bias(const igb::cuda::TileBatch& tiles) {
    std::vector<T> tile(static_cast<std::size_t>(tiles.size() + 1), poison<T>());
    std::vector<double> scale(static_cast<std::size_t>(tiles.networks));
    for (std::size_t g = 0; g < scale.size(); ++g) scale[g] = 1000.0 / 3.0 + static_cast<double>(g);
    igb::cuda::add_bias(nullptr, id, scale.data(), tiles, tile.data());
    for_tile(tiles, tile, [&](Int g, Int a, Int column, bool counts, T got) {
        if (a > 0 || !counts) return got == poison<T>();
        const T normal = igb::normal_at<T>(network(g), 0, static_cast<std::uint64_t>(column));
        const T want = poison<T>() + static_cast<T>(scale[static_cast<std::size_t>(g)]) * normal;
        return std::abs(got - want) <= 2 * std::numeric_limits<T>::epsilon() * std::abs(poison<T>());
    });
}

template <class T>
void check_tiles() {
    const igb::cuda::NodeSlab slabs[] = {{1, 1, 64, 0, 64}, {3, 130, 192, 128, 320}, {2, 64, 128, 64, 128}};
    for (const igb::cuda::NodeSlab& slab : slabs) {
        check_nodes<T>({3, 5, slab});
        check_bias<T>({3, 2, slab});
    }
    check_nodes<T>({1, 0, slabs[0]});
    check_nodes<T>({2, 37, slabs[0]});
}

// One block of threads, which has to come back for every row and network, does what any grid does.
template <class T>
void check_small_grid() {
    using Normals = igb::DealtNormals<T>;
    const igb::cuda::WeightBlock block{3, 7, 64, 100};
    const igb::cuda::WeightBatch batch{3, 7 * 101, 101};
    std::vector<T> want(3 * 7 * 101, poison<T>()), got = want;
    igb::cuda::fill_weights(nullptr, WeightLaw::gaussian, id, block, batch, want.data());
    const Int counters = 2 * 128 / Normals::parts;
    igb::cuda::launch(nullptr, {1}, {static_cast<unsigned>(counters), 2}, igb::cuda::weights_kernel<Normals, T>, id,
                      block, batch, counters, got.data());
    CHECK(std::memcmp(got.data(), want.data(), got.size() * sizeof(T)) == 0);

    const igb::cuda::TileBatch tiles{3, 7, {1, 60, 64, 0, 64}};
    want.assign(static_cast<std::size_t>(tiles.size()), poison<T>());
    got = want;
    igb::cuda::fill_nodes(nullptr, id, tiles, want.data());
    igb::cuda::launch(nullptr, {1}, {64, 2}, igb::cuda::nodes_kernel<T>, id, tiles, got.data());
    CHECK(got == want);
    const std::vector<double> scale{1.0, 2.0, 3.0};
    igb::cuda::add_bias(nullptr, id, scale.data(), tiles, want.data());
    igb::cuda::launch(nullptr, {1}, {64}, igb::cuda::bias_kernel<T>, id, scale.data(), tiles, got.data());
    CHECK(got == want);
}

// Every place of a row has a thread, and no launch is larger than a GPU takes.
void check_row_grid() {
    for (const Int length : {1, 16, 17, 200, 256, 257, 1 << 20}) {
        for (const Int rows : {Int{1}, Int{9}, Int{70000}, Int{1} << 32}) {
            for (const Int matrices : {1, 5, 70000}) {
                const igb::cuda::RowGrid grid = igb::cuda::row_grid(length, rows, matrices);
                CHECK(Int{grid.blocks.x} * grid.threads.x >= length &&
                      Int{grid.blocks.x - 1} * grid.threads.x < length);
                CHECK(grid.threads.x * grid.threads.y == 256 && grid.threads.x % 16 == 0);
                CHECK(grid.blocks.y >= 1 && grid.blocks.y <= 65535 && grid.blocks.z >= 1 && grid.blocks.z <= 65535);
                CHECK(Int{grid.blocks.y - 1} * grid.threads.y < rows && Int{grid.blocks.z} <= matrices);
            }
        }
    }
}

}  // namespace

int main() {
    check_laws<float>();
    check_laws<double>();
    check_laws<BFloat16>();
    check_rounding();
    check_tiles<float>();
    check_tiles<double>();
    check_small_grid<float>();
    check_small_grid<double>();
    check_row_grid();
    return summary();
}
