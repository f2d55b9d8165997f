// The one place where an activation's name meets its kind.
#pragma once

#include <stdexcept>
#include <string>

#include "core/activation_kind.h"

namespace igb::bindings {

inline Activation activation_of(const std::string& name, double parameter) {
    if (name == "linear") return {ActivationKind::linear, parameter};
    if (name == "relu") return {ActivationKind::relu, parameter};
    if (name == "leaky_relu") return {ActivationKind::leaky_relu, parameter};
    if (name == "tanh") return {ActivationKind::tanh, parameter};
    if (name == "erf") return {ActivationKind::erf, parameter};
    throw std::invalid_argument("activation must be a known name, got '" + name + "'");
}

}  // namespace igb::bindings
