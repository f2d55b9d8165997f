// The one place where a pool's name meets its kind.
#pragma once

#include <stdexcept>
#include <string>

#include "cpu/phi.h"

namespace igb::bindings {

inline Pool pool_of(const std::string& kind, int size) {
    if (size < 1) throw std::invalid_argument("size must be 1 or more");
    if (kind == "none") return {PoolKind::none, 1};
    if (kind == "max") return {PoolKind::max, size};
    if (kind == "min") return {PoolKind::min, size};
    if (kind == "average") return {PoolKind::average, size};
    throw std::invalid_argument("pool must be none, max, min or average, got '" + kind + "'");
}

}  // namespace igb::bindings
