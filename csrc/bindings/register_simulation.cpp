// simulate and its memory estimate: checks, array views, the GIL and signals; the engines are in cpu/forward_*.cpp.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "bindings/activation_names.h"
#include "bindings/register.h"
#include "bindings/watched.h"
#include "cpu/forward.h"

namespace py = pybind11;

namespace igb::bindings {

namespace {

using InputsF32 = py::array_t<float, py::array::c_style>;
using InputsF64 = py::array_t<double, py::array::c_style>;

// Sets what the inputs are: a number, or an array (n, features) that must outlive the request.
void set_inputs(ForwardRequest& request, const py::object& inputs) {
    if (!py::isinstance<py::array>(inputs)) {
        request.inputs = inputs.cast<std::int64_t>();
        request.features = request.width;
        return;
    }
    const auto array = inputs.cast<py::array>();
    require(array.ndim() == 2, "inputs must have two dimensions (n, features)");
    require((array.flags() & py::array::c_style) != 0, "inputs must be C-contiguous");
    if (py::isinstance<InputsF32>(inputs)) {
        request.given_f32 = static_cast<const float*>(array.data());
    } else if (py::isinstance<InputsF64>(inputs)) {
        request.given_f64 = static_cast<const double*>(array.data());
    } else {
        throw std::invalid_argument("inputs must be float32 or float64");
    }
    request.inputs = array.shape(0);
    request.features = array.shape(1);
}

void check(const ForwardRequest& request) {
    require(request.width >= 1 && request.width <= std::int64_t{1} << 31, "width must be from 1 to 2^31");
    require(request.features >= 1 && request.features <= std::int64_t{1} << 31, "inputs have too many features");
    require(request.depth >= 1 && request.depth < std::int64_t{1} << 24, "depth must be from 1 to 2^24 - 1");
    require(request.inputs >= 2 && request.inputs <= std::int64_t{1} << 31, "inputs must be from 2 to 2^31");
    require(request.networks >= 1 && request.networks <= std::int64_t{1} << 31, "networks must be from 1 to 2^31");
    require(request.tile >= 0 && request.tile % 64 == 0, "tile must be a multiple of 64, or 0");
    require(request.chunk >= 0, "chunk must not be negative");
    require(request.sigma_w2 > 0.0 && request.sigma_b2 >= 0.0, "sigma_w2 must be positive, sigma_b2 not negative");
}

bool is_gram(const std::string& method) {
    require(method == "gram" || method == "direct", "method must be 'gram' or 'direct'");
    return method == "gram";
}

bool is_single(const std::string& dtype) {
    require(dtype == "float32" || dtype == "float64", "dtype must be 'float32' or 'float64'");
    return dtype == "float32";
}

void run(const ForwardRequest& request, const ForwardResult& result, bool gram, bool single, Monitor& monitor) {
    if (gram) {
        single ? forward_gram<float>(request, result, monitor) : forward_gram<double>(request, result, monitor);
    } else {
        single ? forward_direct<float>(request, result, monitor) : forward_direct<double>(request, result, monitor);
    }
}

py::dict simulate(const std::string& activation, double parameter, double sigma_w2, double sigma_b2, std::int64_t width,
                  std::int64_t depth, const py::object& inputs, std::int64_t networks, std::uint32_t first_network,
                  std::uint64_t seed, const std::string& method, const std::string& dtype, bool per_node,
                  std::int64_t tile, std::int64_t chunk, const py::object& callback) {
    ForwardRequest request;
    request.activation = activation_of(activation, parameter);
    request.sigma_w2 = sigma_w2;
    request.sigma_b2 = sigma_b2;
    request.width = width;
    request.depth = depth;
    request.networks = networks;
    request.first_network = first_network;
    request.seed = seed;
    request.tile = tile;
    request.chunk = chunk;
    set_inputs(request, inputs);
    check(request);
    const bool gram = is_gram(method), single = is_single(dtype);

    py::dict arrays;
    const auto layers = [&](const std::string& name) {
        py::array_t<double> array({networks, depth});
        arrays[name.c_str()] = array;
        return array.mutable_data();
    };
    const auto estimate = [&](const std::string& name) { return Estimate{layers(name), layers(name + "_se")}; };
    const auto nodes = [&](const char* name) {
        py::array_t<double> array({networks, depth, width});
        arrays[name] = array;
        return array.mutable_data();
    };
    ForwardResult result{estimate("sigma_mu2"), estimate("sigma_y2"), estimate("gamma"),
                         estimate("q"),         estimate("c"),        estimate("chi")};
    if (per_node) {
        result.mu = nodes("mu");
        result.var = nodes("var");
    }
    run_watched(callback, [&](Monitor& monitor) { run(request, result, gram, single, monitor); });
    return arrays;
}

double simulate_memory(const std::string& method, std::int64_t width, std::int64_t depth, std::int64_t inputs,
                       std::int64_t features, const std::string& dtype, std::int64_t networks, bool per_node) {
    ForwardRequest request;
    request.width = width;
    request.features = features > 0 ? features : width;
    request.depth = depth;
    request.inputs = inputs;
    request.networks = networks;
    check(request);
    const std::size_t element = is_single(dtype) ? sizeof(float) : sizeof(double);
    const double layers = static_cast<double>(networks) * static_cast<double>(depth);
    const double results = layers * (12.0 + (per_node ? 2.0 * static_cast<double>(width) : 0.0)) * sizeof(double);
    return results +
           (is_gram(method) ? forward_gram_memory(request, element) : forward_direct_memory(request, element));
}

}  // namespace

void register_simulation(py::module_& m) {
    using namespace py::literals;
    m.def("simulate", &simulate, py::kw_only(), "activation"_a, "parameter"_a, "sigma_w2"_a, "sigma_b2"_a, "width"_a,
          "depth"_a, "inputs"_a, "networks"_a = 1, "first_network"_a = 0, "seed"_a = 0, "method"_a = "gram",
          "dtype"_a = "float32", "per_node"_a = false, "tile"_a = 0, "chunk"_a = 0, "callback"_a = py::none(),
          "Runs random networks forward: arrays (networks, depth) of each estimate and its standard error.");
    m.def("simulate_memory", &simulate_memory, py::kw_only(), "method"_a, "width"_a, "depth"_a, "inputs"_a,
          "features"_a = 0, "dtype"_a, "networks"_a = 1, "per_node"_a = false,
          "Estimated peak memory of simulate, in bytes, with its results.");
}

}  // namespace igb::bindings
