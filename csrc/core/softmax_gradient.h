// The gradient of the cross entropy by the logits, softmax - one-hot, to full relative precision even where the label's
// probability is next to one.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/config.h"

namespace igb::inline IGB_ISA {

// The gradient by the `classes` logits z, as delta times 2^exponent; the exponent is returned. With the label aside,
// its rival the largest of the others and D its lead over the rival, the others have p_k = w_k e^-D / (1 + sum w e^-D),
// w_k = e^(z_k - z_rival); the label has minus their sum. Where D is large, its power of two is the exponent.
template <class T>
IGB_HD int softmax_gradient(std::int64_t classes, const double* z, std::int64_t label, T* delta) {
    double rival = -HUGE_VAL;
    for (std::int64_t k = 0; k < classes; ++k)
        if (k != label && rival < z[k]) rival = z[k];
    const double lead = z[label] - rival, halves = lead / std::log(2.0);
    const int halvings = lead > 0.0 ? static_cast<int>(halves < 1e8 ? halves : 1e8) : 0;
    double others = 0.0;
    for (std::int64_t k = 0; k < classes; ++k)
        if (k != label) others += std::exp(z[k] - rival);
    const bool leads = lead > 0.0;
    const double numerator = leads ? std::exp(-(lead - halvings * std::log(2.0))) : 1.0;
    const double scale = numerator / (leads ? 1.0 + others * std::exp(-lead) : std::exp(lead) + others);
    for (std::int64_t k = 0; k < classes; ++k)
        delta[k] = static_cast<T>(k == label ? -others * scale : std::exp(z[k] - rival) * scale);
    return -halvings;
}

}  // namespace igb::inline IGB_ISA
