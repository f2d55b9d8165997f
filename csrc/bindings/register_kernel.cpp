// The covariance of given inputs at infinite width: checks, array views, the GIL and the signals.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
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

CovarianceRequest request_of(std::int64_t inputs, const std::string& pool, int size, double sigma_w2, double sigma_b2,
                             double residual, bool layernorm, std::int64_t depth) {
    require(std::isfinite(sigma_w2) && sigma_w2 > 0.0, "sigma_w2 must be positive and finite");
    require(std::isfinite(sigma_b2) && sigma_b2 >= 0.0, "sigma_b2 must be finite and not negative");
    require(std::isfinite(residual) && residual >= 0.0, "residual must be finite and not negative");
    require(depth >= 1 && depth < std::int64_t{1} << 24, "depth must be from 1 to 2^24 - 1");
    return {pool_of(pool, size), sigma_w2, sigma_b2, residual, layernorm, inputs, depth};
}

Doubles array_of(const std::vector<double>& from) {
    return Doubles(static_cast<py::ssize_t>(from.size()), from.data());
}

py::dict arrays_of(const CovarianceLayers::Columns& from) {
    py::dict result;
    result["sigma_mu2"] = array_of(from.sigma_mu2);
    result["sigma_y2"] = array_of(from.sigma_y2);
    result["gamma"] = array_of(from.gamma);
    result["q"] = array_of(from.q);
    result["c"] = array_of(from.c);
    result["chi"] = array_of(from.chi);
    return result;
}

// A CovarianceMap that is started and owns nothing of the caller's.
class Map {
public:
    Map(const py::object& k0, const py::object& inputs, const std::string& pool, int size, double sigma_w2,
        double sigma_b2, double residual, bool layernorm, std::int64_t depth) {
        require(k0.is_none() != inputs.is_none(), "give k0 or inputs, one of the two");
        const auto given = Doubles::ensure(k0.is_none() ? inputs : k0);
        if (!given) throw py::error_already_set();
        require_finite(given, "k0 and inputs must be finite, of two dimensions and two rows or more");
        require(k0.is_none() || given.shape(0) == given.shape(1), "k0 must be square");
        map_.emplace(request_of(given.shape(0), pool, size, sigma_w2, sigma_b2, residual, layernorm, depth));
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

    py::dict columns() const { return arrays_of(map_->columns()); }
    double largest_seen() const { return map_->largest_seen(); }

private:
    std::optional<CovarianceMap> map_;
    py::ssize_t count_ = 0;
    std::int64_t depth_ = 0;
};

// ---- Layers whose pairs are held elsewhere --------------------------------------------------------------------------

// The arrays of a view, one after the other.
Doubles table_of(std::initializer_list<const double*> rows, std::int64_t columns) {
    Doubles result({static_cast<py::ssize_t>(rows.size()), static_cast<py::ssize_t>(columns)});
    double* to = result.mutable_data();
    for (const double* row : rows) to = std::copy_n(row, columns, to);
    return result;
}

Doubles table_of(const InputView& in) {
    return table_of({in.q, in.root_change, in.inverse_root, in.seen, in.seen_change}, in.padded);
}

py::dict dict_of(const PairStep& step) {
    using namespace py::literals;
    const PairMap& map = step.map;
    return py::dict("inputs"_a = table_of(step.in), "next"_a = table_of(step.next),
                    "means"_a = table_of({map.mean, map.mean_change}, step.in.padded), "carry"_a = map.carry,
                    "gain"_a = map.gain, "cross"_a = map.cross, "bias"_a = map.bias, "mirrored"_a = map.mirrored,
                    "needs_angles"_a = step.needs_angles);
}

Doubles numbers_of(const double* from, std::int64_t count) {
    return table_of({from}, count).reshape({static_cast<py::ssize_t>(count)});
}

// (kind, weight, ...), with what the kind needs.
py::tuple tuple_of(const PairRoute& route, std::int64_t padded) {
    const PairSeriesView& series = route.series;
    const CurveView& curve = route.curve;
    const auto features = [&] { return numbers_of(series.feature, series.features * padded); };
    switch (route.kind) {
        case PairRoute::Kind::line: return py::make_tuple("line", route.weight, route.line.slope2, route.line.bend2);
        case PairRoute::Kind::erf:
            return py::make_tuple("erf", route.weight, series.features, features(), series.feature_scale2);
        case PairRoute::Kind::series:
            return py::make_tuple("series", route.weight, series.parity, series.terms,
                                  numbers_of(series.series, series.terms * padded), series.features, features(),
                                  series.feature_scale2);
        case PairRoute::Kind::curve:
            return py::make_tuple("curve", route.weight, curve.panels, numbers_of(curve.edges, curve.panels + 1),
                                  numbers_of(curve.series, std::int64_t{2} * curve.panels * CurveView::nodes),
                                  curve.unit, curve.square);
        case PairRoute::Kind::direct: break;
    }
    return py::make_tuple("direct", route.weight);
}

class Layers {
public:
    Layers(std::int64_t inputs, const std::string& pool, int size, double sigma_w2, double sigma_b2, double residual,
           bool layernorm, std::int64_t depth)
        : inputs_(inputs), depth_(depth) {
        require(inputs >= 2, "there must be two inputs or more");
        layers_.emplace(request_of(inputs, pool, size, sigma_w2, sigma_b2, residual, layernorm, depth));
    }

    static std::int64_t middle_of(const Doubles& variance) {
        require(variance.ndim() == 1 && variance.size() >= 1, "there must be a variance");
        return CovarianceLayers::middle_of({variance.data(), variance.data() + variance.size()});
    }

    py::dict first_step(std::int64_t reference, double variance, const Doubles& changes) {
        require(changes.ndim() == 1 && changes.size() == inputs_, "changes must be as many as the inputs");
        require(reference >= 0 && reference < inputs_, "the reference must be one of the inputs");
        return dict_of(layers_->first_step(reference, variance, {changes.data(), changes.data() + inputs_}));
    }

    void use(const Phi& phi) { layers_->use(phi); }

    py::object next_step(std::int64_t layer) {
        require(layer >= 1 && layer <= depth_, "layer must be from 1 to depth");
        std::optional<PairStep> step;
        run_watched(py::none(), [&](Monitor&) { step = layers_->next_step(layer); });
        return step ? py::object(dict_of(*step)) : py::none();
    }

    void make_curves(double low, double high) {
        run_watched(py::none(), [&](Monitor&) { layers_->make_curves(low, high); });
    }

    py::list routes() const {
        const std::int64_t padded = (inputs_ + pair_block - 1) / pair_block * pair_block;
        py::list result;
        for (const PairRoute& route : layers_->routes()) result.append(tuple_of(route, padded));
        return result;
    }

    // (product, spread, steep, rounding) from K and T.
    py::tuple integrate_pairs(const Doubles& covariance, const Doubles& distance) {
        const auto fits = [&](const Doubles& k) {
            return k.ndim() == 2 && k.shape(0) == inputs_ && k.shape(1) == inputs_;
        };
        require(fits(covariance) && fits(distance), "K and T must be as large as the inputs are many");
        Doubles product({inputs_, inputs_}), spread({inputs_, inputs_});
        std::fill_n(product.mutable_data(), inputs_ * inputs_, 0.0);
        std::fill_n(spread.mutable_data(), inputs_ * inputs_, 0.0);
        const double *const k = covariance.data(), *const t = distance.data();
        double *const to_product = product.mutable_data(), *const to_spread = spread.mutable_data();
        PairTotals found;
        run_watched(py::none(),
                    [&](Monitor& monitor) { found = layers_->integrate_pairs(k, t, to_product, to_spread, monitor); });
        return py::make_tuple(product, spread, found.steep, found.rounding);
    }

    void end_step(double covariance, double distance, double correlation, double steep, double rounding) {
        layers_->end_step({{covariance, distance, correlation}, steep, rounding});
    }

    Doubles variances() const {
        Doubles result(inputs_);
        for (std::int64_t a = 0; a < inputs_; ++a) result.mutable_at(a) = layers_->variance(a);
        return result;
    }

    py::dict columns() const { return arrays_of(layers_->columns()); }
    std::int64_t done() const { return layers_->done(); }
    double largest_seen() const { return layers_->largest_seen(); }

private:
    std::optional<CovarianceLayers> layers_;
    std::int64_t inputs_, depth_;
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
    py::class_<Layers>(m, "CovarianceLayers", "The same without the pairs, which are held elsewhere.")
        .def(py::init<std::int64_t, const std::string&, int, double, double, double, bool, std::int64_t>(),
             py::kw_only(), "inputs"_a, "pool"_a = "none", "size"_a = 1, "sigma_w2"_a, "sigma_b2"_a, "residual"_a = 0.0,
             "layernorm"_a = false, "depth"_a)
        .def_static("middle_of", &Layers::middle_of, "variance"_a, "An input of median variance: the reference.")
        .def("first_step", &Layers::first_step, "reference"_a, "variance"_a, "changes"_a,
             "The step to layer 1 from the variance of one input and the differences of all from it.")
        .def("use", &Layers::use, "phi"_a, "What takes the layers on.")
        .def("next_step", &Layers::next_step, "layer"_a,
             "The next step on the way to that layer; None where it is reached, or there is none.")
        .def("make_curves", &Layers::make_curves, "low"_a, "high"_a,
             "If the step needs it: for angles between the smallest above 0 and the largest.")
        .def("routes", &Layers::routes, "How the components of phi are to be integrated in this step.")
        .def("end_step", &Layers::end_step, "covariance"_a, "distance"_a, "correlation"_a, "steep"_a,
             "rounding"_a = 0.0, "The sums over all pairs, of the layer reached.")
        .def("integrate_pairs", &Layers::integrate_pairs, "covariance"_a, "distance"_a,
             "From K and T of all pairs, (n, n): what is integrated pair by pair, the sum of such routes.")
        .def("variances", &Layers::variances, "Of the layer reached.")
        .def("columns", &Layers::columns, "One number for every layer.")
        .def_property_readonly("done", &Layers::done, "How many layers have their columns.")
        .def_property_readonly("largest_seen", &Layers::largest_seen, "Variance of what phi sees next, at most.");
    m.def("covariance_memory", &CovarianceMap::memory, py::kw_only(), "inputs"_a,
          "Estimated memory of a CovarianceMap, in bytes.");
}

}  // namespace igb::bindings
