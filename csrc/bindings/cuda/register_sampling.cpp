// Random weights, nodes and biases, and the inputs of the networks, made on the device. One instance for each type of
// what is written, which is the end of its name.
#include <string>

#include "bindings/cuda/on_device.h"
#include "bindings/cuda/register.h"
#include "bindings/weight_names.h"
#include "cuda/inputs.h"
#include "cuda/weights.h"

namespace py = pybind11;

namespace igb::bindings {
namespace {

using Int = std::int64_t;

template <class T>
void fill_weights(int device, Address stream, const std::string& law, std::uint64_t seed, std::uint32_t network,
                  std::uint32_t layer, std::uint32_t of, Int first_row, Int rows, Int first_column, Int columns,
                  Int networks, Int between, Int ld, Address out) {
    const WeightLaw kind = weight_law_of(law);
    const OnDevice here(device);
    cuda::fill_weights(stream_at(stream), kind, {seed, network, layer, of}, {first_row, rows, first_column, columns},
                       {networks, between, ld}, at_address<T>(out));
}

template <class T>
void fill_nodes(int device, Address stream, std::uint64_t seed, std::uint32_t network, std::uint32_t layer,
                std::uint32_t of, Int networks, Int columns, Int members, Int nodes, Int member, Int first, Int stride,
                Address tile) {
    const OnDevice here(device);
    cuda::fill_nodes(stream_at(stream), {seed, network, layer, of},
                     {networks, columns, {members, nodes, member, first, stride}}, at_address<T>(tile));
}

template <class T>
void add_bias(int device, Address stream, std::uint64_t seed, std::uint32_t network, std::uint32_t layer,
              std::uint32_t of, Address scale, Int networks, Int columns, Int members, Int nodes, Int member, Int first,
              Int stride, Address tile) {
    const OnDevice here(device);
    cuda::add_bias(stream_at(stream), {seed, network, layer, of}, at_address<const double>(scale),
                   {networks, columns, {members, nodes, member, first, stride}}, at_address<T>(tile));
}

template <class Source, class T>
void load_inputs(int device, Address stream, Address given, Address origin, Int networks, Int columns, Int features,
                 Int ld, Address out) {
    const OnDevice here(device);
    cuda::load_inputs(stream_at(stream), at_address<const Source>(given), at_address<const double>(origin),
                      {networks, columns, features, ld}, at_address<T>(out));
}

template <class T>
void gaussian_inputs(int device, Address stream, std::uint64_t seed, std::uint32_t network, std::uint32_t layer,
                     std::uint32_t of, Int first, Int networks, Int columns, Int features, Int ld, Address out) {
    const OnDevice here(device);
    cuda::gaussian_inputs(stream_at(stream), {seed, network, layer, of}, first, {networks, columns, features, ld},
                          at_address<T>(out));
}

template <class T>
void register_tiles(py::module_& m, const std::string& dtype) {
    m.def(("fill_nodes_" + dtype).c_str(), &fill_nodes<T>);
    m.def(("add_bias_" + dtype).c_str(), &add_bias<T>);
    m.def(("load_f32_inputs_" + dtype).c_str(), &load_inputs<float, T>);
    m.def(("load_f64_inputs_" + dtype).c_str(), &load_inputs<double, T>);
    m.def(("gaussian_inputs_" + dtype).c_str(), &gaussian_inputs<T>);
}

}  // namespace

void register_sampling(py::module_& m) {
    m.def("fill_weights_f32", &fill_weights<float>);
    m.def("fill_weights_f64", &fill_weights<double>);
    m.def("fill_weights_bf16", &fill_weights<BFloat16>);
    register_tiles<float>(m, "f32");
    register_tiles<double>(m, "f64");
}

}  // namespace igb::bindings
