// Mean-field theory: the activations themselves, their Gaussian expectations, and the recursion over layers. Here are
// the checks, the array views, the GIL and the signals; the mathematics is in core/activations.h and cpu/.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>

#include "bindings/activation_names.h"
#include "bindings/register.h"
#include "core/activations.h"
#include "cpu/moments.h"
#include "cpu/parallel.h"
#include "cpu/propagate.h"

namespace py = pybind11;

namespace igb::bindings {

namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

// Runs work(monitor) without the GIL, looking at signals ten times a second; raises what a signal raised.
template <class Work>
void run_watched(Work&& work) {
    std::optional<py::error_already_set> raised;
    Monitor monitor([&](double) {
        const py::gil_scoped_acquire gil;
        if (PyErr_CheckSignals() == 0) return true;
        raised.emplace();
        return false;
    });
    {
        const py::gil_scoped_release nogil;
        work(monitor);
    }
    if (raised) throw std::move(*raised);
}

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

// ---- Expectations ---------------------------------------------------------------------------------------------------

bool is_variance(double x) { return std::isfinite(x) && x >= 0.0; }

void require_variances(const Doubles& array, const char* message) {
    require(array.ndim() == 1, message);
    for (py::ssize_t i = 0; i < array.size(); ++i) require(is_variance(array.at(i)), message);
}

Activation checked_activation(const std::string& name, double parameter) {
    require(std::isfinite(parameter), "parameter must be finite");
    return activation_of(name, parameter);
}

Doubles moments(const std::string& name, double parameter, int derivative, const Doubles& q_aa, const Doubles& q_bb,
                const Doubles& c) {
    const Activation activation = checked_activation(name, parameter);
    const bool smooth = visit<double>(activation, [](const auto& phi) { return phi.smooth; });
    require(derivative >= 0 && derivative <= (smooth ? 2 : 1), "derivative must be 0, 1, or 2 where phi is smooth");
    require_variances(q_aa, "q_aa must be a float64 array of one dimension, finite and not negative");
    require_variances(q_bb, "q_bb must be a float64 array of one dimension, finite and not negative");
    require(q_bb.size() == q_aa.size() && c.ndim() == 1 && c.size() == q_aa.size(), "lengths must agree");
    for (py::ssize_t i = 0; i < c.size(); ++i) require(std::fabs(c.at(i)) <= 1.0, "c must be from -1 to 1");
    Doubles result(q_aa.size());
    const double *const a = q_aa.data(), *const b = q_bb.data(), *const r = c.data();
    double* const out = result.mutable_data();
    run_watched([&](Monitor& monitor) { pair_moments(activation, derivative, result.size(), a, b, r, out, monitor); });
    return result;
}

// Rows of doubles, filled as the structs that the kernels return.
template <class Moments>
Moments* rows_of(Doubles& table) {
    static_assert(std::is_trivially_copyable_v<Moments> && sizeof(Moments) % sizeof(double) == 0);
    return reinterpret_cast<Moments*>(table.mutable_data());
}

Doubles single(const std::string& name, double parameter, const Doubles& q) {
    const Activation activation = checked_activation(name, parameter);
    require_variances(q, "q must be a float64 array of one dimension, finite and not negative");
    Doubles result({q.size(), py::ssize_t{4}});
    SingleMoments* const out = rows_of<SingleMoments>(result);
    const double* const in = q.data();
    run_watched([&](Monitor& monitor) { single_moments(activation, q.size(), in, out, monitor); });
    return result;
}

Doubles split(const std::string& name, double parameter, const Doubles& sigma_mu2, const Doubles& sigma_y2) {
    const Activation activation = checked_activation(name, parameter);
    require_variances(sigma_mu2, "sigma_mu2 must be a float64 array of one dimension, finite and not negative");
    require_variances(sigma_y2, "sigma_y2 must be a float64 array of one dimension, finite and not negative");
    require(sigma_mu2.size() == sigma_y2.size(), "sigma_mu2 and sigma_y2 must have the same length");
    Doubles result({sigma_mu2.size(), py::ssize_t{2}});
    SplitMoments* const out = rows_of<SplitMoments>(result);
    const double *const mu = sigma_mu2.data(), *const y = sigma_y2.data();
    run_watched([&](Monitor& monitor) { split_moments(activation, sigma_mu2.size(), mu, y, out, monitor); });
    return result;
}

// ---- Recursion ------------------------------------------------------------------------------------------------------

py::dict trajectory(const std::string& name, double parameter, double sigma_w2, double sigma_b2, double sigma_mu2,
                    double sigma_y2, std::int64_t depth) {
    const PropagateRequest request{checked_activation(name, parameter), sigma_w2, sigma_b2, sigma_mu2, sigma_y2, depth};
    require(std::isfinite(sigma_w2) && sigma_w2 > 0.0, "sigma_w2 must be positive and finite");
    require(is_variance(sigma_b2), "sigma_b2 must be finite and not negative");
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
    run_watched([&](Monitor& monitor) { propagate(request, out, monitor); });
    return columns;
}

}  // namespace

void register_meanfield(py::module_& m) {
    using namespace py::literals;
    m.def("evaluate", &evaluate, py::kw_only(), "activation"_a, "parameter"_a, "what"_a, "x"_a,
          "phi(x), phi'(x) or phi''(x), in the dtype of x.");
    m.def("difference", &difference, py::kw_only(), "activation"_a, "parameter"_a, "m"_a, "d"_a,
          "phi(m + d) - phi(m) without cancellation.");
    m.def("moments", &moments, py::kw_only(), "activation"_a, "parameter"_a, "derivative"_a, "q_aa"_a, "q_bb"_a, "c"_a,
          "E[phi(u) phi(v)], or of derivatives, u and v normal with variances q_aa, q_bb and correlation c.");
    m.def("single_moments", &single, py::kw_only(), "activation"_a, "parameter"_a, "q"_a,
          "Rows of E[phi], E[phi^2], E[phi'^2] and d E[phi^2] / dq at variance q.");
    m.def("split_moments", &split, py::kw_only(), "activation"_a, "parameter"_a, "sigma_mu2"_a, "sigma_y2"_a,
          "Rows of E_mu[(E_e phi)^2] and E_mu[Var_e phi], y = mu + e.");
    m.def("propagate", &trajectory, py::kw_only(), "activation"_a, "parameter"_a, "sigma_w2"_a, "sigma_b2"_a,
          "sigma_mu2"_a, "sigma_y2"_a, "depth"_a, "Layers 1 to depth, from the sigma_mu2 and sigma_y2 of layer 1.");
}

}  // namespace igb::bindings
