// One layer's nonlinearity on the tiles of a batch of networks, with the per-node statistics of what went in: the twin
// of cpu/activate.h, activate(), and of all that igb::apply_nonlinearity does where a pool goes before phi.
#pragma once

#include <cstdint>

#include "core/activation_kind.h"
#include "core/pool_kind.h"
#include "core/tabulated.h"
#include "cuda/layout.h"
#include "cuda/stream.h"

namespace igb::cuda {

// Members of a pool that a thread has in registers.
template <class T>
inline constexpr unsigned most_pooled = 32 / sizeof(T);

// All arrays in the memory of the device.
template <class T>
struct ActivateTask {
    TileBatch batch;
    // max or min: x = phi(pool(y)) in the rows of the first member, of most_pooled<T> members at most. Then the arrays
    // of `rows` that are said to be of all members have the rows of the whole slab.
    PoolKind pool;
    std::int64_t rows;  // the first so many of each column: all of them, or those of the first member, the pools

    T* tile;
    T* slopes;               // (networks, columns, rows) of all members, the shares of the pool included; or null
    const double* maps;      // (networks, columns, 3): a norm's ColumnMaps, to go before phi; or null
    const double* gains;     // (networks, columns): the slopes are those of gain_a phi'; or null for ones
    const double *in, *out;  // (networks, 2): units of what goes in (behind the map) and comes out

    // (networks, rows) each. origin, sum and sum2 are of all members and of what goes in before the map; all null, or
    // none.
    double *origin, *sum, *sum2;
    double *origin_slope2, *slope2;
    double* norms;         // (networks, 2): squared norms of what comes out, of the rows that count
    std::int32_t* beyond;  // (networks): becomes 1 where a row that counts leaves phi's table; or null
    double* scratch;       // activate_scratch() numbers
};

// table: null for an activation by rule, else a view whose arrays are in the memory of the device.
template <class T>
void activate(GpuStream stream, const Activation& activation, const TableView* table, const ActivateTask<T>& task);

std::int64_t activate_scratch(const TileBatch& batch, PoolKind pool, std::int64_t rows);

}  // namespace igb::cuda
