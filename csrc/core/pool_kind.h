// Which pool follows the activation, as plain data that crosses every boundary.
#pragma once

namespace igb {

enum class PoolKind : int { none, max, min, average };

struct Pool {
    PoolKind kind = PoolKind::none;
    int size = 1;
};

}  // namespace igb
