// The part of the real line where a table counts, and the cells of its quadrature, shared out to the threads of a
// block: twins of what cpu/table_rules.h and core/table_rules.h do for one thread.
#pragma once

#include <cstddef>

#include "core/table_rules.h"
#include "cuda/expectations.h"
#include "cuda/team.h"

namespace igb::cuda {

// Where |phi^(m)(root scale z)|^power counts, times scale: in units of `root`.
struct RangeOf {
    int m;
    double root, scale, power;
};

// All of them joined: twin of range_of_power.
template <std::size_t K>
IGB_DEVICE Range joined_range(const Team& team, const TheoryShare& share, const RangeOf (&of)[K]) {
    double peaks[K], ends[2] = {0.0, 0.0};
    for (double& peak : peaks) peak = -1e300;
    for (int p = team.rank; p < share.table.panels; p += Team::size) {
        for (std::size_t k = 0; k < K; ++k) {
            const double peak =
                peak_on(share.table, p, of[k].root * of[k].scale, of[k].power, share.log_bounds[of[k].m][p]);
            peaks[k] = peak > peaks[k] ? peak : peaks[k];
        }
    }
    combine(team, peaks, Larger{});
    for (int p = team.rank; p < share.table.panels; p += Team::size) {
        for (std::size_t k = 0; k < K; ++k) {
            const Range one =
                range_on(share.table, p, of[k].root * of[k].scale, of[k].power, share.log_bounds[of[k].m][p], peaks[k]);
            ends[0] = -one.low * of[k].scale > ends[0] ? -one.low * of[k].scale : ends[0];
            ends[1] = one.high * of[k].scale > ends[1] ? one.high * of[k].scale : ends[1];
        }
    }
    combine(team, ends, Larger{});
    return {-ends[0], ends[1]};
}

// Cells for all threads, five at a time: 24 threads have the nodes of one.
struct TeamCells {
    static constexpr int groups = Team::size / cell_nodes;
    CellWalk walk;
    int group, node;
    bool mine = false;  // whether this thread has a cell
    int panel = 0;
    double low = 0.0, high = 0.0;

    IGB_DEVICE TeamCells(const Team& team, const TableView& table, double first, double last, double longest)
        : walk(table, first, last, longest), group(team.rank / cell_nodes), node(team.rank % cell_nodes) {}

    // False, for all threads, if there are no more.
    IGB_DEVICE bool next() {
        mine = false;
        bool some = false;
        for (int i = 0; i < groups && walk.next(); ++i) {
            some = true;
            if (i != group) continue;
            mine = true;
            panel = walk.panel;
            low = walk.low;
            high = walk.high;
        }
        return some;
    }
};

}  // namespace igb::cuda
