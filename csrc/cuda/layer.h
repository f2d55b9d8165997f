// What a layer's tiles go through besides phi: pools, norms, products, and the sums over nodes and over columns that
// estimates, units and norms are made of. Twins in cpu/activate.h and cpu/layer.h. Arrays are in the memory of the
// device; `scratch` has as many numbers as the function *_scratch says.
#pragma once

#include <cstdint>

#include "core/pool_kind.h"
#include "cuda/layout.h"
#include "cuda/stream.h"

namespace igb::cuda {

// origin, sum and sum2 of every row, (networks, rows) each. Twin: igb::sum_nodes.
template <class T>
void sum_nodes(GpuStream, const TileBatch&, const T* tile, double* origin, double* sum, double* sum2, double* scratch);
std::int64_t sum_nodes_scratch(const TileBatch&);

// Every pool becomes its largest, smallest or average value, in the rows of the first member; shares (laid out as the
// tile, or null) get what each member contributes. units: (networks, 2); norms: (networks, 2), or null. Twin:
// igb::pool.
template <class T>
void pool(GpuStream, PoolKind, const TileBatch&, T* tile, const double* units, T* shares, double* norms,
          double* scratch);
std::int64_t pool_scratch(const TileBatch&);

// maps: (networks, columns, 3), scale, from_origin and shift of each ColumnMap. Twin: igb::map_columns.
template <class T>
void map_columns(GpuStream, const TileBatch&, const double* maps, T* tile);

// out = a * b; out may be one of them. weights (networks, columns) and squares (networks, rows), or null for both:
// sum_a weight_a out^2 of every row. Twin: igb::multiply.
template <class T>
void multiply(GpuStream, const TileBatch&, const T* a, const T* b, T* out, const double* weights, double* squares,
              double* scratch);
std::int64_t multiply_scratch(const TileBatch&);

// (networks, columns, 3): sums over the nodes of d, d y_0 and d^2 (of column 0: y_0, y_0^2, y_0^2). Twin: sum_member in
// cpu/forward_direct.cpp.
template <class T>
void sum_columns(GpuStream, const TileBatch&, const T* tile, double* sums, double* scratch);
std::int64_t sum_columns_scratch(const TileBatch&);

// Sums over the nodes of a slab of what its estimates are made of. Twin: igb::sum_tile_nodes.
struct NodeTask {
    std::int64_t networks, inputs;
    NodeSlab slab;
    const double* units;  // (networks, 2)

    // (networks, rows) each; the squared slopes are of pools, slope_rows apart from network to network.
    const double *origin, *sum, *sum2;
    const double *origin_slope2, *slope2;
    std::int64_t slope_rows;

    double* sums;  // (networks, 12): NodeSums, SlopeSums

    // Centre and variance of every node in absolute units, or null: number member * pools + pool of the layer, networks
    // `per_network` apart.
    double *mu, *var;
    std::int64_t pools, per_network;
    // How often they fall into each of the 65,536 bins of core/histogram_bin.h, for every network, or null.
    unsigned long long *mu_counts, *var_counts;
    double* scratch;
};

void sum_layer(GpuStream, const NodeTask&);
std::int64_t sum_layer_scratch(std::int64_t networks, const NodeSlab&);

// counts[g][bin] += 1 for each of `count` values of each of the networks. Twin: igb::Histogram.
void count_values(GpuStream, std::int64_t networks, std::int64_t count, const double* values,
                  unsigned long long* counts);

}  // namespace igb::cuda
