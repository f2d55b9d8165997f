// Which activation a caller asks for, as plain data that crosses every boundary (bindings, dispatch, CUDA); the
// functions themselves are in activations.h.
#pragma once

namespace igb {

enum class ActivationKind : int { linear, relu, leaky_relu, tanh, erf };

struct Activation {
    ActivationKind kind;
    double parameter = 0.0;  // leaky_relu: the slope below zero; otherwise unused
};

}  // namespace igb
