// One layer's nonlinearity on a tile of nodes, with the per-node statistics of what went in, in one pass.
//
// A tile holds `inputs` columns of `nodes` contiguous values. Column 0 is the pre-activation y of the first input, the
// origin; column a >= 1 is the difference d_a = y_a - y_0. Differences are carried through every layer (phi maps them
// by phi(y_0 + d_a) - phi(y_0), exact however small d_a), so the variance over inputs keeps its relative accuracy when
// all inputs become one (deep prejudice), where y_a - y_b would lose every digit.
//
// Values are held in units, powers of two that keep a float32 tile away from under- and overflow.
#pragma once

#include <cstdint>

#include "core/activation_kind.h"
#include "core/config.h"

namespace igb {

struct TileUnits {
    double origin = 1.0;      // of column 0
    double difference = 1.0;  // of the other columns
};

// Per node: the incoming origin, first and second sums of the incoming differences (in units of the incoming tile), and
// phi'^2 at the origin and summed over the other inputs. Arrays of `nodes` rounded up to `node_block`.
struct NodeMoments {
    double* origin;
    double* sum;
    double* sum2;
    double* origin_slope2;
    double* slope2;
};

// Squared norms of what comes out, in outgoing units: they set the units of the next layer.
struct TileNorms {
    double origin = 0.0;
    double difference = 0.0;
};

inline constexpr std::int64_t node_block = 32;  // nodes worked on together; tiles are padded to a multiple of it

inline namespace IGB_ISA {

template <class T>
TileNorms activate(const Activation&, std::int64_t nodes, std::int64_t inputs, T* tile, std::int64_t ld,
                   const TileUnits& in, const TileUnits& out, const NodeMoments&);

}  // namespace IGB_ISA

}  // namespace igb
