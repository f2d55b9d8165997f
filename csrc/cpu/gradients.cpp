#include "cpu/gradients.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/normal.h"
#include "core/softmax_gradient.h"

namespace igb {

double in_units(double square, int exponent) {
    const double value = std::ldexp(square, 2 * exponent);
    return std::isfinite(value) ? value : std::numeric_limits<double>::quiet_NaN();
}

std::vector<std::int32_t> labels_of(const ForwardRequest& request, std::uint32_t network, const std::int32_t* given,
                                    Size first, Size count) {
    if (given != nullptr) return {given, given + count};
    const StreamId id = stream_of(request, network, 0, Stream::labels);
    std::vector<std::int32_t> labels(at(count));
    for (Size a = 0; a < count; ++a) {
        const std::uint64_t word = normal_words(id, 0, static_cast<std::uint32_t>(first + a)).x0;
        labels[at(a)] = static_cast<std::int32_t>((word * static_cast<std::uint64_t>(request.classes)) >> 32);
    }
    return labels;
}

void guess_classes(Size inputs, Size classes, const double* logits, std::int32_t* guess) {
    for (Size a = 0; a < inputs; ++a) {
        const double* const z = logits + a * classes;
        const bool lost = std::any_of(z, z + classes, [](double logit) { return std::isnan(logit); });
        guess[a] = lost ? -1 : static_cast<std::int32_t>(std::max_element(z, z + classes) - z);
    }
}

template <class T>
ColumnUnits loss_gradient(const ForwardRequest& request, Size inputs, const double* logits, const std::int32_t* labels,
                          T* delta) {
    ColumnUnits units(inputs);
    const Size outputs = request.outputs();
    for (Size a = 0; a < inputs; ++a) {
        if (request.loss == Loss::readout) {
            delta[a] = T{1};
        } else {
            units.exponent[at(a)] = softmax_gradient(outputs, logits + a * outputs, labels[a], delta + a * outputs);
        }
    }
    return units;
}

std::vector<int> rescaling(Size inputs, double nodes, const double* squares) {
    std::vector<int> shifts(at(inputs), 0);
    for (Size a = 0; a < inputs; ++a) {
        const double size = std::sqrt(squares[a] / nodes);
        if (std::isnormal(size)) shifts[at(a)] = std::ilogb(size);
    }
    return shifts;
}

void write_gradients(const ForwardRequest& request, Size network, Size layer, Size first, Size inputs,
                     const ColumnUnits& units, const double* squares, ForwardResult& result) {
    double* const to = result.gradient.data() + (network * request.depth + layer - 1) * result.inputs + first;
    for (Size a = 0; a < inputs; ++a)
        to[a] = in_units(squares[a] / static_cast<double>(request.width), units.exponent[at(a)]);
}

double GradientNodes::error(double nodes) const {
    const double mean = sum / nodes;
    return nodes > 1.0 ? std::sqrt(std::max(sum2 / nodes - mean * mean, 0.0) / (nodes - 1.0))
                       : std::numeric_limits<double>::quiet_NaN();
}

int input_weights(const ColumnUnits& units, std::vector<double>& weights) {
    const int largest = *std::max_element(units.exponent.begin(), units.exponent.end());
    weights.resize(units.exponent.size());
    for (std::size_t a = 0; a < weights.size(); ++a)
        weights[a] = std::ldexp(1.0 / static_cast<double>(weights.size()), 2 * (units.exponent[a] - largest));
    return largest;
}

template ColumnUnits loss_gradient(const ForwardRequest&, Size, const double*, const std::int32_t*, float*);
template ColumnUnits loss_gradient(const ForwardRequest&, Size, const double*, const std::int32_t*, double*);

}  // namespace igb
