// The small steps between two layers, for engines that keep the layers elsewhere: the factor of one covariance matrix,
// the estimates of layers from their sums.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "bindings/register.h"
#include "bindings/watched.h"
#include "cpu/covariance_factor.h"
#include "cpu/layer.h"

namespace py = pybind11;

namespace igb::bindings {
namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Flags = py::array_t<bool, py::array::c_style | py::array::forcecast>;

Doubles copy_of(const std::vector<double>& values, std::vector<py::ssize_t> shape) {
    return Doubles(std::move(shape), values.data());
}

py::array_t<std::int64_t> copy_of(const std::vector<Size>& values) {
    return py::array_t<std::int64_t>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::tuple factor(const Doubles& products, double gain, double accuracy, std::int64_t largest_rank) {
    require(products.ndim() == 2 && products.shape(0) == products.shape(1), "products must be square");
    const Size n = products.shape(0);
    CovarianceFactor found;
    {
        const double* const lower = products.data();
        const py::gil_scoped_release nogil;
        covariance_factor(n, lower, gain, accuracy, largest_rank, found);
    }
    return py::make_tuple(copy_of(found.l, {n, n}), copy_of(found.pivots), copy_of(found.columns), found.triangular,
                          found.smallest);
}

// The sums of each layer as rows.
struct Rows {
    const Doubles& array;
    const char* message;

    Rows(const Doubles& a, py::ssize_t layers, py::ssize_t columns, const char* text) : array(a), message(text) {
        require(a.ndim() == 2 && a.shape(0) == layers && a.shape(1) == columns, message);
    }
    const double* operator[](py::ssize_t layer) const { return array.data(layer, 0); }
};

LayerSums sums_of(const double* units, const double* nodes, const double* chi, const double* q, const double* c) {
    LayerSums sums;
    sums.units = {units[0], units[1]};
    sums.nodes = {nodes[0], nodes[1], nodes[2], nodes[3], nodes[4], nodes[5], nodes[6], nodes[7], nodes[8]};
    sums.chi = {chi[0], chi[1], chi[2]};
    sums.q_sum = q[0];
    sums.q_count = q[1];
    sums.c_sum = c[0];
    sums.c_count = c[1];
    return sums;
}

py::dict layer_estimates(std::int64_t inputs, double sigma_w2, double residual, const Doubles& units,
                         const Flags& digits_kept, const Doubles& nodes, const Doubles& chi, const Doubles& q,
                         const Doubles& c) {
    const py::ssize_t layers = digits_kept.ndim() == 1 ? digits_kept.shape(0) : -1;
    const Rows units_of(units, layers, 2, "units must have the shape (layers, 2)");
    const Rows nodes_of(nodes, layers, 9, "nodes must have the shape (layers, 9)");
    const Rows chi_of(chi, layers, 3, "chi must have the shape (layers, 3)");
    const Rows q_of(q, layers, 2, "q must have the shape (layers, 2)");
    const Rows c_of(c, layers, 2, "c must have the shape (layers, 2)");
    ForwardRequest request;
    request.sigma_w2 = sigma_w2;
    request.residual = residual;
    request.depth = layers;
    ForwardResult result;
    result.resize(request, 0);
    for (py::ssize_t l = 0; l < layers; ++l)
        write_estimates(request, inputs, sums_of(units_of[l], nodes_of[l], chi_of[l], q_of[l], c_of[l]),
                        digits_kept.at(l), l, result);
    py::dict found;
    const auto put = [&](const std::string& name, const Estimate& estimate) {
        found[name.c_str()] = copy_of(estimate.value, {layers});
        found[(name + "_se").c_str()] = copy_of(estimate.error, {layers});
    };
    put("sigma_mu2", result.sigma_mu2);
    put("sigma_y2", result.sigma_y2);
    put("gamma", result.gamma);
    put("q", result.q);
    put("c", result.c);
    put("chi", result.chi);
    return found;
}

}  // namespace

void register_layers(py::module_& m) {
    using namespace py::literals;
    m.def("covariance_factor", &factor, "products"_a, "gain"_a, "accuracy"_a, "largest_rank"_a,
          "L with L L^T = gain * products, of which [b, a] with a >= b is read: "
          "(l with L_ik at [k, i], pivots, columns, "
          "triangular, smallest).");
    m.def("layer_estimates", &layer_estimates, py::kw_only(), "inputs"_a, "sigma_w2"_a, "residual"_a, "units"_a,
          "digits_kept"_a, "nodes"_a, "chi"_a, "q"_a, "c"_a,
          "Each estimate and its standard error, from the sums of each layer (core/statistics.h, cpu/layer.h).");
}

}  // namespace igb::bindings
