// Both engines end to end, small, for the sanitizers: results that do not depend on threads, chunks and pieces that
// merge, a stop that is obeyed, and estimates near the theory of the first layer.
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
using igb::HistogramEntry;
using igb::InputsView;
using igb::Monitor;

constexpr std::int64_t inputs = 11;

template <class T>
void run(bool gram, const ForwardRequest& request, const InputsView& view, ForwardResult& result, Monitor& monitor) {
    gram ? igb::forward_gram<T>(request, view, result, monitor)
         : igb::forward_direct<T>(request, view, result, monitor);
}

template <class T>
ForwardResult run(bool gram, const ForwardRequest& request, int threads, const InputsView& view = {inputs}) {
    igb::set_num_threads(threads);
    ForwardResult result;
    result.resize(request, view.count);
    Monitor monitor;
    run<T>(gram, request, view, result, monitor);
    return result;
}

// Three networks of three layers; `with_all`: of all that a layer may have.
ForwardRequest small_request(bool with_all = false) {
    ForwardRequest request;
    request.phi.activation = {igb::ActivationKind::tanh, 0.0};
    request.sigma_w2 = 1.76;
    request.sigma_b2 = 0.05;
    request.width = 300;
    request.features = 300;
    request.depth = 3;
    request.networks = 3;
    request.seed = 9;
    request.tile = 64;
    request.per_node = true;
    if (!with_all) return request;
    request.pool = {igb::PoolKind::max, 2};
    request.residual = 0.3;
    request.layernorm = true;
    request.loss = igb::Loss::cross_entropy;
    request.distributions = true;
    return request;
}

template <class Value>
bool same_bits(const std::vector<Value>& one, const std::vector<Value>& other) {
    return one.size() == other.size() &&
           (one.empty() || std::memcmp(one.data(), other.data(), one.size() * sizeof(Value)) == 0);
}

bool same_bits(const Estimate& one, const Estimate& other) {
    return same_bits(one.value, other.value) && same_bits(one.error, other.error);
}

bool same_bits(const std::vector<HistogramEntry>& one, const std::vector<HistogramEntry>& other) {
    bool same = one.size() == other.size();
    for (std::size_t i = 0; same && i < one.size(); ++i)
        same = one[i].network == other[i].network && one[i].layer == other[i].layer && one[i].bin == other[i].bin &&
               one[i].count == other[i].count;
    return same;
}

bool same_bits(const ForwardResult& one, const ForwardResult& other) {
    return same_bits(one.sigma_mu2, other.sigma_mu2) && same_bits(one.sigma_y2, other.sigma_y2) &&
           same_bits(one.gamma, other.gamma) && same_bits(one.q, other.q) && same_bits(one.c, other.c) &&
           same_bits(one.chi, other.chi) && same_bits(one.mu, other.mu) && same_bits(one.var, other.var) &&
           same_bits(one.guess, other.guess) && same_bits(one.labels, other.labels) &&
           same_bits(one.gradient, other.gradient) && same_bits(one.gradient_error, other.gradient_error) &&
           same_bits(one.mu_counts, other.mu_counts) && same_bits(one.var_counts, other.var_counts) &&
           same_bits(one.q_counts, other.q_counts) && same_bits(one.c_counts, other.c_counts);
}

void check_near(const std::vector<double>& one, const std::vector<double>& other) {
    CHECK(one.size() == other.size());
    for (std::size_t i = 0; i < one.size(); ++i) CHECK_CLOSE(one[i], other[i], 1e-9 * std::abs(other[i]) + 1e-12);
}

void check_near(const ForwardResult& one, const ForwardResult& other) {
    check_near(one.mu, other.mu);
    check_near(one.var, other.var);
    check_near(one.q.value, other.q.value);
    check_near(one.c.value, other.c.value);
    check_near(one.chi.value, other.chi.value);
    check_near(one.chi.error, other.chi.error);
    check_near(one.gradient, other.gradient);
    check_near(one.gradient_error, other.gradient_error);
    CHECK(same_bits(one.guess, other.guess));
    CHECK(same_bits(one.labels, other.labels));
}

template <class T>
void check_threads_and_theory(bool gram) {
    const ForwardRequest request = small_request();
    const ForwardResult one = run<T>(gram, request, 1);
    CHECK(same_bits(one, run<T>(gram, request, 4)));
    for (std::int64_t network = 0; network < request.networks; ++network) {
        const auto layer1 = static_cast<std::size_t>(network * request.depth);
        // 300 nodes: a standard deviation of 3 % (sigma_y2: inputs' scatter included) and of 0.014 for sigma_mu2.
        CHECK(std::abs(one.sigma_y2.value[layer1] / 1.76 - 1.0) < 0.2);
        CHECK(std::abs(one.sigma_mu2.value[layer1] - 0.05) < 0.09);
        CHECK(one.q.error[layer1] > 0.0);
    }
}

template <class T>
void check_all_parts() {
    ForwardRequest request = small_request(true);
    for (const auto law : {igb::WeightLaw::gaussian, igb::WeightLaw::rademacher, igb::WeightLaw::orthogonal}) {
        request.weights = law;
        const ForwardResult one = run<T>(false, request, 1);
        CHECK(same_bits(one, run<T>(false, request, 3)));
        for (const double gradient : one.gradient) CHECK(gradient > 0.0);
        for (const double error : one.gradient_error) CHECK(error > 0.0);
        std::int64_t nodes = 0, values = 0;
        for (const HistogramEntry& entry : one.mu_counts) nodes += entry.count;
        for (const HistogramEntry& entry : one.q_counts) values += entry.count;
        CHECK(nodes == request.networks * request.depth * request.width);
        CHECK(values == request.networks * request.depth * inputs);
    }
}

void check_chunks(bool with_all) {
    ForwardRequest request = small_request(with_all);
    const ForwardResult whole = run<double>(false, request, 2);
    request.chunk = 3;
    check_near(run<double>(false, request, 3), whole);
}

// Pieces, the first of one input alone.
void check_pieces(bool with_all) {
    const ForwardRequest request = small_request(with_all);
    std::vector<double> values(inputs * 300);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<double>(i * i % 1009));
    InputsView view;
    view.count = inputs;
    view.f64 = values.data();
    const ForwardResult whole = run<double>(false, request, 2, view);
    for (const bool gaussian : {false, true}) {
        const auto stream = igb::make_direct_stream(request, false);
        ForwardResult pieces;
        std::int64_t begin = 0;
        for (const std::int64_t count : {1, 1, 6, 3}) {
            InputsView piece;
            piece.count = count;
            if (!gaussian) piece.f64 = values.data() + begin * request.features;
            Monitor monitor;
            stream->take(piece, monitor);
            if (begin == 0) CHECK_THROWS(std::invalid_argument, stream->finish(pieces));
            begin += count;
        }
        stream->finish(pieces);
        check_near(pieces, gaussian ? run<double>(false, request, 2) : whole);
    }
}

void check_given_inputs(bool gram) {
    ForwardRequest request = small_request();
    std::vector<float> values(4 * 5);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(std::sin(static_cast<double>(i)));
    request.features = 5;
    InputsView view;
    view.count = 4;
    view.f32 = values.data();
    const ForwardResult result = run<float>(gram, request, 2, view);
    for (const Estimate* estimate :
         {&result.sigma_mu2, &result.sigma_y2, &result.gamma, &result.q, &result.c, &result.chi})
        for (const double value : estimate->value) CHECK(std::isfinite(value));
}

void check_stop(bool gram) {
    ForwardRequest request = small_request();
    request.depth = 200'000;
    request.networks = 1;
    request.width = 64;
    request.features = 64;
    request.per_node = false;
    igb::set_num_threads(2);
    ForwardResult result;
    InputsView view;
    view.count = 2;
    result.resize(request, view.count);
    int calls = 0;
    Monitor monitor([&](double fraction) {
        CHECK(fraction >= 0.0 && fraction <= 1.0);
        return ++calls < 2;
    });
    run<float>(gram, request, view, result, monitor);
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
    check_all_parts<float>();
    check_all_parts<double>();
    for (const bool with_all : {false, true}) {
        check_chunks(with_all);
        check_pieces(with_all);
    }
    return summary();
}
