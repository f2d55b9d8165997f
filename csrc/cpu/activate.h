// One layer's nonlinearity on a tile of nodes, with the per-node statistics of what went in.
//
// A tile holds `inputs` columns of contiguous values. Column 0 is the pre-activation y of the first input, the origin;
// column a >= 1 is the difference d_a = y_a - y_0. Differences are carried through every layer (phi maps them by
// phi(y_0 + d_a) - phi(y_0), exact however small d_a), so the variance over inputs keeps its relative accuracy when all
// inputs become one (deep prejudice), where y_a - y_b would lose every digit.
//
// Values are held in units, powers of two that keep a float32 tile away from under- and overflow.
//
// Nodes that are pooled together lie `member` rows apart: rows [0, nodes) hold the first member of each pool, rows
// [member, member + nodes) the second, and so on. Rows are padded to node_block; the padding is finite and does not
// count.
#pragma once

#include <cstdint>

#include "core/activation_kind.h"
#include "core/config.h"
#include "core/pool_kind.h"
#include "cpu/table.h"

namespace igb {

struct TileUnits {
    double origin = 1.0;      // of column 0
    double difference = 1.0;  // of the other columns
};

struct TileShape {
    std::int64_t nodes;        // of one member
    std::int64_t inputs;       // columns
    std::int64_t ld;           // between columns
    std::int64_t members = 1;  // of one pool
    std::int64_t member = 0;   // rows between the members
};

// Per node: the incoming origin, first and second sums of the incoming differences (in units of the incoming tile), and
// the squared slope at the origin and summed over the other inputs. Arrays of `nodes` rounded up to `node_block`.
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
    bool beyond_table = false;  // some node left the range of phi's table
};

// phi for the kernels: the table where there is one, else the activation.
struct PhiView {
    Activation activation{ActivationKind::linear};
    const TableView* table = nullptr;
};

// What happens to one column: y_0' = scale y_0 + shift for the origin; d' = scale d + from_origin y_0 + shift for the
// others, where y_0 is the origin before the map. All for values in the tile's units.
struct ColumnMap {
    double scale = 1.0, from_origin = 0.0, shift = 0.0;
};

inline constexpr std::int64_t node_block = 32;  // nodes worked on together; tiles are padded to a multiple of it

inline namespace IGB_ISA {

// x_0 = phi(y_0), Delta_a = phi(y_0 + d_a) - phi(y_0) in place, on one member. `slopes` (or null; laid out as the tile)
// gets gain_a phi'(y_a), column by column; the moments' squared slopes are those of gain_a phi', too. gains: null for
// ones.
template <class T>
TileNorms activate(const PhiView&, std::int64_t nodes, std::int64_t inputs, T* tile, std::int64_t ld,
                   const TileUnits& in, const TileUnits& out, const NodeMoments&, const double* gains, T* slopes);

// origin, sum and sum2 of one member, without any nonlinearity.
template <class T>
void sum_nodes(std::int64_t nodes, std::int64_t inputs, const T* tile, std::int64_t ld, const NodeMoments&);

// Every pool becomes its largest, smallest or average value, for each input, in the rows of the first member; exact for
// small differences. `shares` (or null; laid out as the tile) gets what each member contributes: 1 for the member that
// is the extreme at that input and 0 for the others; 1/members for averages. Returns the norms of what comes out.
template <class T>
TileNorms pool(PoolKind, const TileShape&, T* tile, const TileUnits&, T* shares);

// Maps the columns of one member, in place.
template <class T>
void map_columns(const ColumnMap* maps, std::int64_t nodes, std::int64_t inputs, T* tile, std::int64_t ld);

// sums[a] += over the nodes of one member of column a.
template <class T>
void sum_columns(std::int64_t nodes, std::int64_t inputs, const T* tile, std::int64_t ld, double* sums);

// out = a * b, element by element; out may be one of them. squares (or null) gets, for each node, sum_a weight_a out^2.
template <class T>
void multiply(std::int64_t nodes, std::int64_t inputs, const T* a, std::int64_t lda, const T* b, std::int64_t ldb,
              T* out, std::int64_t ldo, const double* weights, double* squares);

}  // namespace IGB_ISA

}  // namespace igb
