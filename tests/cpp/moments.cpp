// Gaussian expectations and the recursion over layers, where sanitizers look on: every instruction set, the whole range
// of doubles, threads and early stops. tests/test_moments.py holds the values against high precision.
#include "cpu/moments.h"

#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/parallel.h"
#include "cpu/propagate.h"

namespace {

using igb::Activation;
using igb::ActivationKind;

const Activation activations[] = {{ActivationKind::linear, 0.0},
                                  {ActivationKind::relu, 0.0},
                                  {ActivationKind::leaky_relu, -0.5},
                                  {ActivationKind::tanh, 0.0},
                                  {ActivationKind::erf, 0.0}};

igb::Phi phi_of(const Activation& activation) { return {{{1.0, {activation, nullptr}}}}; }

const double variances[] = {0.0,   5e-324, 1e-310, 2.3e-308, 1e-160, 1e-8,  0.3,   1.0,
                            255.9, 256.0,  256.1,  1e4,      1e12,   1e150, 1e300, std::numeric_limits<double>::max()};

void finite_for_every_variance(const igb::Kernels& use) {
    for (const Activation& phi : activations) {
        for (const double a : variances) {
            const igb::SingleMoments at = use.single_moments(phi, a);
            CHECK(std::isfinite(at.mean) && std::isfinite(at.square));
            CHECK(std::isfinite(at.slope2) && std::isfinite(at.square_dq));
            for (const double b : variances) {
                for (const double c : {-1.0, -0.3, 0.0, 1e-300, 0.6, 1.0 - 1e-16, 1.0}) {
                    for (const int derivative : {0, 1, 2}) {
                        CHECK(std::isfinite(use.pair_moment(phi, derivative, a, b, c)));
                    }
                }
                if (!std::isfinite(a + b)) continue;
                const igb::SplitMoments split = use.split_moments(phi, a, b);
                const double square = use.single_moments(phi, a + b).square;
                CHECK(split.centre >= 0.0 && split.spread >= 0.0);
                CHECK_CLOSE(split.centre + split.spread, square, 1e-13 * square + 2e-323);
            }
        }
    }
}

struct Points {
    std::vector<double> q, c;

    explicit Points(std::size_t count) : q(count), c(count) {
        for (std::size_t i = 0; i < count; ++i) {
            q[i] = std::exp(0.01 * static_cast<double>(i % 1000) - 5.0);
            c[i] = std::cos(static_cast<double>(i));
        }
    }
    std::int64_t size() const { return static_cast<std::int64_t>(q.size()); }
};

void arrays_do_not_depend_on_threads() {
    const Points points(1001);
    for (const Activation& phi : activations) {
        std::vector<double> alone(points.q.size()), shared(points.q.size());
        igb::Monitor monitor;
        igb::set_num_threads(1);
        igb::pair_moments(phi_of(phi), {}, 1, points.size(), points.q.data(), points.q.data(), points.c.data(),
                          alone.data(), monitor);
        igb::set_num_threads(4);
        igb::pair_moments(phi_of(phi), {}, 1, points.size(), points.q.data(), points.q.data(), points.c.data(),
                          shared.data(), monitor);
        CHECK(alone == shared);

        std::vector<igb::SingleMoments> single(points.q.size());
        std::vector<igb::SplitMoments> split(points.q.size());
        igb::single_moments(phi_of(phi), {}, points.size(), points.q.data(), single.data(), monitor);
        igb::split_moments(phi_of(phi), {}, points.size(), points.q.data(), points.q.data(), split.data(), monitor);
        for (std::size_t i = 0; i < points.q.size(); i += 50) {
            CHECK(single[i].square == igb::kernels().single_moments(phi, points.q[i]).square);
            CHECK(split[i].spread == igb::kernels().split_moments(phi, points.q[i], points.q[i]).spread);
        }
    }
}

void nothing_to_do() {
    igb::Monitor monitor;
    igb::pair_moments(phi_of(activations[3]), {}, 0, 0, nullptr, nullptr, nullptr, nullptr, monitor);
}

void a_monitor_stops_the_work() {
    igb::set_num_threads(2);
    const Points points(4'000'000);
    std::vector<double> out(points.q.size());
    igb::Monitor monitor([](double) { return false; });
    igb::pair_moments(phi_of(activations[3]), {}, 0, points.size(), points.q.data(), points.q.data(), points.c.data(),
                      out.data(), monitor);
    CHECK(monitor.stopped());
}

void trajectories_end_well() {
    for (const Activation& phi : activations) {
        for (const double sigma_w2 : {0.5, 2.0, 4.0}) {
            constexpr std::int64_t depth = 3000;
            std::vector<double> columns(6 * depth, -1.0);
            double* const at = columns.data();
            igb::Monitor monitor;
            igb::propagate({phi_of(phi), {}, sigma_w2, 0.0, 0.0, false, 0.0, sigma_w2, depth},
                           {at, at + depth, at + 2 * depth, at + 3 * depth, at + 4 * depth, at + 5 * depth}, monitor);
            for (const double value : columns) CHECK(value >= 0.0 || std::isnan(value));
        }
    }
}

}  // namespace

int main() {
    int count = 0;
    const char* const* const isas = igb::available_isas(&count);
    for (int i = 0; i < count; ++i) {
        CHECK(igb::select_isa(isas[i]));
        finite_for_every_variance(igb::kernels());
    }
    arrays_do_not_depend_on_threads();
    nothing_to_do();
    a_monitor_stops_the_work();
    trajectories_end_well();
    return summary();
}
