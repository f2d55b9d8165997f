// Mean-field theory: the activations themselves, their Gaussian expectations, and the recursion over layers. Here are
// the checks, the array views, the GIL and the signals; the mathematics is in core/activations.h and cpu/.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/activation_names.h"
#include "bindings/pool_names.h"
#include "bindings/register.h"
#include "bindings/watched.h"
#include "core/activations.h"
#include "cpu/moments.h"
#include "cpu/parallel.h"
#include "cpu/phi.h"
#include "cpu/propagate.h"

namespace py = pybind11;

namespace igb::bindings {

namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

// ---- Activations ----------------------------------------------------------------------------------------------------

// out[i] = function(i) on all threads.
template <class Function>
void fill(py::ssize_t count, Function&& function) {
    constexpr py::ssize_t stretch = py::ssize_t{1} << 14;
    const py::gil_scoped_release nogil;
    parallel_for(static_cast<std::size_t>((count + stretch - 1) / stretch), [&](std::size_t index, int) {
        const py::ssize_t first = static_cast<py::ssize_t>(index) * stretch;
        const py::ssize_t last = first + stretch < count ? first + stretch : count;
        for (py::ssize_t i = first; i < last; ++i) function(i);
    });
}

template <class T>
py::array evaluate_as(const Activation& activation, const std::string& what, const py::array& x) {
    const auto in = py::array_t<T, py::array::c_style>(x);
    py::array_t<T> result(in.size());
    const T* const from = in.data();
    T* const to = result.mutable_data();
    visit<T>(activation, [&](const auto& phi) {
        if (what == "value") {
            fill(in.size(), [&](py::ssize_t i) { to[i] = phi.value(from[i]); });
        } else if (what == "slope") {
            fill(in.size(), [&](py::ssize_t i) { to[i] = phi.slope(from[i]); });
        } else if (what == "curvature") {
            fill(in.size(), [&](py::ssize_t i) { to[i] = phi.curvature(from[i]); });
        } else {
            throw std::invalid_argument("what must be value, slope or curvature, got " + what);
        }
    });
    return result;
}

template <class T>
py::array difference_as(const Activation& activation, const py::array& m, const py::array& d) {
    const auto from = py::array_t<T, py::array::c_style>(m), by = py::array_t<T, py::array::c_style>(d);
    py::array_t<T> result(from.size());
    const T *const start = from.data(), *const step = by.data();
    T* const to = result.mutable_data();
    visit<T>(activation, [&](const auto& phi) {
        fill(from.size(),
             [&](py::ssize_t i) { to[i] = phi.change(start[i], phi.anchor(start[i]), step[i]).difference; });
    });
    return result;
}

bool is_single(const py::array& array) { return py::isinstance<py::array_t<float>>(array); }

void require_floats(const py::array& array, const char* message) {
    require(array.ndim() == 1 && (is_single(array) || py::isinstance<py::array_t<double>>(array)), message);
}

py::array evaluate(const std::string& name, double parameter, const std::string& what, const py::array& x) {
    const Activation activation = activation_of(name, parameter);
    require_floats(x, "x must be a float32 or float64 array of one dimension");
    return is_single(x) ? evaluate_as<float>(activation, what, x) : evaluate_as<double>(activation, what, x);
}

py::array difference(const std::string& name, double parameter, const py::array& m, const py::array& d) {
    const Activation activation = activation_of(name, parameter);
    require_floats(m, "m must be a float32 or float64 array of one dimension");
    require_floats(d, "d must be a float32 or float64 array of one dimension");
    require(m.size() == d.size() && is_single(m) == is_single(d), "m and d must have the same length and dtype");
    return is_single(m) ? difference_as<float>(activation, m, d) : difference_as<double>(activation, m, d);
}

// ---- Checks ---------------------------------------------------------------------------------------------------------

bool is_variance(double x) { return std::isfinite(x) && x >= 0.0; }

void require_variances(const Doubles& array, const char* message) {
    require(array.ndim() == 1, message);
    for (py::ssize_t i = 0; i < array.size(); ++i) require(is_variance(array.at(i)), message);
}

Activation checked_activation(const std::string& name, double parameter) {
    require(std::isfinite(parameter), "parameter must be finite");
    return activation_of(name, parameter);
}

// ---- What is integrated ---------------------------------------------------------------------------------------------

std::vector<double> row_of(const Doubles& array, const char* message) {
    require(array.ndim() == 1, message);
    const std::vector<double> row(array.data(), array.data() + array.size());
    for (const double x : row) require(std::isfinite(x), message);
    return row;
}

Table::Series series_of(const Doubles& coefficients, std::size_t panels, const py::array_t<bool>& by_x,
                        py::ssize_t which) {
    require(coefficients.ndim() == 2 && coefficients.shape(0) == static_cast<py::ssize_t>(panels) &&
                coefficients.shape(1) == table_terms,
            "each series must have 16 coefficients for every panel");
    Table::Series series;
    series.coefficients.assign(coefficients.data(), coefficients.data() + coefficients.size());
    for (const double x : series.coefficients) require(std::isfinite(x), "the coefficients must be finite");
    for (std::size_t p = 0; p < panels; ++p) {
        series.by_x.push_back(by_x.at(which, static_cast<py::ssize_t>(p)) ? 1 : 0);
    }
    return series;
}

std::shared_ptr<Table> table_of(const Doubles& edges, const Doubles& value, const Doubles& slope,
                                const Doubles& curvature, const py::array_t<bool>& by_x, const Doubles& kinks,
                                const Doubles& jumps, int parity, int monotone, double q_max) {
    Table table;
    table.edges = row_of(edges, "edges must be finite, in one dimension");
    require(table.edges.size() >= 2, "edges must be two or more");
    for (std::size_t i = 1; i < table.edges.size(); ++i) {
        require(table.edges[i - 1] < table.edges[i], "edges must increase");
    }
    require(by_x.ndim() == 2 && by_x.shape(0) == 3 && by_x.shape(1) == static_cast<py::ssize_t>(table.panels()),
            "by_x must be of shape (3, panels)");
    const Doubles* const coefficients[3] = {&value, &slope, &curvature};
    for (int m = 0; m < 3; ++m) table.series[m] = series_of(*coefficients[m], table.panels(), by_x, m);
    table.kinks = row_of(kinks, "kinks must be finite, in one dimension");
    table.jumps = row_of(jumps, "jumps must be finite, in one dimension");
    require(table.kinks.size() == table.jumps.size(), "kinks and jumps must have the same length");
    for (const double kink : table.kinks) {
        require(std::binary_search(table.edges.begin(), table.edges.end(), kink), "every kink must be an edge");
    }
    require(parity >= -1 && parity <= 1 && monotone >= -1 && monotone <= 1, "parity and monotone must be -1, 0 or 1");
    require(q_max > 0.0, "q_max must be positive");
    table.parity = parity;
    table.monotone = monotone;
    table.q_max = q_max;
    table.finish();
    return std::make_shared<Table>(std::move(table));
}

Phi mixture_of(const std::vector<std::pair<double, Phi>>& components) {
    require(!components.empty(), "components must not be empty");
    Phi mixture;
    for (const auto& [weight, phi] : components) {
        require(weight > 0.0 && std::isfinite(weight), "weights must be positive and finite");
        for (const Phi::Share& share : phi.shares) mixture.shares.push_back({weight * share.weight, share.leaf});
    }
    return mixture;
}

// ---- What it is made of, for the kernels of a GPU -------------------------------------------------------------------

std::string name_of(ActivationKind kind) {
    for (const char* name : {"linear", "relu", "leaky_relu", "tanh", "erf"}) {
        if (activation_of(name, 0.0).kind == kind) return name;
    }
    throw std::logic_error("an activation without a name");
}

template <class T>
py::array_t<T> array_of(const std::vector<T>& row) {
    return py::array_t<T>(static_cast<py::ssize_t>(row.size()), row.data());
}

// Of phi, phi' and phi'': T of shape (3, panels), or (3, panels, each).
template <class T, class Element>
py::array_t<T> rows_of_series(const Table& table, py::ssize_t each, std::vector<Element> Table::Series::* part) {
    std::vector<py::ssize_t> shape{3, static_cast<py::ssize_t>(table.panels())};
    if (each > 1) shape.push_back(each);
    py::array_t<T> result(shape);
    T* to = result.mutable_data();
    for (const Table::Series& series : table.series) to = std::copy((series.*part).begin(), (series.*part).end(), to);
    return result;
}

using Part = std::tuple<double, std::string, double, std::shared_ptr<Table>>;

std::vector<Part> parts_of(const Phi& phi) {
    std::vector<Part> parts;
    for (const auto& [weight, leaf] : phi.shares) {
        const std::string kind = leaf.table ? "table" : name_of(leaf.activation.kind);
        // Nothing of a Table can be changed from Python.
        parts.emplace_back(weight, kind, leaf.activation.parameter, std::const_pointer_cast<Table>(leaf.table));
    }
    return parts;
}

void require_within_reach(const Phi& phi, const Doubles& q) {
    const double q_max = phi.q_max();
    for (py::ssize_t i = 0; i < q.size(); ++i) require(q.at(i) <= q_max, "the table of phi does not reach so far");
}

// ---- Expectations ---------------------------------------------------------------------------------------------------

Doubles moments(const Phi& phi, const std::string& pool, int size, int derivative, const Doubles& q_aa,
                const Doubles& q_bb, const Doubles& c) {
    const Pool pooled = pool_of(pool, size);
    require(derivative >= 0 && derivative <= 2, "derivative must be 0, 1 or 2");
    require_variances(q_aa, "q_aa must be a float64 array of one dimension, finite and not negative");
    require_variances(q_bb, "q_bb must be a float64 array of one dimension, finite and not negative");
    require_within_reach(phi, q_aa);
    require_within_reach(phi, q_bb);
    require(q_bb.size() == q_aa.size() && c.ndim() == 1 && c.size() == q_aa.size(), "lengths must agree");
    for (py::ssize_t i = 0; i < c.size(); ++i) require(std::fabs(c.at(i)) <= 1.0, "c must be from -1 to 1");
    Doubles result(q_aa.size());
    const double *const a = q_aa.data(), *const b = q_bb.data(), *const r = c.data();
    double* const out = result.mutable_data();
    run_watched(py::none(),
                [&](Monitor& monitor) { pair_moments(phi, pooled, derivative, result.size(), a, b, r, out, monitor); });
    return result;
}

py::array table_values_at(const Table& table, int derivative, const Doubles& x) {
    require(derivative >= 0 && derivative <= 2, "derivative must be 0, 1 or 2");
    const std::vector<double> at = row_of(x, "x must be a finite float64 array of one dimension");
    Doubles result(x.size());
    kernels().table_values(table.view(), derivative, x.size(), at.data(), result.mutable_data());
    return result;
}

// Rows of doubles, filled as the structs that the kernels return.
template <class Moments>
Moments* rows_of(Doubles& table) {
    static_assert(std::is_trivially_copyable_v<Moments> && sizeof(Moments) % sizeof(double) == 0);
    return reinterpret_cast<Moments*>(table.mutable_data());
}

Doubles single(const Phi& phi, const std::string& pool, int size, const Doubles& q) {
    const Pool pooled = pool_of(pool, size);
    require_variances(q, "q must be a float64 array of one dimension, finite and not negative");
    require_within_reach(phi, q);
    Doubles result({q.size(), py::ssize_t{5}});
    SingleMoments* const out = rows_of<SingleMoments>(result);
    const double* const in = q.data();
    run_watched(py::none(), [&](Monitor& monitor) { single_moments(phi, pooled, q.size(), in, out, monitor); });
    return result;
}

Doubles split(const Phi& phi, const std::string& pool, int size, const Doubles& sigma_mu2, const Doubles& sigma_y2) {
    const Pool pooled = pool_of(pool, size);
    require_variances(sigma_mu2, "sigma_mu2 must be a float64 array of one dimension, finite and not negative");
    require_variances(sigma_y2, "sigma_y2 must be a float64 array of one dimension, finite and not negative");
    require(sigma_mu2.size() == sigma_y2.size(), "sigma_mu2 and sigma_y2 must have the same length");
    for (py::ssize_t i = 0; i < sigma_y2.size(); ++i) {
        require(sigma_mu2.at(i) + sigma_y2.at(i) <= phi.q_max(), "the table of phi does not reach so far");
    }
    Doubles result({sigma_mu2.size(), py::ssize_t{2}});
    SplitMoments* const out = rows_of<SplitMoments>(result);
    const double *const mu = sigma_mu2.data(), *const y = sigma_y2.data();
    run_watched(py::none(),
                [&](Monitor& monitor) { split_moments(phi, pooled, sigma_mu2.size(), mu, y, out, monitor); });
    return result;
}

// ---- Recursion ------------------------------------------------------------------------------------------------------

py::dict trajectory(const Phi& phi, const std::string& pool, int size, double sigma_w2, double sigma_b2,
                    double residual, bool layernorm, double sigma_mu2, double sigma_y2, std::int64_t depth) {
    const PropagateRequest request{phi,       pool_of(pool, size), sigma_w2, sigma_b2, residual,
                                   layernorm, sigma_mu2,           sigma_y2, depth};
    require(std::isfinite(sigma_w2) && sigma_w2 > 0.0, "sigma_w2 must be positive and finite");
    require(is_variance(sigma_b2), "sigma_b2 must be finite and not negative");
    require(is_variance(residual), "residual must be finite and not negative");
    require(sigma_mu2 >= 0.0 && sigma_y2 >= 0.0, "sigma_mu2 and sigma_y2 must not be negative");
    require(depth >= 1 && depth < std::int64_t{1} << 24, "depth must be from 1 to 2^24 - 1");
    py::dict columns;
    const auto column = [&](const char* key) {
        Doubles array(depth);
        columns[key] = array;
        return array.mutable_data();
    };
    const Trajectory out{column("sigma_mu2"), column("sigma_y2"), column("gamma"),
                         column("q"),         column("c"),        column("chi")};
    std::int64_t computed = 0;
    run_watched(py::none(), [&](Monitor& monitor) { computed = propagate(request, out, monitor); });
    columns["computed"] = computed;
    return columns;
}

}  // namespace

void register_meanfield(py::module_& m) {
    using namespace py::literals;
    m.def("evaluate", &evaluate, py::kw_only(), "activation"_a, "parameter"_a, "what"_a, "x"_a,
          "phi(x), phi'(x) or phi''(x), in the dtype of x.");
    m.def("difference", &difference, py::kw_only(), "activation"_a, "parameter"_a, "m"_a, "d"_a,
          "phi(m + d) - phi(m) without cancellation.");
    py::class_<Table, std::shared_ptr<Table>>(m, "Table", "phi, phi' and phi'' as Chebyshev series on panels.")
        .def(py::init([](const Doubles& edges, const Doubles& value, const Doubles& slope, const Doubles& curvature,
                         const py::array_t<bool>& by_x, const Doubles& kinks, const Doubles& jumps, int parity,
                         int monotone, double q_max) {
                 return table_of(edges, value, slope, curvature, by_x, kinks, jumps, parity, monotone, q_max);
             }),
             py::kw_only(), "edges"_a, "value"_a, "slope"_a, "curvature"_a, "by_x"_a, "kinks"_a, "jumps"_a, "parity"_a,
             "monotone"_a, "q_max"_a)
        .def_readonly("q_max", &Table::q_max)
        .def_readonly("parity", &Table::parity)
        .def_readonly("one_sign", &Table::one_sign)
        .def_readonly("monotone", &Table::monotone)
        .def_property_readonly("edges", [](const Table& table) { return array_of(table.edges); })
        .def_property_readonly("kinks", [](const Table& table) { return array_of(table.kinks); })
        .def_property_readonly("jumps", [](const Table& table) { return array_of(table.jumps); })
        .def_property_readonly(
            "series",
            [](const Table& table) { return rows_of_series<double>(table, table_terms, &Table::Series::coefficients); },
            "Coefficients of phi, phi' and phi'', of shape (3, panels, 16).")
        .def_property_readonly(
            "largest", [](const Table& table) { return rows_of_series<double>(table, 1, &Table::Series::largest); },
            "What bounds them on each panel, of shape (3, panels).")
        .def_property_readonly(
            "by_x", [](const Table& table) { return rows_of_series<bool>(table, 1, &Table::Series::by_x); },
            "Where a series is to be multiplied by x, of shape (3, panels).")
        .def("__call__", &table_values_at, "derivative"_a, "x"_a, "phi^(m)(x) from the series.");
    py::class_<Phi>(m, "Phi", "What is integrated: a known activation, a table, or a mixture of these.")
        .def(py::init([](const std::string& kind, double parameter) {
                 return Phi{{{1.0, {checked_activation(kind, parameter), nullptr}}}};
             }),
             py::kw_only(), "kind"_a, "parameter"_a = 0.0)
        .def(py::init([](const std::shared_ptr<Table>& table) {
                 return Phi{{{1.0, {Activation{ActivationKind::linear}, table}}}};
             }),
             py::kw_only(), "table"_a.none(false))
        .def(py::init(&mixture_of), py::kw_only(), "components"_a)
        .def_property_readonly("q_max", &Phi::q_max)
        .def_property_readonly("parts", &parts_of, "(weight, kind, parameter, table) of each leaf.");
    m.def("moments", &moments, py::kw_only(), "phi"_a, "pool"_a = "none", "size"_a = 1, "derivative"_a, "q_aa"_a,
          "q_bb"_a, "c"_a, "E[P(u) P(v)], or of derivatives, u and v of variances q_aa, q_bb and correlation c.");
    m.def("single_moments", &single, py::kw_only(), "phi"_a, "pool"_a = "none", "size"_a = 1, "q"_a,
          "Rows of E[P], E[P^2], E[P'^2], d E[P^2] / dq and d E[P] / dq at variance q.");
    m.def("split_moments", &split, py::kw_only(), "phi"_a, "pool"_a = "none", "size"_a = 1, "sigma_mu2"_a, "sigma_y2"_a,
          "Rows of E_mu[(E_e P)^2] and E_mu[Var_e P], y = mu + e.");
    m.def("propagate", &trajectory, py::kw_only(), "phi"_a, "pool"_a = "none", "size"_a = 1, "sigma_w2"_a, "sigma_b2"_a,
          "residual"_a = 0.0, "layernorm"_a = false, "sigma_mu2"_a, "sigma_y2"_a, "depth"_a,
          "Layers 1 to depth, from the sigma_mu2 and sigma_y2 of layer 1; `computed` says how many.");
}

}  // namespace igb::bindings
