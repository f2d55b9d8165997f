// What a layer's tiles go through between two products: phi, pools, norms, sums. A slab travels as its five numbers, a
// batch of tiles as (networks, columns) and a slab; null arrays are 0.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "bindings/activation_names.h"
#include "bindings/cuda/on_device.h"
#include "bindings/cuda/register.h"
#include "bindings/pool_names.h"
#include "cuda/activate.h"
#include "cuda/layer.h"

namespace py = pybind11;

namespace igb::bindings {

namespace {

using cuda::NodeSlab;
using cuda::TileBatch;
using SlabNumbers = std::array<std::int64_t, 5>;
using BatchNumbers = std::array<std::int64_t, 7>;

NodeSlab slab_of(const SlabNumbers& n) { return {n[0], n[1], n[2], n[3], n[4]}; }
TileBatch batch_of(const BatchNumbers& n) { return {n[0], n[1], {n[2], n[3], n[4], n[5], n[6]}}; }

PoolKind kind_of(const std::string& pool, const TileBatch& tiles) {
    return pool_of(pool, static_cast<int>(tiles.slab.members)).kind;
}

// The arrays of a table as python/igbfast/gpu/_layer.py sends them: the edges, then series, largest and by_x of phi, of
// phi' and of phi'', then kinks and jumps.
using TableNumbers = std::vector<Address>;

TableView table_of(int panels, int kinks, const TableNumbers& arrays) {
    TableView view{};
    view.panels = panels;
    view.kink_count = kinks;
    auto next = [at = arrays.begin()]() mutable { return *at++; };
    view.edges = at_address<double>(next());
    for (auto& series : view.series) series = at_address<double>(next());
    for (auto& largest : view.largest) largest = at_address<double>(next());
    for (auto& by_x : view.by_x) by_x = at_address<std::uint8_t>(next());
    view.kinks = at_address<double>(next());
    view.jumps = at_address<double>(next());
    return view;
}

template <class T>
void define_tiles(py::module_& m, const std::string& suffix) {
    m.attr(("most_pooled_" + suffix).c_str()) = cuda::most_pooled<T>;
    m.def(("activate_" + suffix).c_str(),
          [](int device, Address stream, const std::string& kind, double parameter, int panels, int kinks,
             const TableNumbers& arrays, const std::string& pool, const BatchNumbers& batch, std::int64_t rows,
             Address tile, Address slopes, Address maps, Address gains, Address in, Address out, Address origin,
             Address sum, Address sum2, Address origin_slope2, Address slope2, Address norms, Address beyond,
             Address scratch) {
              const Activation activation = activation_of(kind, parameter);
              const TableView view = panels > 0 ? table_of(panels, kinks, arrays) : TableView{};
              const TileBatch tiles = batch_of(batch);
              const cuda::ActivateTask<T> task{tiles,
                                               kind_of(pool, tiles),
                                               rows,
                                               at_address<T>(tile),
                                               at_address<T>(slopes),
                                               at_address<double>(maps),
                                               at_address<double>(gains),
                                               at_address<double>(in),
                                               at_address<double>(out),
                                               at_address<double>(origin),
                                               at_address<double>(sum),
                                               at_address<double>(sum2),
                                               at_address<double>(origin_slope2),
                                               at_address<double>(slope2),
                                               at_address<double>(norms),
                                               at_address<std::int32_t>(beyond),
                                               at_address<double>(scratch)};
              const OnDevice here(device);
              cuda::activate(stream_at(stream), activation, panels > 0 ? &view : nullptr, task);
          },
          "phi on tiles, or a pool and then phi, in place, with the statistics of every row.");
    m.def(("sum_nodes_" + suffix).c_str(),
          [](int device, Address stream, const BatchNumbers& batch, Address tile, Address origin, Address sum,
             Address sum2, Address scratch) {
              const OnDevice here(device);
              cuda::sum_nodes(stream_at(stream), batch_of(batch), at_address<const T>(tile), at_address<double>(origin),
                              at_address<double>(sum), at_address<double>(sum2), at_address<double>(scratch));
          },
          "Origin, sum and sum of squares of the differences of every row.");
    m.def(("pool_" + suffix).c_str(),
          [](int device, Address stream, const std::string& kind, const BatchNumbers& batch, Address tile,
             Address units, Address shares, Address norms, Address scratch) {
              const TileBatch tiles = batch_of(batch);
              const PoolKind pool = kind_of(kind, tiles);
              const OnDevice here(device);
              cuda::pool(stream_at(stream), pool, tiles, at_address<T>(tile), at_address<double>(units),
                         at_address<T>(shares), at_address<double>(norms), at_address<double>(scratch));
          },
          "The members of every pool to one value, in the rows of the first.");
    m.def(("map_columns_" + suffix).c_str(),
          [](int device, Address stream, const BatchNumbers& batch, Address maps, Address tile) {
              const OnDevice here(device);
              cuda::map_columns(stream_at(stream), batch_of(batch), at_address<double>(maps), at_address<T>(tile));
          },
          "A norm over the nodes: columns to scale d + (from_origin y_0 + shift).");
    m.def(("multiply_" + suffix).c_str(),
          [](int device, Address stream, const BatchNumbers& batch, Address a, Address b, Address out, Address weights,
             Address squares, Address scratch) {
              const OnDevice here(device);
              cuda::multiply(stream_at(stream), batch_of(batch), at_address<const T>(a), at_address<const T>(b),
                             at_address<T>(out), at_address<double>(weights), at_address<double>(squares),
                             at_address<double>(scratch));
          },
          "out = a b, and the weighted sum of its squares over the columns.");
    m.def(("sum_columns_" + suffix).c_str(),
          [](int device, Address stream, const BatchNumbers& batch, Address tile, Address sums, Address scratch) {
              const OnDevice here(device);
              cuda::sum_columns(stream_at(stream), batch_of(batch), at_address<const T>(tile), at_address<double>(sums),
                                at_address<double>(scratch));
          },
          "Over the nodes: sums of d, of d y_0 and of d^2 of every column.");
}

}  // namespace

void register_layer(py::module_& m) {
    define_tiles<float>(m, "f32");
    define_tiles<double>(m, "f64");
    m.def("activate_scratch", [](const BatchNumbers& batch, const std::string& pool, std::int64_t rows) {
        const TileBatch tiles = batch_of(batch);
        return cuda::activate_scratch(tiles, kind_of(pool, tiles), rows);
    });
    m.def("sum_nodes_scratch", [](const BatchNumbers& batch) { return cuda::sum_nodes_scratch(batch_of(batch)); });
    m.def("pool_scratch", [](const BatchNumbers& batch) { return cuda::pool_scratch(batch_of(batch)); });
    m.def("multiply_scratch", [](const BatchNumbers& batch) { return cuda::multiply_scratch(batch_of(batch)); });
    m.def("sum_columns_scratch", [](const BatchNumbers& batch) { return cuda::sum_columns_scratch(batch_of(batch)); });
    m.def("sum_layer_scratch", [](std::int64_t networks, const SlabNumbers& slab) {
        return cuda::sum_layer_scratch(networks, slab_of(slab));
    });
    m.def(
        "sum_layer",
        [](int device, Address stream, std::int64_t networks, std::int64_t inputs, const SlabNumbers& slab,
           Address units, Address origin, Address sum, Address sum2, Address origin_slope2, Address slope2,
           std::int64_t slope_rows, Address sums, Address mu, Address var, std::int64_t pools, std::int64_t per_network,
           Address mu_counts, Address var_counts, Address scratch) {
            const cuda::NodeTask task{networks,
                                      inputs,
                                      slab_of(slab),
                                      at_address<double>(units),
                                      at_address<double>(origin),
                                      at_address<double>(sum),
                                      at_address<double>(sum2),
                                      at_address<double>(origin_slope2),
                                      at_address<double>(slope2),
                                      slope_rows,
                                      at_address<double>(sums),
                                      at_address<double>(mu),
                                      at_address<double>(var),
                                      pools,
                                      per_network,
                                      at_address<unsigned long long>(mu_counts),
                                      at_address<unsigned long long>(var_counts),
                                      at_address<double>(scratch)};
            const OnDevice here(device);
            cuda::sum_layer(stream_at(stream), task);
        },
        "Sums over the nodes of what the estimates of a layer are made of.");
    m.def(
        "count_values",
        [](int device, Address stream, std::int64_t networks, std::int64_t count, Address values, Address counts) {
            const OnDevice here(device);
            cuda::count_values(stream_at(stream), networks, count, at_address<double>(values),
                               at_address<unsigned long long>(counts));
        },
        "Values into the bins of their sixteen leading bits.");
}

}  // namespace igb::bindings
