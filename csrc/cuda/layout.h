// How the numbers of a batch of networks lie in the memory of the device: plain data that kernels take by value.
#pragma once

#include <cstdint>

#include "core/config.h"

namespace igb::cuda {

// The nodes of a layer that are in memory together: of each of the `members` of the pools (cpu/layer.h, NodeLayout),
// the nodes [first, first + nodes). Node (s, p) of them is row s * member + p, and its random numbers are those of
// column s * stride + first + p. Rows from `nodes` to `member` of each member are padding: finite, and they do not
// count.
struct NodeSlab {
    std::int64_t members, nodes;
    std::int64_t member;         // rows between members: a multiple of 64
    std::int64_t first, stride;  // multiples of 64

    IGB_HD std::int64_t rows() const { return members * member; }
};

// A tile (cpu/activate.h) for each of a batch of networks, one after the other: value (network, column, row) is
// [(network * columns + column) * slab.rows() + row]. Column 0 is the origin, the others are differences from it.
struct TileBatch {
    std::int64_t networks, columns;
    NodeSlab slab;

    IGB_HD std::int64_t between() const { return columns * slab.rows(); }  // networks
    IGB_HD std::int64_t size() const { return networks * between(); }
};

}  // namespace igb::cuda
