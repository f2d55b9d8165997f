// Both engines end to end, small, for the sanitizers: results that do not depend on threads, chunks that merge, a stop
// that is obeyed, and estimates near the theory of the first layer.
#include "cpu/forward.h"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "check.h"
#include "cpu/parallel.h"

namespace {

using igb::Estimate;
using igb::ForwardRequest;
using igb::ForwardResult;
using igb::Monitor;

struct Arrays {
    std::vector<double> values, mu, var;
    std::size_t layers;
    ForwardResult result;

    explicit Arrays(const ForwardRequest& request, bool per_node = true)
        : layers(static_cast<std::size_t>(request.networks * request.depth)) {
        values.assign(12 * layers, -1.0);
        double* next = values.data();
        for (Estimate* estimate :
             {&result.sigma_mu2, &result.sigma_y2, &result.gamma, &result.q, &result.c, &result.chi}) {
            estimate->value = next;
            estimate->error = next + layers;
            next += 2 * layers;
        }
        if (!per_node) return;
        mu.assign(layers * static_cast<std::size_t>(request.width), -1.0);
        var = mu;
        result.mu = mu.data();
        result.var = var.data();
    }
};

template <class T>
void run(bool gram, const ForwardRequest& request, Arrays& arrays, Monitor& monitor) {
    gram ? igb::forward_gram<T>(request, arrays.result, monitor)
         : igb::forward_direct<T>(request, arrays.result, monitor);
}

template <class T>
Arrays run(bool gram, const ForwardRequest& request, int threads) {
    igb::set_num_threads(threads);
    Arrays arrays(request);
    Monitor monitor;
    run<T>(gram, request, arrays, monitor);
    return arrays;
}

ForwardRequest small_request() {
    ForwardRequest request;
    request.activation = {igb::ActivationKind::tanh, 0.0};
    request.sigma_w2 = 1.76;
    request.sigma_b2 = 0.05;
    request.width = 300;
    request.features = 300;
    request.depth = 3;
    request.inputs = 11;
    request.networks = 3;
    request.seed = 9;
    request.tile = 64;
    return request;
}

bool same_bits(const std::vector<double>& one, const std::vector<double>& other) {
    return one.size() == other.size() && std::memcmp(one.data(), other.data(), one.size() * sizeof(double)) == 0;
}

template <class T>
void check_threads_and_theory(bool gram) {
    const ForwardRequest request = small_request();
    const Arrays one = run<T>(gram, request, 1), four = run<T>(gram, request, 4);
    CHECK(same_bits(one.values, four.values));
    CHECK(same_bits(one.mu, four.mu));
    CHECK(same_bits(one.var, four.var));
    for (std::int64_t network = 0; network < request.networks; ++network) {
        const auto layer1 = network * request.depth;
        // 300 nodes: a standard deviation of 3 % (sigma_y2: inputs' scatter included) and of 0.014 for sigma_mu2.
        CHECK(std::abs(one.result.sigma_y2.value[layer1] / 1.76 - 1.0) < 0.2);
        CHECK(std::abs(one.result.sigma_mu2.value[layer1] - 0.05) < 0.09);
        CHECK(one.result.q.error[layer1] > 0.0);
    }
}

void check_chunks() {
    ForwardRequest request = small_request();
    const Arrays whole = run<double>(false, request, 2);
    request.chunk = 3;
    const Arrays parts = run<double>(false, request, 3);
    for (std::size_t i = 0; i < whole.mu.size(); ++i) {
        CHECK(std::abs(whole.mu[i] - parts.mu[i]) < 1e-12);
        CHECK(std::abs(whole.var[i] - parts.var[i]) < 1e-12);
    }
}

void check_given_inputs(bool gram) {
    ForwardRequest request = small_request();
    std::vector<float> inputs(4 * 5);
    for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] = static_cast<float>(std::sin(static_cast<double>(i)));
    request.given_f32 = inputs.data();
    request.inputs = 4;
    request.features = 5;
    const Arrays arrays = run<float>(gram, request, 2);
    for (const double value : arrays.values) CHECK(std::isfinite(value));
}

void check_stop(bool gram) {
    ForwardRequest request = small_request();
    request.depth = 200'000;
    request.networks = 1;
    request.width = 64;
    request.features = 64;
    request.inputs = 2;
    igb::set_num_threads(2);
    Arrays arrays(request, false);
    int calls = 0;
    Monitor monitor([&](double fraction) {
        CHECK(fraction >= 0.0 && fraction <= 1.0);
        return ++calls < 2;
    });
    run<float>(gram, request, arrays, monitor);
    CHECK(calls == 2);
    CHECK(monitor.stopped());
}

}  // namespace

int main() {
    for (const bool gram : {true, false}) {
        check_threads_and_theory<float>(gram);
        check_threads_and_theory<double>(gram);
        check_given_inputs(gram);
        check_stop(gram);
    }
    check_chunks();
    return summary();
}
