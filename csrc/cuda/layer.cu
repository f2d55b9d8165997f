// Pools, norms, products and sums (see layer.h), all but the last two as walks over columns or sums over rows
// (column_walk.h).
#include "cuda/layer.h"

#include <algorithm>
#include <type_traits>

#include "core/histogram_bin.h"
#include "core/statistics.h"
#include "cuda/column_walk.h"

namespace igb::cuda {
namespace {

struct None {};

std::int64_t walk_scratch(const Walk& walk, std::int64_t sums) {
    return walk.networks * walk.parts() * sums * walk.rows;
}

// ---- Sums of nodes --------------------------------------------------------------------------------------------------

// y_0, sum_a d_a and sum_a d_a^2 of every row.
template <class T>
struct SumNodes {
    static constexpr unsigned sums = 2, batch = 8;
    using Given = T;

    struct Row {
        const T* column;
        T s1, s2;
    };

    TileBatch tiles;
    const T* tile;
    double *origin, *sum, *sum2;

    IGB_DEVICE Row start(std::int64_t network, std::int64_t row) const {
        return {tile + network * tiles.between() + row, T{0}, T{0}};
    }
    IGB_DEVICE T load(const Row& here, std::int64_t column) const { return here.column[column * tiles.slab.rows()]; }
    IGB_DEVICE void take(Row& here, std::int64_t, T d) const {
        here.s1 += d;
        here.s2 += d * d;
    }
    IGB_DEVICE Doubles<sums> end(const Row& here) const {
        return {{static_cast<double>(here.s1), static_cast<double>(here.s2)}};
    }
    IGB_DEVICE void finish(std::int64_t network, std::int64_t row, const Doubles<sums>& total) const {
        const std::int64_t at = network * tiles.slab.rows() + row;
        origin[at] = static_cast<double>(*start(network, row).column);
        sum[at] = total.v[0];
        sum2[at] = total.v[1];
    }
};

// ---- Pools ----------------------------------------------------------------------------------------------------------

// The largest (sign = 1) or smallest (-1) of the members of every pool. With M the largest origin, the largest value
// less M is the largest of g_s + d_s, where g_s = y_0s - M <= 0, and 0 for the winner; the first of equals wins. The
// origins of the members are read again for every column: they stay in the first-level cache.
template <class T>
struct PoolExtremes {
    static constexpr unsigned sums = 1, batch = 1;
    using Given = None;

    struct Row {
        T* column;
        T* shares;
        T top;
        double ratio;
        T norm2;
    };

    TileBatch tiles;
    T sign;
    T* tile;
    const double* units;
    T* shares;
    double* row_norms;  // (networks, 2, member), or null

    IGB_DEVICE Row start(std::int64_t network, std::int64_t row) const {
        const std::int64_t at = network * tiles.between() + row;
        const double quotient = units[2 * network] / units[2 * network + 1];
        Row here{tile + at, shares != nullptr ? shares + at : nullptr, T{0}, quotient < largest ? quotient : largest,
                 T{0}};
        here.top = sign * here.column[winner(here, 0, true) * tiles.slab.member];
        return here;
    }
    IGB_DEVICE None load(const Row&, std::int64_t) const { return {}; }
    IGB_DEVICE void take(Row& here, std::int64_t column, None) const {
        T value = T{0};
        const std::int64_t member = winner(here, column, false, &value);
        const T result = sign * value;
        here.column[column * tiles.slab.rows()] = result;
        here.norm2 += result * result;
        write_shares(here, column, member);
    }
    IGB_DEVICE Doubles<sums> end(const Row& here) const { return {{static_cast<double>(here.norm2)}}; }
    IGB_DEVICE void finish(std::int64_t network, std::int64_t row, const Doubles<sums>& total) const {
        const Row here = start(network, row);
        write_shares(here, 0, winner(here, 0, true));
        const T result = sign * here.top;
        *here.column = result;
        if (row_norms == nullptr) return;
        double* const norms = row_norms + 2 * network * tiles.slab.member + row;
        norms[0] = static_cast<double>(result) * static_cast<double>(result);
        norms[tiles.slab.member] = total.v[0];
    }

private:
    static constexpr double largest = std::is_same_v<T, float> ? 0x1p126 : 0x1p1022;

    IGB_DEVICE T behind(const Row& here, std::int64_t s) const {
        const T origin = sign * here.column[s * tiles.slab.member];
        const double apart = (static_cast<double>(origin) - static_cast<double>(here.top)) * here.ratio;
        return static_cast<T>(apart < -largest ? -largest : apart);
    }

    IGB_DEVICE std::int64_t winner(const Row& here, std::int64_t column, bool is_origin, T* value = nullptr) const {
        std::int64_t best = 0;
        T most = T{0};
        for (std::int64_t s = 0; s < tiles.slab.members; ++s) {
            const T own = sign * here.column[column * tiles.slab.rows() + s * tiles.slab.member];
            const T offered = is_origin ? own : behind(here, s) + own;
            if (s == 0 || offered > most) {
                most = offered;
                best = s;
            }
        }
        if (value != nullptr) *value = most;
        return best;
    }

    IGB_DEVICE void write_shares(const Row& here, std::int64_t column, std::int64_t member) const {
        if (here.shares == nullptr) return;
        T* const out = here.shares + column * tiles.slab.rows();
        for (std::int64_t s = 0; s < tiles.slab.members; ++s) out[s * tiles.slab.member] = s == member ? T{1} : T{0};
    }
};

template <class T>
struct PoolAverages {
    static constexpr unsigned sums = 1, batch = 1;
    using Given = None;

    struct Row {
        T* column;
        T* shares;
        T norm2;
    };

    TileBatch tiles;
    T share;
    T* tile;
    T* shares;
    double* row_norms;

    IGB_DEVICE Row start(std::int64_t network, std::int64_t row) const {
        const std::int64_t at = network * tiles.between() + row;
        return {tile + at, shares != nullptr ? shares + at : nullptr, T{0}};
    }
    IGB_DEVICE None load(const Row&, std::int64_t) const { return {}; }
    IGB_DEVICE void take(Row& here, std::int64_t column, None) const {
        const T result = average(here, column);
        here.norm2 += result * result;
    }
    IGB_DEVICE Doubles<sums> end(const Row& here) const { return {{static_cast<double>(here.norm2)}}; }
    IGB_DEVICE void finish(std::int64_t network, std::int64_t row, const Doubles<sums>& total) const {
        const T result = average(start(network, row), 0);
        if (row_norms == nullptr) return;
        double* const norms = row_norms + 2 * network * tiles.slab.member + row;
        norms[0] = static_cast<double>(result) * static_cast<double>(result);
        norms[tiles.slab.member] = total.v[0];
    }

private:
    IGB_DEVICE T average(const Row& here, std::int64_t column) const {
        const std::int64_t begin = column * tiles.slab.rows(), end = begin + tiles.slab.rows();
        T sum = T{0};
        for (std::int64_t at = begin; at < end; at += tiles.slab.member) {
            sum += here.column[at];
            if (here.shares != nullptr) here.shares[at] = share;
        }
        return here.column[begin] = sum * share;
    }
};

// ---- Norms and products ---------------------------------------------------------------------------------------------

// y_0' = scale y_0 + shift, d' = scale d + from_origin y_0 + shift, with the y_0 from before.
template <class T>
struct MapColumns {
    static constexpr unsigned sums = 0, batch = 4;
    using Given = T;

    struct Row {
        T* column;
        const double* maps;
        double origin;
    };

    TileBatch tiles;
    const double* maps;
    T* tile;

    IGB_DEVICE Row start(std::int64_t network, std::int64_t row) const {
        T* const column = tile + network * tiles.between() + row;
        return {column, maps + 3 * network * tiles.columns, static_cast<double>(*column)};
    }
    IGB_DEVICE T load(const Row& here, std::int64_t column) const { return here.column[column * tiles.slab.rows()]; }
    IGB_DEVICE void take(Row& here, std::int64_t column, T d) const {
        const double* const map = here.maps + 3 * column;
        here.column[column * tiles.slab.rows()] =
            static_cast<T>(map[0] * static_cast<double>(d) + (map[1] * here.origin + map[2]));
    }
    IGB_DEVICE Doubles<sums> end(const Row&) const { return {}; }
    IGB_DEVICE void finish(std::int64_t network, std::int64_t row, const Doubles<sums>&) const {
        const Row here = start(network, row);
        *here.column = static_cast<T>(here.maps[0] * here.origin + here.maps[2]);
    }
};

// a b, and sum_a weight_a (a b)^2 of every row.
template <class T>
struct Multiply {
    static constexpr unsigned sums = 1, batch = 4;

    struct Given {
        T a, b;
    };

    struct Row {
        std::int64_t at;
        const double* weights;
        double squares;
    };

    TileBatch tiles;
    const T *a, *b;
    T* out;
    const double* weights;
    double* squares;

    IGB_DEVICE Row start(std::int64_t network, std::int64_t row) const {
        return {network * tiles.between() + row, weights != nullptr ? weights + network * tiles.columns : nullptr, 0.0};
    }
    IGB_DEVICE Given load(const Row& here, std::int64_t column) const {
        const std::int64_t at = here.at + column * tiles.slab.rows();
        return {a[at], b[at]};
    }
    IGB_DEVICE void take(Row& here, std::int64_t column, const Given& given) const {
        const T product = given.a * given.b;
        out[here.at + column * tiles.slab.rows()] = product;
        if (here.weights == nullptr) return;
        here.squares += here.weights[column] * (static_cast<double>(product) * static_cast<double>(product));
    }
    IGB_DEVICE Doubles<sums> end(const Row& here) const { return {{here.squares}}; }
    IGB_DEVICE void finish(std::int64_t network, std::int64_t row, const Doubles<sums>& total) const {
        Row here = start(network, row);
        take(here, 0, load(here, 0));
        if (squares != nullptr) squares[network * tiles.slab.rows() + row] = here.squares + total.v[0];
    }
};

// ---- Sums over nodes ------------------------------------------------------------------------------------------------

// Of d, d y_0 and d^2, for each column of each network: one set.
template <class T>
struct ColumnProducts {
    struct Sums {
        double sum, with_origin, square;
    };

    TileBatch tiles;
    const T* tile;

    IGB_DEVICE void add(std::int64_t set, std::int64_t member, std::int64_t node, Sums& sums) const {
        const std::int64_t rows = tiles.slab.rows(), network = set / tiles.columns,
                           at = member * tiles.slab.member + node;
        const double d = static_cast<double>(tile[set * rows + at]);
        sums.sum += d;
        sums.with_origin += d * static_cast<double>(tile[network * tiles.between() + at]);
        sums.square += d * d;
    }
};

IGB_DEVICE void count_value(double value, unsigned long long* counts) {
    atomicAdd(counts + histogram_bin(value), 1ull);
}

// Centre u_i = y_0 + mean d and variance v_i over the inputs of every node, and the squared slope of every pool.
struct NodeStatistics {
    struct Sums {
        NodeSums nodes;
        SlopeSums chi;
    };

    NodeTask task;

    IGB_DEVICE void add(std::int64_t network, std::int64_t member, std::int64_t node, Sums& sums) const {
        const NodeSlab& slab = task.slab;
        const double inputs = static_cast<double>(task.inputs);
        const double unit = task.units[2 * network], spread = task.units[2 * network + 1];
        const std::int64_t at = network * slab.rows() + member * slab.member + node;
        const double mean = task.sum[at] / inputs;
        const double centre = task.origin[at] + spread / unit * mean;
        const double m2 = task.sum2[at] - task.sum[at] * mean;
        const double variance = (m2 < 0.0 ? 0.0 : m2) / (inputs - 1.0);
        sums.nodes.add(centre, variance);
        const double mu = unit * centre, var = spread * spread * variance;
        const std::int64_t number = network * task.per_network + member * task.pools + slab.first + node;
        if (task.mu != nullptr) task.mu[number] = mu;
        if (task.var != nullptr) task.var[number] = var;
        if (task.mu_counts != nullptr) {
            count_value(mu, task.mu_counts + network * histogram_bins);
            count_value(var, task.var_counts + network * histogram_bins);
        }
        if (member > 0) return;
        const std::int64_t pool = network * task.slope_rows + node;
        sums.chi.add((task.origin_slope2[pool] + task.slope2[pool]) / inputs);
    }
};

// Blocks: (values, networks).
IGB_KERNEL(threads_per_block)
count_values_kernel(std::int64_t count, const double* values, unsigned long long* counts) {
    const std::int64_t stride = std::int64_t{gridDim.x} * threads_per_block, network = blockIdx.y;
    for (std::int64_t i = std::int64_t{blockIdx.x} * threads_per_block + threadIdx.x; i < count; i += stride) {
        count_value(values[network * count + i], counts + network * histogram_bins);
    }
}

Walk all_rows(const TileBatch& tiles) { return {tiles.networks, tiles.columns, tiles.slab.rows()}; }
Walk first_member(const TileBatch& tiles) { return {tiles.networks, tiles.columns, tiles.slab.member}; }
RowSums nodes_of(std::int64_t sets, const NodeSlab& slab) { return {sets, slab.members, slab.nodes}; }

}  // namespace

template <class T>
void sum_nodes(GpuStream stream, const TileBatch& tiles, const T* tile, double* origin, double* sum, double* sum2,
               double* scratch) {
    walk_columns(stream, SumNodes<T>{tiles, tile, origin, sum, sum2}, all_rows(tiles), scratch);
}

std::int64_t sum_nodes_scratch(const TileBatch& tiles) { return walk_scratch(all_rows(tiles), 2); }

template <class T>
void pool(GpuStream stream, PoolKind kind, const TileBatch& tiles, T* tile, const double* units, T* shares,
          double* norms, double* scratch) {
    const NodeSlab& slab = tiles.slab;
    double* const row_norms = norms != nullptr ? scratch : nullptr;
    double* const parts = scratch + 2 * tiles.networks * slab.member;
    const Walk walk = first_member(tiles);
    if (kind == PoolKind::average) {
        const T share = static_cast<T>(1.0 / static_cast<double>(slab.members));
        walk_columns(stream, PoolAverages<T>{tiles, share, tile, shares, row_norms}, walk, parts);
    } else {
        const T sign = static_cast<T>(kind == PoolKind::min ? -1 : 1);
        walk_columns(stream, PoolExtremes<T>{tiles, sign, tile, units, shares, row_norms}, walk, parts);
    }
    if (norms == nullptr) return;
    sum_over_rows(stream, RowNorms{row_norms, slab.member, slab.member}, RowSums{tiles.networks, 1, slab.nodes}, norms,
                  parts + walk_scratch(walk, 1));
}

std::int64_t pool_scratch(const TileBatch& tiles) {
    const RowSums norms{tiles.networks, 1, tiles.slab.nodes};
    return 2 * tiles.networks * (tiles.slab.member + norms.parts()) + walk_scratch(first_member(tiles), 1);
}

template <class T>
void map_columns(GpuStream stream, const TileBatch& tiles, const double* maps, T* tile) {
    walk_columns(stream, MapColumns<T>{tiles, maps, tile}, all_rows(tiles), nullptr);
}

template <class T>
void multiply(GpuStream stream, const TileBatch& tiles, const T* a, const T* b, T* out, const double* weights,
              double* squares, double* scratch) {
    walk_columns(stream, Multiply<T>{tiles, a, b, out, weights, squares}, all_rows(tiles), scratch);
}

std::int64_t multiply_scratch(const TileBatch& tiles) { return walk_scratch(all_rows(tiles), 1); }

template <class T>
void sum_columns(GpuStream stream, const TileBatch& tiles, const T* tile, double* sums, double* scratch) {
    sum_over_rows(stream, ColumnProducts<T>{tiles, tile}, nodes_of(tiles.networks * tiles.columns, tiles.slab), sums,
                  scratch);
}

std::int64_t sum_columns_scratch(const TileBatch& tiles) {
    return 3 * tiles.networks * tiles.columns * nodes_of(1, tiles.slab).parts();
}

void sum_layer(GpuStream stream, const NodeTask& task) {
    sum_over_rows(stream, NodeStatistics{task}, nodes_of(task.networks, task.slab), task.sums, task.scratch);
}

std::int64_t sum_layer_scratch(std::int64_t networks, const NodeSlab& slab) {
    return 12 * networks * nodes_of(1, slab).parts();
}

void count_values(GpuStream stream, std::int64_t networks, std::int64_t count, const double* values,
                  unsigned long long* counts) {
    constexpr std::int64_t most_blocks = 1024;
    const std::int64_t blocks = std::min(most_blocks, parts_of(count, threads_per_block));
    launch(stream, Grid{static_cast<unsigned>(blocks), static_cast<unsigned>(networks)}, Grid{threads_per_block},
           count_values_kernel, count, values, counts);
}

#define IGB_INSTANTIATE(T)                                                                                        \
    template void sum_nodes(GpuStream, const TileBatch&, const T*, double*, double*, double*, double*);           \
    template void pool(GpuStream, PoolKind, const TileBatch&, T*, const double*, T*, double*, double*);           \
    template void map_columns(GpuStream, const TileBatch&, const double*, T*);                                    \
    template void multiply(GpuStream, const TileBatch&, const T*, const T*, T*, const double*, double*, double*); \
    template void sum_columns(GpuStream, const TileBatch&, const T*, double*, double*)

IGB_INSTANTIATE(float);
IGB_INSTANTIATE(double);

}  // namespace igb::cuda
