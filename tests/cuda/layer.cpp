// The kernels of cuda/layer.cu, run on the host, against the CPU's or plain loops: sums, pools, norms, products, the
// statistics of nodes and histograms, at sizes that are no multiple of anything.
#include "cuda/layer.cu"

#include <bit>
#include <map>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/layer.h"
#include "layer_tiles.h"

namespace {

using namespace igb::test;
using igb::PoolKind;
using igb::cuda::TileBatch;

template <class T>
std::vector<TileBatch> batches() {
#ifdef IGB_HOST_THREADS
    return {std::is_same_v<T, float> ? batch_of(2, 3, 3, 33) : batch_of(1, 2, 2, 1025)};
#else
    return {batch_of(1, 1, 1, 1),   batch_of(2, 2, 2, 33),    batch_of(3, 5, 3, 100),
            batch_of(1, 100, 7, 5), batch_of(1, 1025, 1, 33), batch_of(2, 3, 2, 1100)};
#endif
}

template <class T>
std::vector<T> any_tiles(const TileBatch& batch) {
    return random_tiles<T>(batch, normal, [] { return of_any_size(1e-30, 3.0); });
}

template <class F>
void for_members(const TileBatch& batch, F&& f) {
    for (std::int64_t g = 0; g < batch.networks; ++g) {
        for (std::int64_t s = 0; s < batch.slab.members; ++s) f(g, s * batch.slab.member);
    }
}

// ---- Sums of nodes and of columns -----------------------------------------------------------------------------------

template <class T>
void sums_of_nodes(const TileBatch& batch) {
    const std::vector<T> tile = any_tiles<T>(batch);
    const std::int64_t rows = batch.slab.rows(), all = batch.networks * rows;
    Output<double> origin(all), sum(all), sum2(all), scratch(igb::cuda::sum_nodes_scratch(batch));
    igb::cuda::sum_nodes(nullptr, batch, tile.data(), origin.get(), sum.get(), sum2.get(), scratch.get());
    for_members(batch, [&](std::int64_t g, std::int64_t row) {
        std::vector<double> o(at(batch.slab.member)), s(o), s2(o);
        const igb::NodeMoments to{o.data(), s.data(), s2.data(), nullptr, nullptr};
        igb::sum_tile(batch.slab.nodes, batch.columns, tile.data() + place(batch, g, 0, row), rows, to);
        for (std::int64_t i = 0; i < batch.slab.nodes; ++i) {
            const std::int64_t node = g * rows + row + i;
            const double rounding = 140 * epsilon<T>;
            double size = 0.0;
            for (std::int64_t a = 1; a < batch.columns; ++a)
                size += std::abs(static_cast<double>(tile[at(place(batch, g, a, row + i))]));
            CHECK(origin[node] == o[at(i)]);
            CHECK_CLOSE(sum[node], s[at(i)], rounding * size);
            CHECK_CLOSE(sum2[node], s2[at(i)], rounding * s2[at(i)] + 70 * tiniest<T>);
        }
    });
    CHECK(origin.end_stands() && sum.end_stands() && sum2.end_stands() && scratch.end_stands());
}

template <class T>
void sums_of_columns(const TileBatch& batch) {
    const std::vector<T> tile = any_tiles<T>(batch);
    Output<double> sums(3 * batch.networks * batch.columns), scratch(igb::cuda::sum_columns_scratch(batch));
    igb::cuda::sum_columns(nullptr, batch, tile.data(), sums.get(), scratch.get());
    for (std::int64_t g = 0; g < batch.networks; ++g) {
        std::vector<double> from_cpu(at(batch.columns), 0.0);
        for (std::int64_t s = 0; s < batch.slab.members; ++s) {
            igb::add_column_sums(batch.slab.nodes, batch.columns,
                                 tile.data() + place(batch, g, 0, s * batch.slab.member), batch.slab.rows(),
                                 from_cpu.data());
        }
        for (std::int64_t a = 0; a < batch.columns; ++a) {
            double size = 0.0, cross = 0.0, cross_size = 0.0, square = 0.0;
            for (std::int64_t row = 0; row < batch.slab.rows(); ++row) {
                if (!counts(batch, row)) continue;
                const double d = static_cast<double>(tile[at(place(batch, g, a, row))]);
                const double y = static_cast<double>(tile[at(place(batch, g, 0, row))]);
                size += std::abs(d);
                cross += d * y;
                cross_size += std::abs(d * y);
                square += d * d;
            }
            const std::int64_t here = 3 * (g * batch.columns + a);
            CHECK_CLOSE(sums[here], from_cpu[at(a)], 1e-13 * size);
            CHECK_CLOSE(sums[here + 1], cross, 1e-13 * cross_size);
            CHECK_CLOSE(sums[here + 2], square, 1e-13 * square);
        }
    }
    CHECK(sums.end_stands() && scratch.end_stands());
}

// ---- Pools ----------------------------------------------------------------------------------------------------------

template <class T>
void pools(const TileBatch& batch, PoolKind kind, bool with_shares) {
    std::vector<T> tile = any_tiles<T>(batch);
    // Ties, and members that are far behind.
    for_members(batch, [&](std::int64_t g, std::int64_t row) {
        for (std::int64_t a = 0; a < batch.columns; ++a) {
            tile[at(place(batch, g, a, row))] = a == 0 ? T{1} : T{0.25};
            if (batch.slab.nodes > 1) tile[at(place(batch, g, a, row + 1))] *= T{100};
        }
    });
    const std::vector<T> before = tile;
    std::vector<double> units;
    for (std::int64_t g = 0; g < batch.networks; ++g) units.insert(units.end(), {2.0, g == 1 ? 1e-300 : 0x1p-20});
    Output<T> shares(batch.size());
    Output<double> norms(2 * batch.networks), scratch(igb::cuda::pool_scratch(batch));
    igb::cuda::pool(nullptr, kind, batch, tile.data(), units.data(), with_shares ? shares.get() : nullptr, norms.get(),
                    scratch.get());
    const std::int64_t rows = batch.slab.rows();
    for (std::int64_t g = 0; g < batch.networks; ++g) {
        const auto first = before.begin() + g * batch.between();
        std::vector<T> want(first, first + batch.between()), want_shares(want.size());
        const igb::TileShape shape{batch.slab.nodes, batch.columns, rows, batch.slab.members, batch.slab.member};
        const igb::TileNorms sizes =
            igb::pool_tile(kind, shape, want.data(), {units[at(2 * g)], units[at(2 * g + 1)]}, want_shares.data());
        for (std::int64_t a = 0; a < batch.columns; ++a) {
            for (std::int64_t row = 0; row < rows; ++row) {
                const std::int64_t here = place(batch, g, a, row), there = a * rows + row;
                if (!counts(batch, row)) continue;
                if (row < batch.slab.nodes) {
                    const double x = static_cast<double>(want[at(there)]);
                    CHECK_CLOSE(tile[at(here)], x, 4 * epsilon<T> * std::abs(x) + tiniest<T>);
                } else {
                    CHECK(tile[at(here)] == before[at(here)]);
                }
                if (with_shares) CHECK(shares[here] == want_shares[at(there)]);
            }
        }
        CHECK_CLOSE(norms[2 * g], sizes.origin, 70 * epsilon<T> * sizes.origin);
        CHECK_CLOSE(norms[2 * g + 1], sizes.difference, 200 * epsilon<T> * sizes.difference + 1e3 * tiniest<T>);
    }
    CHECK(shares.end_stands() && norms.end_stands() && scratch.end_stands() && tile.back() == T{1000});
}

// ---- Norms and products ---------------------------------------------------------------------------------------------

template <class T>
void maps(const TileBatch& batch) {
    std::vector<T> tile = any_tiles<T>(batch);
    const std::vector<T> before = tile;
    std::vector<double> numbers;
    for (std::int64_t i = 0; i < 3 * batch.networks * batch.columns; ++i) numbers.push_back(normal());
    igb::cuda::map_columns(nullptr, batch, numbers.data(), tile.data());
    for_members(batch, [&](std::int64_t g, std::int64_t row) {
        std::vector<igb::ColumnMap> of_network;
        for (std::int64_t a = 0; a < batch.columns; ++a) {
            const double* const map = numbers.data() + 3 * (g * batch.columns + a);
            of_network.push_back({map[0], map[1], map[2]});
        }
        const auto first = before.begin() + g * batch.between();
        std::vector<T> want(first, first + batch.between());
        igb::map_tile(of_network.data(), batch.slab.nodes, batch.columns, want.data() + row, batch.slab.rows());
        for (std::int64_t a = 0; a < batch.columns; ++a) {
            for (std::int64_t i = 0; i < batch.slab.nodes; ++i) {
                const double x = static_cast<double>(want[at(a * batch.slab.rows() + row + i)]);
                CHECK_CLOSE(tile[at(place(batch, g, a, row + i))], x, epsilon<T> * std::abs(x) + 1e-14);
            }
        }
    });
    CHECK(tile.back() == T{1000});
}

template <class T>
void products(const TileBatch& batch, bool with_squares) {
    const std::vector<T> a = any_tiles<T>(batch), b = any_tiles<T>(batch);
    std::vector<double> weights;
    for (std::int64_t i = 0; i < batch.networks * batch.columns; ++i) weights.push_back(std::abs(normal()));
    const std::int64_t rows = batch.slab.rows();
    Output<double> squares(batch.networks * rows), scratch(igb::cuda::multiply_scratch(batch));
    std::vector<T> out = a;  // in place
    igb::cuda::multiply(nullptr, batch, out.data(), b.data(), out.data(), with_squares ? weights.data() : nullptr,
                        with_squares ? squares.get() : nullptr, scratch.get());
    for_members(batch, [&](std::int64_t g, std::int64_t row) {
        std::vector<T> want(at(batch.between()));
        std::vector<double> want_squares(at(batch.slab.member));
        const std::int64_t from = place(batch, g, 0, row);
        igb::multiply_tiles(batch.slab.nodes, batch.columns, a.data() + from, rows, b.data() + from, rows,
                            want.data() + row, rows, weights.data() + g * batch.columns, want_squares.data());
        for (std::int64_t i = 0; i < batch.slab.nodes; ++i) {
            for (std::int64_t c = 0; c < batch.columns; ++c) {
                CHECK(out[at(place(batch, g, c, row + i))] == want[at(c * rows + row + i)]);
            }
            if (!with_squares) continue;
            CHECK_CLOSE(squares[g * rows + row + i], want_squares[at(i)], 1e-13 * want_squares[at(i)]);
        }
    });
    CHECK(squares.end_stands() && scratch.end_stands() && out.back() == a.back());
}

// ---- Nodes ----------------------------------------------------------------------------------------------------------

// A slab in the middle of its layer, against igb::sum_tile_nodes: sums, what it writes for each node, histograms.
void node_statistics(std::int64_t networks, std::int64_t members, std::int64_t nodes, std::int64_t first) {
    const std::int64_t member = (nodes + 63) / 64 * 64, rows = members * member, pools = first + nodes + 3;
    const std::int64_t inputs = 17, slope_rows = member + 64;
    const igb::cuda::NodeSlab slab{members, nodes, member, first, (pools + 63) / 64 * 64};
    std::vector<double> units, numbers[3], slopes[2];
    for (std::int64_t i = 0; i < networks * rows; ++i) {
        const double mean = normal();
        numbers[0].push_back(3.0 + normal());
        numbers[1].push_back(static_cast<double>(inputs) * mean);
        numbers[2].push_back(static_cast<double>(inputs) * mean * mean *
                             (1.0 + (i % 7 == 0 ? -1e-17 : std::abs(normal()))));
    }
    for (std::int64_t i = 0; i < networks * slope_rows; ++i) {
        for (auto& each : slopes) each.push_back(std::abs(normal()));
    }
    for (std::int64_t g = 0; g < networks; ++g) units.insert(units.end(), {2.0, g % 2 == 0 ? 0.25 : 0x1p-40});
    const std::int64_t per_network = 2 * members * pools;  // every second layer
    Output<double> sums(12 * networks), mu(networks * per_network), var(networks * per_network);
    Output<double> scratch(igb::cuda::sum_layer_scratch(networks, slab));
    std::vector<unsigned long long> counts[2];
    for (auto& each : counts) each.assign(at(networks * igb::histogram_bins), 5);
    igb::cuda::sum_layer(
        nullptr, {networks, inputs, slab, units.data(), numbers[0].data(), numbers[1].data(), numbers[2].data(),
                  slopes[0].data(), slopes[1].data(), slope_rows, sums.get(), mu.get(), var.get(), pools, per_network,
                  counts[0].data(), counts[1].data(), scratch.get()});
    igb::NodeLayout layout;
    layout.members = members;
    layout.pools = pools;
    for (std::int64_t g = 0; g < networks; ++g) {
        igb::TileScratch<double> s;
        const auto copy = [](igb::AlignedVector<double>& to, const std::vector<double>& from, std::int64_t begin,
                             std::int64_t count) {
            to.resize(at(count));
            std::copy_n(from.begin() + begin, count, to.begin());
        };
        copy(s.origin, numbers[0], g * rows, rows);
        copy(s.sum, numbers[1], g * rows, rows);
        copy(s.sum2, numbers[2], g * rows, rows);
        copy(s.origin_slope2, slopes[0], g * slope_rows, member);
        copy(s.slope2, slopes[1], g * slope_rows, member);
        std::vector<double> want_mu(at(members * pools), poison), want_var(want_mu);
        igb::sum_tile_nodes<double>(layout, first, {nodes, inputs, rows, members, member},
                                    {units[at(2 * g)], units[at(2 * g + 1)]}, s, want_mu.data(), want_var.data(),
                                    nullptr);
        const igb::NodeSums& n = s.nodes;
        const double want[12] = {n.count, n.u,  n.u2,  n.u3,        n.u4,    n.v,
                                 n.v2,    n.uv, n.u2v, s.chi.count, s.chi.w, s.chi.w2};
        for (int k = 0; k < 12; ++k) CHECK_CLOSE(sums[12 * g + k], want[k], 1e-12 * std::abs(want[k]));
        std::map<std::uint64_t, unsigned long long> bins[2];
        for (std::int64_t node = 0; node < members * pools; ++node) {
            const double m = mu[g * per_network + node], v = var[g * per_network + node];
            CHECK_CLOSE(m, want_mu[at(node)], 1e-14 * std::abs(want_mu[at(node)]));
            CHECK_CLOSE(v, want_var[at(node)], 1e-13 * std::abs(want_var[at(node)]));
            if (m == poison) continue;
            ++bins[0][std::bit_cast<std::uint64_t>(m) >> 48];
            ++bins[1][std::bit_cast<std::uint64_t>(v) >> 48];
        }
        for (std::int64_t node = members * pools; node < per_network; ++node) {
            CHECK(mu[g * per_network + node] == poison && var[g * per_network + node] == poison);
        }
        for (int which = 0; which < 2; ++which) {
            bool right = true;
            for (std::int64_t b = 0; b < igb::histogram_bins; ++b) {
                const auto found = bins[which].find(static_cast<std::uint64_t>(b));
                const unsigned long long more = found == bins[which].end() ? 0 : found->second;
                right = right && counts[which][at(g * igb::histogram_bins + b)] == 5 + more;
            }
            CHECK(right);
        }
    }
    CHECK(sums.end_stands() && mu.end_stands() && var.end_stands() && scratch.end_stands());
}

void histograms() {
    const std::int64_t count = 1001;
    std::vector<double> values;
    for (std::int64_t i = 0; i < 2 * count; ++i) values.push_back(of_any_size(1e-300, 1e300));
    values[3] = std::numeric_limits<double>::quiet_NaN();
    std::vector<unsigned long long> counts(at(2 * igb::histogram_bins), 0);
    std::vector<unsigned long long> want(counts);
    igb::cuda::count_values(nullptr, 2, count, values.data(), counts.data());
    for (std::int64_t i = 0; i < 2 * count; ++i)
        ++want[at(i / count * igb::histogram_bins) +
               static_cast<std::size_t>(std::bit_cast<std::uint64_t>(values[at(i)]) >> 48)];
    CHECK(counts == want);
}

template <class T>
void all() {
    for (const TileBatch& batch : batches<T>()) {
        sums_of_nodes<T>(batch);
        sums_of_columns<T>(batch);
        for (const PoolKind kind : {PoolKind::max, PoolKind::min, PoolKind::average}) pools<T>(batch, kind, true);
        pools<T>(batch, PoolKind::max, false);
        pools<T>(batch, PoolKind::average, false);
        maps<T>(batch);
        products<T>(batch, true);
        products<T>(batch, false);
    }
}

}  // namespace

int main() {
    all<float>();
    all<double>();
    node_statistics(2, 3, 33, 64);
    node_statistics(1, 1, 1100, 0);
    histograms();
    return summary();
}
