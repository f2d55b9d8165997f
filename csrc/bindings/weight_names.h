// The one place where a law of weights' name meets its kind.
#pragma once

#include <stdexcept>
#include <string>

#include "core/stream.h"

namespace igb::bindings {

inline WeightLaw weight_law_of(const std::string& name) {
    if (name == "gaussian") return WeightLaw::gaussian;
    if (name == "uniform") return WeightLaw::uniform;
    if (name == "rademacher") return WeightLaw::rademacher;
    if (name == "orthogonal") return WeightLaw::orthogonal;
    throw std::invalid_argument("weights must be gaussian, uniform, rademacher or orthogonal, got '" + name + "'");
}

}  // namespace igb::bindings
