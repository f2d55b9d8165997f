// What the backward halves of the engines share: labels, the head with its loss, and the squared gradients of a layer.
//
// Gradients delta_a of input a's own loss are held in a unit of their own for each input, a power of two: those of
// inputs that the network already puts into their class vanish long before the others.
#pragma once

#include <vector>

#include "cpu/layer.h"

namespace igb {

// The labels of `count` inputs numbered from `first`: those given, or drawn at random.
std::vector<std::int32_t> labels_of(const ForwardRequest&, std::uint32_t network, const std::int32_t* given, Size first,
                                    Size count);

// logits: (input, output), row-major, absolute. The class of the largest logit of each input; -1 if one is nan.
void guess_classes(Size inputs, Size classes, const double* logits, std::int32_t* guess);

// Mean squared gradients by input, and the powers of two that hold them.
struct ColumnUnits {
    std::vector<int> exponent;  // delta_a is 2^exponent_a times what is stored

    explicit ColumnUnits(Size inputs = 0) : exponent(at(inputs), 0) {}
};

// dLoss_a / dlogit_k(a), in `delta` (output x input, column-major, ld = outputs), in the units returned: for cross
// entropy softmax - one-hot, without cancellation where the label's probability is next to one; for a read-out, one.
template <class T>
ColumnUnits loss_gradient(const ForwardRequest&, Size inputs, const double* logits, const std::int32_t* labels,
                          T* delta);

// Given squared norms over `nodes` nodes of the columns as they are stored, the powers of two that bring their mean
// squares next to one. Multiplying column a by 2^-shift_a and adding shift_a to its exponent keeps its value.
std::vector<int> rescaling(Size inputs, double nodes, const double* squares);

// square * 4^exponent: 0 where it vanishes even for double, as the gradients of a favoured class do, nan where it
// overflows.
double in_units(double square, int exponent);

// Writes the mean squared gradient of each input (of `first` + a among all the inputs of the result).
void write_gradients(const ForwardRequest&, Size network, Size layer, Size first, Size inputs, const ColumnUnits&,
                     const double* squares, ForwardResult&);

// Sums over nodes of the squared gradient averaged over inputs, for its standard error.
struct GradientNodes {
    double sum = 0.0, sum2 = 0.0;

    void add(Size nodes, const double* squares) {
        for (Size i = 0; i < nodes; ++i) {
            sum += squares[i];
            sum2 += squares[i] * squares[i];
        }
    }
    void merge(const GradientNodes& other) {
        sum += other.sum;
        sum2 += other.sum2;
    }
    double error(double nodes) const;  // of sum / nodes
};

// weight_a = 4^(exponent_a - largest) / inputs: what `multiply` needs to average over inputs of different units;
// returns the largest exponent, in whose square the average is.
int input_weights(const ColumnUnits&, std::vector<double>& weights);

}  // namespace igb
