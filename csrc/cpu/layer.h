// What the engines share: how nodes are cut into tiles, the inputs, all that happens to a tile of nodes once the linear
// part of a layer is there (bias, norm, nonlinearity, pool, statistics of the nodes), and the estimates of the layer.
#pragma once

#include "core/statistics.h"
#include "cpu/activate.h"
#include "cpu/aligned.h"
#include "cpu/forward.h"
#include "cpu/histogram.h"

namespace igb {

inline constexpr Size columns_per_block =
    64;  // random numbers are made in blocks of so many: tiles are multiples of it

// How the nodes of a layer, and the features of the inputs, are cut into tiles.
struct Tiling {
    Size count;  // of nodes (of one member of each pool) in all
    Size size;   // of them in a tile

    Size tiles() const { return (count + size - 1) / size; }
    Size begin(Size tile) const { return tile * size; }
    Size nodes(Size tile) const { return tile + 1 < tiles() ? size : count - begin(tile); }
};

// Which nodes make a pool: those p, p + pools, p + 2 pools, ... A tile of pools [begin, begin + n) holds all their
// members, each in rows of its own (TileShape), so that it needs nothing from other tiles. Random numbers of node
// (member s, pool p) are those of column s * stride + p.
struct NodeLayout {
    Size members = 1, pools = 1, stride = 64;

    NodeLayout() = default;
    explicit NodeLayout(const ForwardRequest& request)
        : members(request.members()), pools(request.pools()),
          stride((pools + columns_per_block - 1) / columns_per_block * columns_per_block) {}
    Size node(Size member, Size pool) const { return member * pools + pool; }     // as the caller numbers them
    Size column(Size member, Size pool) const { return member * stride + pool; }  // of the random numbers
};

// The tile size asked for, or the largest that keeps a tile of `columns` columns in half of a typical second-level
// cache.
Size choose_tile(const ForwardRequest&, Size columns, std::size_t element_size);

// How many networks go through the layers together: enough tiles to keep every thread busy and enough work between two
// layers, within reason for the memory of `bytes` each.
Size choose_group(const ForwardRequest&, Size inputs, Size tiles, int workers, double bytes);

StreamId stream_of(const ForwardRequest&, std::uint32_t network, Size layer, Stream);

// Which inputs the columns of a tile hold: the first input of all, the origin, and inputs [begin, begin + columns - 1)
// of a view, where the origin may be one of its own (begin = 1) or come from an earlier piece.
struct InputRange {
    Size begin = 1;
    Size columns = 1;
};

// The features [begin, begin + n) of those inputs: column 0 is the first input, the others are differences from it.
// first_number: how many inputs came before this view (Gaussian inputs are numbered through). `origin`: the features of
// the first input (all of them) where it is not row 0 of the view; else null.
template <class T>
void load_inputs(const ForwardRequest&, const InputsView&, std::uint32_t network, const InputRange&, Size first_number,
                 const double* origin, Size begin, Size n, T* tile, Size ld);

// Norm over the nodes: what z_a = (y_a - mean_a) / deviation_a does to the columns of a tile, and the slope dz_a/dy_a
// of its direct part.
struct LayerNormMaps {
    std::vector<ColumnMap> maps;
    std::vector<double> gains;  // 1 / deviation_a, absolute
    TileUnits units;            // of z
};

// From sums over all `width` nodes of a layer, in its units: column sums, the products y_0 . column a (a = 0: y_0 .
// y_0) and the squared norms of columns (a = 0: likewise).
template <class T>
LayerNormMaps layer_norm(Size width, const TileUnits&, const std::vector<double>& sums, const double* with_origin,
                         const double* squares);

// x = pool(phi(z)), made ready for the kernels.
class Nonlinearity {
public:
    explicit Nonlinearity(const ForwardRequest&);
    Nonlinearity(const Nonlinearity&) = delete;
    Nonlinearity& operator=(const Nonlinearity&) = delete;

    PhiView phi() const { return {leaf_.activation, leaf_.table ? &view_ : nullptr}; }
    PoolKind pool() const { return pool_; }
    // The largest phi is that of the largest or of the smallest node: pool first, where phi may be flat, then phi.
    bool pool_first() const { return pool_first_ != PoolKind::none; }
    PoolKind pool_of_nodes() const { return pool_first_; }
    // Whether slopes cannot be told without the shares of the members.
    bool needs_shares() const { return pool_ != PoolKind::none && pool_ != PoolKind::average && !pool_first(); }

private:
    Leaf leaf_;
    TableView view_{};
    PoolKind pool_, pool_first_;
};

// Scratch memory of one worker for one tile, members and all.
template <class T>
struct TileScratch {
    AlignedVector<T> tile;                        // members * size x columns
    AlignedVector<T> slopes, shares;              // likewise, where they are needed
    AlignedVector<T> bias;                        // size
    AlignedVector<double> origin, sum, sum2;      // of y, for every node: members * size
    AlignedVector<double> origin_slope2, slope2;  // of every pool, summed over its members: size counts
    AlignedVector<double> unused;
    TileNorms norms;  // of what comes out
    NodeSums nodes;
    SlopeSums chi;

    TileScratch() = default;
    TileScratch(const ForwardRequest&, const Nonlinearity&, Size tile_size, Size columns, bool with_slopes);
};

// sqrt(sigma_b2) b_i / unit added to the origin of the members of pools [begin, begin + n).
template <class T>
void add_bias(const ForwardRequest&, const NodeLayout&, std::uint32_t network, Size layer, Size begin, double unit,
              const TileShape&, T* tile, T* scratch);

// x = pool(phi(norm(y))) on scratch.tile, in place: the rows of the first member become x, in the units `out`. Leaves
// in the scratch the moments of every node, the squared slopes of every pool, the norms of x and, if asked for, the
// slopes dx/dy of every node, shares of the pool included (only the direct part, where there is a norm). norm: null for
// none.
template <class T>
void apply_nonlinearity(const Nonlinearity&, const TileShape&, const LayerNormMaps* norm, const TileUnits& in,
                        const TileUnits& out, bool with_slopes, TileScratch<T>&);

// The units that suit what comes next, whose squares have these means over nodes (origin) and over nodes and inputs
// (difference), in the units `now`. That of the differences stays where 1 / unit is a number of T: what is smaller goes
// to zero there, and the rest of the network goes on.
template <class T>
TileUnits units_near(const TileUnits& now, double origin, double difference);

// Whether differences of this unit are still normal numbers of T, with room for those far below the typical one.
template <class T>
bool keeps_digits(const TileUnits& units);

// Sums over one layer of one network.
struct LayerSums {
    TileUnits units;                    // of the pre-activations that were summed
    NodeSums nodes;                     // u in units.origin, v in units.difference^2
    SlopeSums chi;                      // of squared slopes, over the pools
    TileNorms norms;                    // of the activations, in the units of what goes out
    double q_sum = 0.0, q_count = 0.0;  // of q_aa, in units.origin^2, over the inputs
    double c_sum = 0.0, c_count = 0.0;  // of q_ab / sqrt(q_aa q_bb), over the pairs of inputs that are not zero
};

// Centre and variance of the nodes of a tile from the scratch's sums over all its columns, into scratch.nodes, and what
// the pools' slopes add to scratch.chi; mu and var (or null; of this layer, all nodes) get them in absolute units.
template <class T>
void sum_tile_nodes(const NodeLayout&, Size begin, const TileShape&, const TileUnits&, TileScratch<T>&, double* mu,
                    double* var, LayerHistograms*);

// The estimates of one layer of one network and their standard errors over its nodes; index = network * depth + layer -
// 1.
void write_estimates(const ForwardRequest&, Size inputs, const LayerSums&, bool digits_kept, Size index,
                     ForwardResult&);

}  // namespace igb
