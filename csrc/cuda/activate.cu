// phi on tiles (see activate.h): every value is read once, and written once over itself.
#include "cuda/activate.h"

#include <stdexcept>
#include <type_traits>

#include "cuda/column_walk.h"
#include "cuda/phi.h"

namespace igb::cuda {
namespace {

// x_0 = phi(y_0), Delta_a = phi(y_0 + d_a) - phi(y_0), with y mapped by a norm before, where there is one. Twin:
// igb::activate in cpu/activate.cpp (with map_columns and sum_nodes before it). A walk over columns (column_walk.h): 8
// warps of 32 rows, each thread with the anchor of its node in registers and up to 32 of its differences.
//
// With capacity > 1 the y of a pool are the largest (sign = 1) or smallest (-1) of its members, up to `capacity`: the
// twin is igb::pool (pool_extremes), before igb::activate. With M the largest origin, the largest value less M is the
// largest of g_s + d_s, where g_s = y_0s - M <= 0, and 0 for the winner; the first of equals wins. A thread has a pool,
// with the g_s and the sums of all members in registers.
template <class T, class Phi, unsigned capacity>
struct Activate {
    static constexpr unsigned sums = 2 + 2 * capacity;  // slope2, norm2; sum and sum2 of every member
    static constexpr unsigned ahead = std::is_same_v<T, float> ? 4 : 2;
    static constexpr unsigned batch = capacity < ahead ? ahead / capacity : 1;

    struct Given {
        T of[capacity];
    };

    struct Pooled {
        T value;
        unsigned member;
    };

    struct Row {
        T* column;  // [column * ld + member * slab.member]
        T* slopes;
        const double *maps, *gains;
        typename Phi::Node node;
        unsigned winner;     // at the origin
        T behind[capacity];  // g_s
        T in, out;
        T s1[capacity], s2[capacity], s3, s4;
        double gained2;
        std::int64_t network, row;
    };

    ActivateTask<T> task;
    Phi phi;
    double* row_norms;  // (networks, 2, rows)

    IGB_DEVICE Row start(std::int64_t network, std::int64_t row) const {
        const std::int64_t first = network * task.batch.columns;
        Row here{};
        here.network = network;
        here.row = row;
        here.column = task.tile + network * task.batch.between() + row;
        here.slopes = task.slopes != nullptr ? task.slopes + first * rows_of_members() + row : nullptr;
        here.maps = task.maps != nullptr ? task.maps + 3 * first : nullptr;
        here.gains = task.gains != nullptr ? task.gains + first : nullptr;
        here.in = static_cast<T>(task.in[2 * network + 1]);
        here.out = static_cast<T>(1.0 / task.out[2 * network + 1]);
        Given origins{};
        IGB_UNROLL
        for (unsigned s = 0; s < capacity; ++s) {
            if (is_member(s)) origins.of[s] = mapped_origin(here, s);
        }
        const Pooled origin = pooled(here, origins);  // with all behind_s still 0
        here.winner = origin.member;
        if constexpr (capacity > 1) fall_behind(here, origins, origin.value);
        here.node = phi.start(origin.value * static_cast<T>(task.in[2 * network]));
        return here;
    }

    IGB_DEVICE Given load(const Row& here, std::int64_t column) const {
        Given given{};
        IGB_UNROLL
        for (unsigned s = 0; s < capacity; ++s) {
            if (is_member(s)) given.of[s] = value(here, column, s);
        }
        return given;
    }

    IGB_DEVICE void take(Row& here, std::int64_t column, const Given& given) const {
        Given mapped = given;
        IGB_UNROLL
        for (unsigned s = 0; s < capacity; ++s) {
            here.s1[s] += given.of[s];
            here.s2[s] += given.of[s] * given.of[s];
            if (here.maps != nullptr && is_member(s)) {
                const double* const map = here.maps + 3 * column;
                const double moved = map[1] * static_cast<double>(value(here, 0, s)) + map[2];
                mapped.of[s] = static_cast<T>(map[0] * static_cast<double>(given.of[s]) + moved);
            }
        }
        const Pooled d = pooled(here, mapped);
        const Change<T> change = phi.change(here.node, d.value * here.in);
        const T x = change.difference * here.out;
        here.column[column * task.batch.slab.rows()] = x;
        here.s4 += x * x;
        T slope = change.slope;
        if (here.gains != nullptr) {  // which may be of any size: squared in double
            const double gain = here.gains[column], gained = gain * static_cast<double>(slope);
            here.gained2 += gained * gained;
            slope *= held_gain(gain);
        } else {
            here.s3 += slope * slope;
        }
        write_slopes(here, column, slope, d.member);
    }

    IGB_DEVICE Doubles<sums> end(const Row& here) const {
        tell_beyond(here);
        Doubles<sums> all;
        all.v[0] = here.gains != nullptr ? here.gained2 : static_cast<double>(here.s3);
        all.v[1] = static_cast<double>(here.s4);
        IGB_UNROLL
        for (unsigned s = 0; s < capacity; ++s) {
            all.v[2 + 2 * s] = static_cast<double>(here.s1[s]);
            all.v[3 + 2 * s] = static_cast<double>(here.s2[s]);
        }
        return all;
    }

    IGB_DEVICE void finish(std::int64_t network, std::int64_t row, const Doubles<sums>& total) const {
        const Row here = start(network, row);
        IGB_UNROLL
        for (unsigned s = 0; s < capacity; ++s) {
            if (task.origin == nullptr || !is_member(s)) continue;
            const std::int64_t at = network * rows_of_members() + s * task.batch.slab.member + row;
            task.origin[at] = static_cast<double>(value(here, 0, s));
            task.sum[at] = total.v[2 + 2 * s];
            task.sum2[at] = total.v[3 + 2 * s];
        }
        const double slope = static_cast<double>(here.node.slope);
        const double gained = here.gains != nullptr ? here.gains[0] * slope : slope;
        write_slopes(here, 0, static_cast<T>(gained), here.winner);
        const T x = here.node.value * static_cast<T>(1.0 / task.out[2 * network]);
        *here.column = x;
        task.origin_slope2[network * task.rows + row] = gained * gained;
        task.slope2[network * task.rows + row] = total.v[0];
        double* const norms = row_norms + 2 * network * task.rows + row;
        norms[0] = static_cast<double>(x) * static_cast<double>(x);
        norms[task.rows] = total.v[1];
        tell_beyond(here);
    }

private:
    IGB_DEVICE bool is_member(unsigned s) const { return capacity == 1 || s < task.batch.slab.members; }

    // Of the arrays with all members.
    IGB_DEVICE std::int64_t rows_of_members() const { return capacity == 1 ? task.rows : task.batch.slab.rows(); }

    IGB_DEVICE T value(const Row& here, std::int64_t column, unsigned s) const {
        return here.column[column * task.batch.slab.rows() + s * task.batch.slab.member];
    }

    IGB_DEVICE T mapped_origin(const Row& here, unsigned s) const {
        const T origin = value(here, 0, s);
        if (here.maps == nullptr) return origin;
        return static_cast<T>(here.maps[0] * static_cast<double>(origin) + here.maps[2]);
    }

    // The extreme of behind_s + given_s.
    IGB_DEVICE Pooled pooled(const Row& here, const Given& given) const {
        if constexpr (capacity == 1) return {given.of[0], 0};
        const T sign = static_cast<T>(task.pool == PoolKind::min ? -1 : 1);
        Pooled best{};
        IGB_UNROLL
        for (unsigned s = 0; s < capacity; ++s) {
            const T offered = here.behind[s] + sign * given.of[s];
            if (is_member(s) && (s == 0 || offered > best.value)) best = {offered, s};
        }
        return {sign * best.value, best.member};
    }

    IGB_DEVICE void fall_behind(Row& here, const Given& origins, T top) const {
        constexpr double largest = std::is_same_v<T, float> ? 0x1p126 : 0x1p1022;
        const double quotient = task.in[2 * here.network] / task.in[2 * here.network + 1];
        const double sign = task.pool == PoolKind::min ? -1.0 : 1.0, ratio = quotient < largest ? quotient : largest;
        IGB_UNROLL
        for (unsigned s = 0; s < capacity; ++s) {
            const double apart = sign * (static_cast<double>(origins.of[s]) - static_cast<double>(top)) * ratio;
            here.behind[s] = static_cast<T>(apart < -largest ? -largest : apart);
        }
    }

    IGB_DEVICE void write_slopes(const Row& here, std::int64_t column, T slope, unsigned winner) const {
        if (here.slopes == nullptr) return;
        T* const out = here.slopes + column * rows_of_members();
        IGB_UNROLL
        for (unsigned s = 0; s < capacity; ++s) {
            if (is_member(s)) out[s * task.batch.slab.member] = (s == winner ? T{1} : T{0}) * slope;
        }
    }

    IGB_DEVICE static T held_gain(double gain) {  // finite in T
        constexpr double largest = std::is_same_v<T, float> ? 0x1p127 : 0x1p1023;
        return static_cast<T>(gain < largest ? gain : largest);
    }

    IGB_DEVICE void tell_beyond(const Row& here) const {
        const NodeSlab& slab = task.batch.slab;
        if (phi.left_table(here.node) && here.row % slab.member < slab.nodes) atomicOr(task.beyond + here.network, 1);
    }
};

// Members that a thread has room for.
unsigned capacity_for(const TileBatch& batch, PoolKind pool) {
    if (pool == PoolKind::none || batch.slab.members == 1) return 1;
    return batch.slab.members <= 2 ? 2 : batch.slab.members <= 4 ? 4 : 8;
}

template <unsigned capacity, class T>
void walk(GpuStream stream, const Activation& activation, const TableView* table, const ActivateTask<T>& task,
          double* row_norms, double* parts) {
    const Walk all{task.batch.networks, task.batch.columns, task.rows};
    visit_phi<T>(activation, table, [&](const auto& phi) {
        walk_columns(stream, Activate<T, std::decay_t<decltype(phi)>, capacity>{task, phi, row_norms}, all, parts);
    });
}

}  // namespace

std::int64_t activate_scratch(const TileBatch& batch, PoolKind pool, std::int64_t rows) {
    const Walk walk{batch.networks, batch.columns, rows};
    const RowSums norms{walk.networks, rows / batch.slab.member, batch.slab.nodes};
    const std::int64_t sums = 2 + 2 * capacity_for(batch, pool);
    return walk.networks * ((sums * walk.parts() + 2) * rows + 2 * norms.parts());
}

template <class T>
void activate(GpuStream stream, const Activation& activation, const TableView* table, const ActivateTask<T>& task) {
    const NodeSlab& slab = task.batch.slab;
    if (task.pool != PoolKind::none && slab.members > most_pooled<T>)
        throw std::invalid_argument("a pool before phi has more members than a thread holds");
    const RowSums norms{task.batch.networks, task.rows / slab.member, slab.nodes};
    double* const row_norms = task.scratch;
    double* const of_parts = row_norms + 2 * norms.sets * task.rows;
    double* const rest = of_parts + 2 * norms.sets * norms.parts();
    const unsigned capacity = capacity_for(task.batch, task.pool);
    if (capacity == 1) walk<1>(stream, activation, table, task, row_norms, rest);
    if (capacity == 2) walk<2>(stream, activation, table, task, row_norms, rest);
    if (capacity == 4) walk<4>(stream, activation, table, task, row_norms, rest);
    if constexpr (most_pooled<T> == 8) {
        if (capacity == 8) walk<8>(stream, activation, table, task, row_norms, rest);
    }
    sum_over_rows(stream, RowNorms{row_norms, task.rows, slab.member}, norms, task.norms, of_parts);
}

template void activate(GpuStream, const Activation&, const TableView*, const ActivateTask<float>&);
template void activate(GpuStream, const Activation&, const TableView*, const ActivateTask<double>&);

}  // namespace igb::cuda
