// The kernels of cuda/loss.cu, run on the host, against cpu/gradients.cpp, and against softmax in long double.
#include "cuda/loss.cu"

#include <cmath>
#include <random>
#include <vector>

#include "check.h"
#include "cpu/gradients.h"

namespace {

using igb::at;

void same_labels(std::int64_t networks, std::int64_t first, std::int64_t count, std::int64_t classes) {
    igb::ForwardRequest request;
    request.seed = 0x123456789ABCDEFu;
    request.classes = classes;
    const igb::StreamId id{request.seed, 11, 0, static_cast<std::uint32_t>(igb::Stream::labels)};
    std::vector<std::int32_t> got(at(networks * count + 1), -7);
    igb::cuda::random_labels(nullptr, id, networks, first, count, classes, got.data());
    for (std::int64_t g = 0; g < networks; ++g) {
        const auto want = igb::labels_of(request, 11 + static_cast<std::uint32_t>(g), nullptr, first, count);
        for (std::int64_t a = 0; a < count; ++a) CHECK(got[at(g * count + a)] == want[at(a)]);
    }
    CHECK(got.back() == -7);
}

// p_k, and for the label minus the sum of the others.
long double exact_gradient(std::int64_t classes, const double* z, std::int64_t label, std::int64_t k) {
    long double top = z[0], sum = 0.0L, others = 0.0L;
    for (std::int64_t j = 1; j < classes; ++j) top = std::max(top, static_cast<long double>(z[j]));
    for (std::int64_t j = 0; j < classes; ++j) {
        const long double weight = std::exp(static_cast<long double>(z[j]) - top);
        sum += weight;
        others += j == label ? 0.0L : weight;
    }
    return k == label ? -others / sum : std::exp(static_cast<long double>(z[k]) - top) / sum;
}

template <class T>
void same_gradient(std::int64_t inputs, std::int64_t classes, double size) {
    std::mt19937_64 generator(static_cast<unsigned long>(inputs * 100 + classes));
    std::normal_distribution<double> normal(0.0, size);
    std::vector<double> logits(at(inputs * classes));
    for (double& z : logits) z = normal(generator);
    std::vector<std::int32_t> labels(at(inputs));
    for (std::int32_t& label : labels)
        label = static_cast<std::int32_t>(generator() % static_cast<std::uint64_t>(classes));

    const T poison = static_cast<T>(-12345);
    std::vector<T> got(at(inputs * classes + 1), poison), want(at(inputs * classes));
    std::vector<std::int32_t> exponent(at(inputs + 1), -7);
    igb::cuda::cross_entropy_gradient(nullptr, inputs, classes, logits.data(), labels.data(), got.data(),
                                      exponent.data());
    igb::ForwardRequest request;
    request.loss = igb::Loss::cross_entropy;
    request.classes = classes;
    const igb::ColumnUnits units = igb::loss_gradient(request, inputs, logits.data(), labels.data(), want.data());
    const double rounding = double{std::numeric_limits<T>::epsilon()};
    for (std::int64_t a = 0; a < inputs; ++a) {
        CHECK(exponent[at(a)] == units.exponent[at(a)]);
        for (std::int64_t k = 0; k < classes; ++k) {
            const double delta = double{got[at(a * classes + k)]};
            CHECK_CLOSE(delta, want[at(a * classes + k)], 4.0 * rounding * std::abs(delta));
            const long double exact = exact_gradient(classes, logits.data() + a * classes, labels[at(a)], k);
            const double scaled = static_cast<double>(std::ldexp(exact, -exponent[at(a)]));
            CHECK_CLOSE(delta, scaled, 400.0 * (rounding + 1e-16 * size) * std::abs(scaled) + 1e-37);
        }
    }
    CHECK(got.back() == poison);
    CHECK(exponent.back() == -7);
}

}  // namespace

int main() {
    same_labels(3, 5, 67, 10);
    same_labels(1, 0xFFFFFFFF - 3, 3, 1);
    same_labels(2, 0, 1, 1000003);
    for (const double size : {0.1, 3.0, 300.0}) {
        same_gradient<float>(33, 10, size);
        same_gradient<double>(65, 3, size);
        same_gradient<double>(1, 2, size);
    }
    return summary();
}
