// What the two forward engines share: the inputs, and all that happens to a tile of nodes once the linear part of a
// layer is there: bias, pair products, nonlinearity, statistics of the nodes, and at last the estimates of the layer.
#pragma once

#include "core/statistics.h"
#include "cpu/activate.h"
#include "cpu/aligned.h"
#include "cpu/forward.h"

namespace igb {

inline constexpr Size columns_per_block = 64;  // normals are made in blocks of so many: tiles are multiples of it

// How the nodes of a layer, and the features of the inputs, are cut into tiles.
struct Tiling {
    Size count;  // of nodes in all
    Size size;   // of nodes in a tile

    Size tiles() const { return (count + size - 1) / size; }
    Size begin(Size tile) const { return tile * size; }
    Size nodes(Size tile) const { return tile + 1 < tiles() ? size : count - begin(tile); }
};

// The tile size asked for, or the largest that keeps a tile of `columns` columns in half of a typical second-level
// cache.
Size choose_tile(const ForwardRequest&, Size columns, std::size_t element_size);

// How many networks go through the layers together: enough tiles to keep every thread busy and enough work between two
// layers, within reason for the memory of `bytes` each.
Size choose_group(const ForwardRequest&, Size tiles, int workers, double bytes);

// Which inputs the columns of a tile hold: the first input, the origin, and the inputs [begin, begin + columns - 1).
struct InputRange {
    Size begin = 1;
    Size columns = 1;
    Size input(Size column) const { return column == 0 ? 0 : begin + column - 1; }
};

// The features [begin, begin + n) of those inputs: column 0 is the first input, the others are differences from it.
template <class T>
void load_inputs(const ForwardRequest&, std::uint32_t network, const InputRange&, Size begin, Size n, T* tile, Size ld);

// sqrt(sigma_b2) b_i / unit added to the column of the origin.
template <class T>
void add_bias(const ForwardRequest&, std::uint32_t network, Size layer, Size begin, Size n, double unit, T* origin,
              T* scratch);

// The units that suit a layer whose incoming activations had these norms over `fan_in` nodes.
TileUnits units_after(const TileUnits& now, const TileNorms& norms, Size fan_in, Size columns, const ForwardRequest&);

// Whether differences of this unit are still normal numbers of T, with room for those far below the typical one.
template <class T>
bool keeps_digits(const TileUnits& units);

// Sums over one layer of one network.
struct LayerSums {
    TileUnits units;                    // of the pre-activations that were summed
    NodeSums nodes;                     // u in units.origin, v in units.difference^2
    TileNorms norms;                    // of the activations, in the units of what goes out
    double q_sum = 0.0, q_count = 0.0;  // of q_aa, in units.origin^2, over the inputs
    double c_sum = 0.0, c_count = 0.0;  // of q_ab / sqrt(q_aa q_bb), over the pairs
};

// Scratch memory of one worker for one tile.
template <class T>
struct TileScratch {
    AlignedVector<T> tile;                                           // size x columns
    AlignedVector<T> pairs;                                          // y^T y, columns x columns
    AlignedVector<T> products;                                       // x^T x, columns x columns
    AlignedVector<T> bias;                                           // size
    AlignedVector<double> origin, sum, sum2, origin_slope2, slope2;  // size
    TileNorms norms;
    NodeSums nodes;

    TileScratch() = default;
    TileScratch(Size tile_size, Size columns)
        : tile(at(tile_size * columns)), pairs(at(columns * columns)), products(at(columns * columns)),
          bias(at(tile_size)), origin(at(tile_size)), sum(at(tile_size)), sum2(at(tile_size)),
          origin_slope2(at(tile_size)), slope2(at(tile_size)) {}
    NodeMoments moments() { return {origin.data(), sum.data(), sum2.data(), origin_slope2.data(), slope2.data()}; }
};

// The products of all pairs of columns of a tile, lower triangle: scratch = A^T A.
template <class T>
void pair_products(const T* tile, Size ld, Size n, Size columns, T* scratch);

// total += scratch, lower triangle.
template <class T>
void add_pairs(Size columns, const T* scratch, double* total);

// Centre and variance of the n nodes of a tile from their sums over the inputs; mu and var (or null) get them in
// absolute units.
NodeSums sum_nodes(Size n, Size columns, const TileUnits&, const NodeMoments&, double* mu, double* var);

// q_aa over the inputs and c over the pairs of a range, from the products summed over `width` nodes.
void sum_pairs(const double* products, Size columns, Size width, bool count_origin, LayerSums&);

// The estimates of one layer of one network and their standard errors over its nodes; index = network * depth + layer.
void write_estimates(const ForwardRequest&, const LayerSums&, bool digits_kept, Size index, const ForwardResult&);

}  // namespace igb
