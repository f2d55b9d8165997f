// What forward_direct.cpp and backward_direct.cpp share: how the nodes of a layer lie in memory, one network on its way
// through the layers, and what it leaves behind.
#pragma once

#include <map>
#include <vector>

#include "cpu/gradients.h"
#include "cpu/layer.h"
#include "cpu/parallel.h"

namespace igb {

// Rows are nodes (or features, or outputs), block after block, each block a contiguous column-major matrix: what one
// product reads. A tile, what one thread writes, is some rows of a block. The members of pools lie one after the other.
template <class T>
struct BlockedMatrix {
    AlignedVector<T> values;
    Tiling blocks{0, 1};  // of the rows of one member
    Size members = 1, columns = 0;

    void shape(const Tiling& b, Size m, Size c) {
        blocks = b;
        members = m;
        columns = c;
        const std::size_t size = at(m * b.tiles() * b.size * c);
        if (values.size() < size) values.resize(size);
    }
    Size ld() const { return blocks.size; }
    Size begin(Size member, Size b) const { return (member * blocks.tiles() + b) * blocks.size * columns; }
    T* block(Size member, Size b) { return values.data() + begin(member, b); }
    const T* block(Size member, Size b) const { return values.data() + begin(member, b); }
    T* rows_from(Size member, Size row) { return block(member, row / blocks.size) + row % blocks.size; }
};

// The pre-activations of a layer, tile after tile, each with all members of its pools. Tiles have room for `columns`
// columns, used or not, so that the rows that pad the last tile stay zero.
template <class T>
struct TiledMatrix {
    AlignedVector<T> values;
    Size rows = 0, columns = 0;  // of a tile

    void shape(Size tiles, Size r, Size c) {
        if (c <= columns) return;
        rows = r;
        columns = c;
        values.assign(at(tiles * r * c), T{0});
    }
    T* tile(Size t) { return values.data() + t * rows * columns; }
};

inline constexpr Size any_number = Size{1} << 32;  // of inputs, where it is not known

// Sizes that do not change during a run.
struct DirectPlan {
    DirectPlan(const ForwardRequest&, Size inputs, std::size_t element_size);

    NodeLayout layout;
    Size chunk;        // inputs that go through together, besides the first one, which goes with every chunk
    Size tile, block;  // a product is one of tile x block weights
    Tiling features, pools, outputs;
    int workers;
    bool keeps_layers;     // records of all layers until the end; else each is written before the next layer begins
    Size group;            // networks that go through together
    double network_bytes;  // of one of them
    double bytes;          // of all, with the workers' scratch memory

    Size tile_rows() const { return layout.members * tile; }
    Tiling blocks(Size rows) const { return {rows, block}; }
    TileShape shape(Size t, Size columns) const { return {pools.nodes(t), columns, tile_rows(), layout.members, tile}; }
};

// What a layer of a network has shown in the chunks so far, in absolute units but for the gradients.
struct LayerRecord {
    std::vector<double> origin, slope2;     // by node; by pool, summed over the inputs
    std::vector<MeanVariance> differences;  // from the origin, by node, over the inputs
    std::vector<double> direction;          // sum over the inputs a of y_ia / |y_a|, by node
    std::vector<double> gradient2;          // by node, summed over the inputs, times 4^-gradient_exponent
    int gradient_exponent = 0;
    double q_sum = 0.0;
    Size inputs = 0, directions = 0;  // directions: of inputs that are not zero
    TileUnits units;                  // of the last chunk
    bool digits_kept = true;
    std::map<std::uint16_t, std::int64_t> q_counts, c_counts;  // by the bins of Histogram
    std::vector<double> gradient;                              // by input

    void clear(const ForwardRequest&);
};

struct NetworkRecord {
    std::vector<LayerRecord> layers;  // one for all where each can be written before the next one begins
    std::vector<std::int32_t> guess, labels;
    bool beyond_table = false;

    LayerRecord& layer(Size l) { return layers[layers.size() == 1 ? 0 : at(l - 1)]; }
};

// Sums over the nodes of a layer, by column of its tiles.
struct ColumnSums {
    std::vector<double> squares;      // column . column
    std::vector<double> with_origin;  // y_0 . column
    std::vector<double> sums;

    void clear(Size columns);
    void add(const ColumnSums&);
};

// The pre-activations of one layer and what is needed to go back through it.
template <class T>
struct LayerInFlight {
    TiledMatrix<T> y;
    TileUnits units, out;  // of y and of x
    LayerNormMaps norm;
};

// One network on its way through the layers.
template <class T>
struct DirectState {
    std::uint32_t network = 0;  // as random numbers know it
    NetworkRecord* record = nullptr;
    TileUnits units;                       // of x, and so of the next y
    TileUnits units_before;                // of the y before
    BlockedMatrix<T> x;                    // of the layer before
    std::vector<LayerInFlight<T>> layers;  // all of them for gradients, else one for all
    AlignedVector<T> whole;                // orthogonal weights: a matrix of all rows, and its product
    ColumnSums sums;
    std::vector<double> weights;       // by column, of what its inputs add to LayerRecord::direction
    std::vector<double> pairs;         // d_a . d_b, for the distributions
    AlignedVector<T> outputs;          // of the head, in units
    std::vector<double> logits;        // (input, output), of the inputs of the chunk that count
    std::vector<std::int32_t> labels;  // likewise

    // Backward.
    BlockedMatrix<T> delta, next_delta;
    ColumnUnits delta_units;
    std::vector<double> scale;          // by column, of delta as stored, before it is used
    std::vector<double> input_weights;  // by column
    int exponent = 0;                   // of these
    std::vector<double> node_squares;   // by node
    ColumnSums delta_sums;              // squares
    ColumnSums norm_sums;               // where there is a norm: sums of t and, as `with_origin`, of t z

    LayerInFlight<T>& layer(Size l) { return layers[layers.size() == 1 ? 0 : at(l - 1)]; }
};

// Scratch memory of one worker.
template <class T>
struct DirectScratch {
    TileScratch<T> tile;
    AlignedVector<T> weights;  // tile x block
    AlignedVector<T> pairs;    // columns x columns
    AlignedVector<T> product;  // tile x columns
    ColumnSums sums;
    Histogram histogram;

    DirectScratch(const ForwardRequest&, const Nonlinearity&, const DirectPlan&);
};

// One layer's weights of one network.
struct DirectWeights {
    StreamId id;
    WeightLaw law;
    double scale;  // of the random numbers
    Size rows, columns;

    DirectWeights(const ForwardRequest&, std::uint32_t network, Size layer);
    bool orthogonal() const { return law == WeightLaw::orthogonal; }
    Size order() const { return rows > columns ? rows : columns; }
};

// Q x, or Q^T x, in `whole` (order x columns), for orthogonal weights scale Q; x is padded with zeros.
template <class T>
void apply_orthogonal(const DirectWeights&, bool transposed, const BlockedMatrix<T>& x, Size columns,
                      AlignedVector<T>& whole, int workers, Monitor&);

// body(network) for every network in flight: side by side where there are enough for all workers, else one after the
// other, each on all workers.
template <class Body>
void for_networks(std::size_t networks, int workers, Body&& body) {
    if (networks >= at(workers)) {
        parallel_for(networks, workers, [&](std::size_t g, int) { body(g); });
    } else {
        for (std::size_t g = 0; g < networks; ++g) body(g);
    }
}

// Gradients of the inputs of a chunk, the columns from first_column on of what the forward half left in the states,
// into their records.
template <class T>
void backward_direct(const ForwardRequest&, const DirectPlan&, const Nonlinearity&, Size columns, Size first_column,
                     std::vector<DirectState<T>>&, std::vector<DirectScratch<T>>&, Monitor&);

}  // namespace igb
