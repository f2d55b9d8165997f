// simulate, streams of inputs and the memory estimate: checks, array views, the GIL and signals; the engines are in
// cpu/forward_*.cpp.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/pool_names.h"
#include "bindings/register.h"
#include "bindings/watched.h"
#include "bindings/weight_names.h"
#include "cpu/forward.h"

namespace py = pybind11;

namespace igb::bindings {

namespace {

using InputsF32 = py::array_t<float, py::array::c_style>;
using InputsF64 = py::array_t<double, py::array::c_style>;
using Labels = py::array_t<std::int32_t, py::array::c_style>;

// Keyword arguments, each taken once; what is left over was no argument.
class Options {
public:
    explicit Options(const py::kwargs& given) : left_(py::dict(given)) {}

    template <class T>
    T required(const char* name) {
        if (!left_.contains(name)) throw py::type_error(std::string("missing argument: ") + name);
        return optional<T>(name, T{});
    }

    template <class T>
    T optional(const char* name, T otherwise) {
        if (!left_.contains(name)) return otherwise;
        try {
            T value = left_[name].template cast<T>();
            left_.attr("pop")(name);
            return value;
        } catch (const py::cast_error&) {
            throw py::type_error(std::string("argument of the wrong type: ") + name);
        }
    }

    void finish() const {
        for (const auto& [name, value] : left_) throw py::type_error("unknown argument: " + std::string(py::str(name)));
    }

private:
    py::dict left_;
};

bool is_gram(const std::string& method) {
    require(method == "gram" || method == "direct", "method must be 'gram' or 'direct'");
    return method == "gram";
}

bool is_single(const std::string& dtype) {
    require(dtype == "float32" || dtype == "float64", "dtype must be 'float32' or 'float64'");
    return dtype == "float32";
}

Loss loss_of(const std::string& name) {
    if (name == "none") return Loss::none;
    if (name == "readout") return Loss::readout;
    if (name == "cross_entropy") return Loss::cross_entropy;
    throw std::invalid_argument("loss must be none, readout or cross_entropy, got '" + name + "'");
}

// What every request has; its phi is set apart, since an estimate of memory needs none.
ForwardRequest request_of(Options& options) {
    ForwardRequest request;
    request.pool = pool_of(options.optional<std::string>("pool", "none"), options.optional("pool_size", 1));
    request.weights = weight_law_of(options.optional<std::string>("weights", "gaussian"));
    request.sigma_w2 = options.optional("sigma_w2", 1.0);
    request.sigma_b2 = options.optional("sigma_b2", 0.0);
    request.residual = options.optional("residual", 0.0);
    request.layernorm = options.optional("layernorm", false);
    request.width = options.required<std::int64_t>("width");
    request.depth = options.required<std::int64_t>("depth");
    request.features = options.optional<std::int64_t>("features", 0);
    request.networks = options.optional<std::int64_t>("networks", 1);
    request.first_network = options.optional<std::uint32_t>("first_network", 0);
    request.seed = options.optional<std::uint64_t>("seed", 0);
    request.loss = loss_of(options.optional<std::string>("loss", "none"));
    request.classes = options.optional<std::int64_t>("classes", 10);
    request.per_node = options.optional("per_node", false);
    request.distributions = options.optional("distributions", false);
    request.tile = options.optional<std::int64_t>("tile", 0);
    request.chunk = options.optional<std::int64_t>("chunk", 0);
    if (request.features == 0) request.features = request.width;
    return request;
}

void check(const ForwardRequest& request) {
    require(request.width >= 1 && request.width <= std::int64_t{1} << 31, "width must be from 1 to 2^31");
    require(request.width % request.members() == 0, "width must be a multiple of the pool's size");
    require(request.features >= 1 && request.features <= std::int64_t{1} << 31, "inputs have too many features");
    require(request.depth >= 1 && request.depth < (std::int64_t{1} << 24) - 1, "depth must be from 1 to 2^24 - 2");
    require(request.networks >= 1 && request.networks <= std::int64_t{1} << 31, "networks must be from 1 to 2^31");
    require(request.classes >= 2 && request.classes <= std::int64_t{1} << 24, "classes must be from 2 to 2^24");
    require(request.tile >= 0 && request.tile % 64 == 0, "tile must be a multiple of 64, or 0");
    require(request.chunk >= 0, "chunk must not be negative");
    require(request.sigma_w2 > 0.0 && request.sigma_b2 >= 0.0, "sigma_w2 must be positive, sigma_b2 not negative");
    require(request.residual >= 0.0, "residual must not be negative");
}

void set_phi(ForwardRequest& request, const Phi& phi) {
    require(phi.shares.size() == 1, "phi must be one function, not a mixture");
    request.phi = phi.shares.front().leaf;
}

// A number of Gaussian inputs, or an array (n, features) with its labels, which the view does not keep alive.
InputsView view_of(ForwardRequest& request, const py::object& inputs, const py::object& labels, std::int64_t least) {
    InputsView view;
    if (!py::isinstance<py::array>(inputs)) {
        view.count = inputs.cast<std::int64_t>();
    } else {
        const auto array = inputs.cast<py::array>();
        require(array.ndim() == 2, "inputs must have two dimensions (n, features)");
        require((array.flags() & py::array::c_style) != 0, "inputs must be C-contiguous");
        require(array.shape(1) >= 1 && array.shape(1) <= std::int64_t{1} << 31, "inputs have too many features");
        if (py::isinstance<InputsF32>(inputs)) {
            view.f32 = static_cast<const float*>(array.data());
        } else if (py::isinstance<InputsF64>(inputs)) {
            view.f64 = static_cast<const double*>(array.data());
        } else {
            throw std::invalid_argument("inputs must be float32 or float64");
        }
        view.count = array.shape(0);
        request.features = array.shape(1);
    }
    require(view.count >= least && view.count <= std::int64_t{1} << 31, "inputs must be from 2 to 2^31");
    if (labels.is_none()) return view;
    require(py::isinstance<Labels>(labels), "labels must be a contiguous int32 array");
    const auto array = labels.cast<Labels>();
    require(array.ndim() == 1 && array.shape(0) == view.count, "labels must have one entry for each input");
    for (py::ssize_t a = 0; a < array.shape(0); ++a)
        require(array.at(a) >= 0 && array.at(a) < request.classes, "labels must be from 0 to classes - 1");
    view.labels = array.data();
    return view;
}

// The vector's memory as an array, without a copy.
template <class T>
py::array_t<T> array_of(std::vector<T>&& values, std::vector<py::ssize_t> shape) {
    auto owned = std::make_unique<std::vector<T>>(std::move(values));
    const T* const data = owned->data();
    const py::capsule owner(owned.release(), [](void* p) { delete static_cast<std::vector<T>*>(p); });
    return py::array_t<T>(std::move(shape), data, owner);
}

py::dict columns_of(const std::vector<HistogramEntry>& entries) {
    std::vector<std::int32_t> network, layer;
    std::vector<std::uint16_t> bin;
    std::vector<std::int64_t> count;
    for (const HistogramEntry& entry : entries) {
        network.push_back(entry.network);
        layer.push_back(entry.layer);
        bin.push_back(entry.bin);
        count.push_back(entry.count);
    }
    const auto n = static_cast<py::ssize_t>(entries.size());
    py::dict columns;
    columns["network"] = array_of(std::move(network), {n});
    columns["layer"] = array_of(std::move(layer), {n});
    columns["bin"] = array_of(std::move(bin), {n});
    columns["count"] = array_of(std::move(count), {n});
    return columns;
}

py::dict arrays_of(const ForwardRequest& request, ForwardResult&& result) {
    const py::ssize_t networks = request.networks, depth = request.depth, inputs = result.inputs;
    py::dict arrays;
    const auto put = [&](const std::string& name, auto& values, std::vector<py::ssize_t> shape) {
        arrays[name.c_str()] = array_of(std::move(values), std::move(shape));
    };
    const auto estimate = [&](const std::string& name, Estimate& values) {
        put(name, values.value, {networks, depth});
        put(name + "_se", values.error, {networks, depth});
    };
    estimate("sigma_mu2", result.sigma_mu2);
    estimate("sigma_y2", result.sigma_y2);
    estimate("gamma", result.gamma);
    estimate("q", result.q);
    estimate("c", result.c);
    estimate("chi", result.chi);
    put("guess", result.guess, {networks, inputs});
    if (request.per_node) {
        put("mu", result.mu, {networks, depth, request.width});
        put("var", result.var, {networks, depth, request.width});
    }
    if (request.loss == Loss::cross_entropy) put("labels", result.labels, {networks, inputs});
    if (request.loss != Loss::none) {
        put("gradient", result.gradient, {networks, depth, inputs});
        put("gradient_se", result.gradient_error, {networks, depth});
    }
    if (request.distributions) {
        arrays["mu_counts"] = columns_of(result.mu_counts);
        arrays["var_counts"] = columns_of(result.var_counts);
        arrays["q_counts"] = columns_of(result.q_counts);
        arrays["c_counts"] = columns_of(result.c_counts);
    }
    arrays["beyond_table"] = result.beyond_table;
    return arrays;
}

void run(const ForwardRequest& request, const InputsView& inputs, bool gram, bool single, ForwardResult& result,
         Monitor& monitor) {
    if (gram) {
        single ? forward_gram<float>(request, inputs, result, monitor)
               : forward_gram<double>(request, inputs, result, monitor);
    } else {
        single ? forward_direct<float>(request, inputs, result, monitor)
               : forward_direct<double>(request, inputs, result, monitor);
    }
}

py::dict simulate(const py::kwargs& kwargs) {
    Options options(kwargs);
    ForwardRequest request = request_of(options);
    set_phi(request, options.required<Phi>("phi"));
    const auto inputs = options.required<py::object>("inputs");
    const auto labels = options.optional<py::object>("labels", py::none());
    const auto callback = options.optional<py::object>("callback", py::none());
    const bool gram = is_gram(options.optional<std::string>("method", "gram"));
    const bool single = is_single(options.optional<std::string>("dtype", "float32"));
    options.finish();
    const InputsView view = view_of(request, inputs, labels, 2);
    check(request);
    require(!gram || request.weights == WeightLaw::gaussian || request.weights == WeightLaw::orthogonal,
            "method 'gram' takes gaussian and orthogonal weights");
    ForwardResult result;
    run_watched(callback, [&](Monitor& monitor) { run(request, view, gram, single, result, monitor); });
    return arrays_of(request, std::move(result));
}

// Inputs that come in pieces.
class Stream {
public:
    explicit Stream(const py::kwargs& kwargs) {
        Options options(kwargs);
        request_ = request_of(options);
        set_phi(request_, options.required<Phi>("phi"));
        const bool single = is_single(options.optional<std::string>("dtype", "float32"));
        options.finish();
        check(request_);
        stream_ = make_direct_stream(request_, single);
    }

    void take(const py::object& piece, const py::object& labels, const py::object& callback) {
        ForwardRequest with_features = request_;
        const InputsView view = view_of(with_features, piece, labels, 1);
        require(view.f32 != nullptr || view.f64 != nullptr, "a piece must be an array");
        require(with_features.features == request_.features, "a piece must have as many features as was said");
        run_watched(callback, [&](Monitor& monitor) { stream_->take(view, monitor); });
    }

    py::dict finish() {
        ForwardResult result;
        stream_->finish(result);
        return arrays_of(request_, std::move(result));
    }

private:
    ForwardRequest request_;
    std::unique_ptr<DirectStream> stream_;
};

double simulate_memory(const py::kwargs& kwargs) {
    Options options(kwargs);
    const ForwardRequest request = request_of(options);
    const bool gram = is_gram(options.required<std::string>("method"));
    const std::size_t element = is_single(options.required<std::string>("dtype")) ? sizeof(float) : sizeof(double);
    const auto inputs = options.required<std::int64_t>("inputs");
    options.finish();
    check(request);
    return gram ? forward_gram_memory(request, inputs, element) : forward_direct_memory(request, inputs, element);
}

}  // namespace

void register_simulation(py::module_& m) {
    using namespace py::literals;
    m.def("simulate", &simulate, "Runs random networks: arrays (networks, depth) of each estimate and its error.");
    m.def("simulate_memory", &simulate_memory, "Estimated peak memory of simulate, in bytes, with its results.");
    py::class_<Stream>(m, "DirectStream", "Networks that see their inputs piece by piece.")
        .def(py::init<const py::kwargs&>())
        .def("take", &Stream::take, "piece"_a, "labels"_a = py::none(), "callback"_a = py::none())
        .def("finish", &Stream::finish);
}

}  // namespace igb::bindings
