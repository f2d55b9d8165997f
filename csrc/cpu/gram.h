// What the two halves of the Gram engine share: forward_gram.cpp draws the layers, backward_gram.cpp goes back through
// them. Nothing as long as the network is wide is kept, unless the network is residual or has a norm over its nodes:
// the way back draws the same nodes again from the same counters.
#pragma once

#include <vector>

#include "cpu/covariance_factor.h"
#include "cpu/gradients.h"
#include "cpu/layer.h"

namespace igb {

// The law of one layer's pre-activations, once it is known, and what the way back wants to know of its activations x.
template <class T>
struct GramLayer {
    CovarianceFactor factor;  // L L^T = (sigma_w2 / fan_in) x^T x, of the activations below
    AlignedVector<T> draw;    // y = G draw^T + b, G (nodes x inputs) standard normal: L, or for orthogonal weights
                              // sqrt(order) L C^-1, so that sqrt(order) G C^-T is the frame
    CovarianceFactor frame;   // orthogonal weights: C C^T = G^T G, of the columns that L has
    TileUnits units, out;     // of y, of x
    LayerNormMaps norm;
    std::vector<double> fresh;          // x^T E (inputs x columns of E), E (nodes x columns) standard normal
    std::vector<double> fresh_squares;  // E^T E (columns x columns), for orthogonal weights
};

template <class T>
struct GramState {
    std::vector<GramLayer<T>> layers;    // all of them if there is a way back, else one, used again and again
    std::vector<AlignedVector<T>> held;  // y of those layers, tile by tile, where a layer needs more than its own nodes
    std::vector<double> products, pairs;        // x^T x of the last activations, y^T y, lower triangles, in their units
    bool fine = true;                           // products are summed in double: some inputs are nearly the same
    std::vector<double> column_sums;            // of y over the nodes
    TileUnits units;                            // of the last activations
    TileUnits y_units;                          // of the layer below, for residual networks
    double y_origin = 0.0, y_difference = 0.0;  // mean squares of y in those units
    LayerSums sums;
    LayerHistograms histograms;

    // The head.
    AlignedVector<T> head_normals;  // Z (outputs x inputs)
    std::vector<double> logits;     // (input, output)
    std::vector<std::int32_t> labels;

    // The way back.
    ColumnUnits gradient_units;
    std::vector<double> from_above;   // Z^T delta (inputs x inputs) of the layer above
    std::vector<double> fresh_part;   // what E is multiplied by, without the gain: (columns of E) x inputs
    std::vector<double> squares;      // delta^T delta, lower triangle
    AlignedVector<T> by_x, by_fresh;  // W^T delta = x by_x + E by_fresh
    std::vector<double> weights;      // of the inputs in the average over them
    GradientNodes nodes;
    AlignedVector<T> delta, direct;  // residual networks and norms: delta, and what goes into the norm's derivative
    std::vector<double> sum, sum_z;  // of the latter over the nodes
    std::vector<T> carry;            // 2^-shift: from the units of the layer above to those of this one
};

template <class T>
struct GramScratch {
    TileScratch<T> s;                           // its tile has room for the columns of E behind those of the inputs
    AlignedVector<T> normals;                   // G or Z of the tile
    AlignedVector<T> back;                      // W^T delta of the tile
    AlignedVector<double> wide, wide_products;  // a tile, and its products, in double
    AlignedVector<T> pairs, products, fresh, fresh_squares, squares, from_above;
    std::vector<double> node_squares, column_sums, sum, sum_z;
    GradientNodes nodes;
};

template <class T>
struct GramRun {
    const ForwardRequest& request;
    const InputsView& view;
    ForwardResult& result;
    Monitor& monitor;
    const Size inputs, tile;
    const NodeLayout layout;
    const Tiling pools;
    const Nonlinearity nonlinearity;
    const bool back, held, orthogonal;
    const int workers;
    std::vector<GramScratch<T>> scratch;

    GramRun(const ForwardRequest&, const InputsView&, ForwardResult&, Monitor&);

    std::uint32_t network(Size row) const { return request.first_network + static_cast<std::uint32_t>(row); }
    double gain(Size layer) const { return request.sigma_w2 / static_cast<double>(request.fan_in(layer)); }
    Size order(Size layer) const { return std::max(request.width, request.fan_in(layer)); }  // of an orthogonal matrix
    Size fresh_columns(Size layer) const { return layer == request.depth ? request.outputs() : inputs; }
    // The head is Gaussian always.
    bool fresh_is_orthogonal(Size layer) const { return orthogonal && layer < request.depth; }
    std::size_t slot(Size layer) const { return back ? at(layer - 1) : 0; }
    Size ld() const { return layout.members * tile; }
    TileShape shape(Size t) const { return {pools.nodes(t), inputs, ld(), layout.members, tile}; }
    T* held_tile(AlignedVector<T>& of, Size t) const { return of.data() + t * ld() * inputs; }

    // Normals of the tile, (row of the stream = column of the tile), for all members.
    void fill(std::uint32_t network, Size layer, Stream stream, Size t, Size columns, Size members, T* to) const;
    // W x + b of a tile into s.tile; leaves the normals in `normals` if they are wanted there.
    void draw(const GramLayer<T>&, Size row, Size layer, Size t, bool keep_normals, GramScratch<T>&) const;
};

// Lower triangles, and whole matrices, added to sums in double.
template <class T>
void add_lower(Size n, const T* from, double* to) {
    for (Size b = 0; b < n; ++b)
        for (Size a = b; a < n; ++a) to[b * n + a] += static_cast<double>(from[b * n + a]);
}

template <class T>
void add_all(const AlignedVector<T>& from, std::vector<double>& to) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += static_cast<double>(from[i]);
}

// Squared gradients of every layer, for networks that went forward; rows = first + index of the state.
template <class T>
void backward_gram(GramRun<T>&, Size first, std::vector<GramState<T>>& states);

}  // namespace igb
