// The covariance of given inputs at infinite width: checks, array views, the GIL and the signals.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/pool_names.h"
#include "bindings/register.h"
#include "bindings/watched.h"
#include "cpu/covariance_map.h"

namespace py = pybind11;

namespace igb::bindings {

namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

void require_finite(const Doubles& array, const char* message) {
    require(array.ndim() == 2 && array.shape(0) >= 2 && array.shape(1) >= 1, message);
    for (py::ssize_t i = 0; i < array.size(); ++i) require(std::isfinite(array.data()[i]), message);
}

// A CovarianceMap that is started and owns nothing of the caller's.
class Map {
public:
    Map(const py::object& k0, const py::object& inputs, const std::string& pool, int size, double sigma_w2,
        double sigma_b2, double residual, bool layernorm, std::int64_t depth) {
        require(k0.is_none() != inputs.is_none(), "give k0 or inputs, one of the two");
        require(std::isfinite(sigma_w2) && sigma_w2 > 0.0, "sigma_w2 must be positive and finite");
        require(std::isfinite(sigma_b2) && sigma_b2 >= 0.0, "sigma_b2 must be finite and not negative");
        require(std::isfinite(residual) && residual >= 0.0, "residual must be finite and not negative");
        require(depth >= 1 && depth < std::int64_t{1} << 24, "depth must be from 1 to 2^24 - 1");
        const auto given = Doubles::ensure(k0.is_none() ? inputs : k0);
        if (!given) throw py::error_already_set();
        require_finite(given, "k0 and inputs must be finite, of two dimensions and two rows or more");
        require(k0.is_none() || given.shape(0) == given.shape(1), "k0 must be square");
        map_.emplace(
            CovarianceRequest{pool_of(pool, size), sigma_w2, sigma_b2, residual, layernorm, given.shape(0), depth});
        depth_ = depth;
        count_ = given.shape(0);
        const double* const data = given.data();
        run_watched(py::none(), [&](Monitor& monitor) {
            if (k0.is_none()) {
                map_->start_from_inputs(data, given.shape(1), monitor);
            } else {
                map_->start_from_covariance(data);
            }
        });
    }

    std::int64_t advance(const Phi& phi, std::int64_t layer, const py::object& callback) {
        require(layer >= 1 && layer <= depth_, "layer must be from 1 to depth");
        std::int64_t done = 0;
        run_watched(callback, [&](Monitor& monitor) { done = map_->advance(phi, layer, monitor); });
        return done;
    }

    Doubles covariance() const {
        Doubles result({count_, count_});
        double* const out = result.mutable_data();
        const py::gil_scoped_release nogil;
        map_->covariance(out);
        return result;
    }

    py::dict columns() const {
        const CovarianceMap::Columns& from = map_->columns();
        py::dict result;
        const auto add = [&](const char* name, const std::vector<double>& column) {
            result[name] = Doubles(static_cast<py::ssize_t>(column.size()), column.data());
        };
        add("sigma_mu2", from.sigma_mu2);
        add("sigma_y2", from.sigma_y2);
        add("gamma", from.gamma);
        add("q", from.q);
        add("c", from.c);
        add("chi", from.chi);
        return result;
    }

    double largest_seen() const { return map_->largest_seen(); }

private:
    std::optional<CovarianceMap> map_;
    py::ssize_t count_ = 0;
    std::int64_t depth_ = 0;
};

}  // namespace

void register_kernel(py::module_& m) {
    using namespace py::literals;
    py::class_<Map>(m, "CovarianceMap", "The covariance of given inputs, taken from layer to layer.")
        .def(py::init<const py::object&, const py::object&, const std::string&, int, double, double, double, bool,
                      std::int64_t>(),
             py::kw_only(), "k0"_a = py::none(), "inputs"_a = py::none(), "pool"_a = "none", "size"_a = 1, "sigma_w2"_a,
             "sigma_b2"_a, "residual"_a = 0.0, "layernorm"_a = false, "depth"_a)
        .def("advance", &Map::advance, py::kw_only(), "phi"_a, "layer"_a, "callback"_a = py::none(),
             "On to that layer; how many layers are done, fewer where the variances outgrew phi.q_max.")
        .def("covariance", &Map::covariance, "n x n, of the layer reached.")
        .def("columns", &Map::columns, "One number for every layer.")
        .def_property_readonly("largest_seen", &Map::largest_seen, "Variance of what phi sees next, at most.");
    m.def("covariance_memory", &CovarianceMap::memory, py::kw_only(), "inputs"_a,
          "Estimated memory of a CovarianceMap, in bytes.");
}

}  // namespace igb::bindings
