// The covariance map where C++ alone can look: every route on every instruction set, odd sizes and any number of
// threads, with memory that a sanitizer watches; against the recursion of propagate, which is another code.
#include "cpu/covariance_map.h"

#include <cmath>
#include <random>
#include <vector>

#include "check.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/propagate.h"

namespace {

using igb::ActivationKind;
using Matrix = std::vector<double>;

igb::Phi phi_of(ActivationKind kind, double parameter = 0.0) { return {{{1.0, {{kind, parameter}, nullptr}}}}; }

igb::CovarianceRequest request_of(std::int64_t inputs, std::int64_t depth) {
    return {igb::Pool{}, 1.5, 0.1, 0.0, false, inputs, depth};
}

// n inputs of one norm and one correlation go the way of two.
void check_equal_inputs(const igb::Phi& phi, std::int64_t n) {
    constexpr std::int64_t depth = 12;
    Matrix k0(static_cast<std::size_t>(n * n), 0.3);
    for (std::int64_t a = 0; a < n; ++a) k0[static_cast<std::size_t>(a * n + a)] = 1.0;
    igb::CovarianceMap map(request_of(n, depth));
    map.start_from_covariance(k0.data());
    igb::Monitor monitor;
    CHECK(map.advance(phi, depth, monitor) == depth);

    std::vector<double> mu2(depth), y2(depth), gamma(depth), q(depth), c(depth), chi(depth);
    const igb::Trajectory theory{mu2.data(), y2.data(), gamma.data(), q.data(), c.data(), chi.data()};
    igb::propagate({phi, igb::Pool{}, 1.5, 0.1, 0.0, false, 1.5 * 0.3 + 0.1, 1.5 * 0.7, depth}, theory, monitor);
    for (std::size_t layer = 0; layer < depth; ++layer) {
        CHECK_CLOSE(map.columns().sigma_y2[layer] / y2[layer], 1.0, 1e-13);
        CHECK_CLOSE(map.columns().sigma_mu2[layer] / mu2[layer], 1.0, 1e-13);
        CHECK_CLOSE(map.columns().chi[layer] / chi[layer], 1.0, 1e-13);
    }
}

Matrix covariance_of(const igb::Phi& phi, std::int64_t n, int threads) {
    constexpr std::int64_t features = 5;
    std::mt19937_64 random(3);
    std::normal_distribution<double> normal;
    Matrix x(static_cast<std::size_t>(n * features)), k(static_cast<std::size_t>(n * n));
    for (double& value : x) value = normal(random);
    igb::set_num_threads(threads);
    igb::CovarianceMap map(request_of(n, 4));
    igb::Monitor monitor;
    map.start_from_inputs(x.data(), features, monitor);
    map.advance(phi, 2, monitor);
    map.advance(phi, 4, monitor);
    map.covariance(k.data());
    return k;
}

}  // namespace

int main() {
    const igb::Phi phis[] = {phi_of(ActivationKind::tanh), phi_of(ActivationKind::erf), phi_of(ActivationKind::relu),
                             phi_of(ActivationKind::leaky_relu, -1.0), phi_of(ActivationKind::linear)};
    int count = 0;
    const char* const* const isas = igb::available_isas(&count);
    for (int i = 0; i < count; ++i) {
        CHECK(igb::select_isa(isas[i]));
        for (const igb::Phi& phi : phis) {
            for (const std::int64_t n : {2, 7, 8, 9, 33}) check_equal_inputs(phi, n);
        }
    }
    for (const igb::Phi& phi : phis) {
        const Matrix one = covariance_of(phi, 37, 1);
        CHECK(covariance_of(phi, 37, 3) == one);
        CHECK(std::isfinite(one[5]));
    }
    return summary();
}
