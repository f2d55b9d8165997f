// Sums that do not depend on the number of threads: tiles are worked on in any order, but each adds its part to the
// total when its turn comes, tile 0 first.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <thread>

#include "cpu/parallel.h"

namespace igb {

// The right to add to a total, in the order of the index. Taken by wait(); passed on when it goes out of scope, also
// if the work threw, so that no later tile waits for ever.
class Turn {
public:
    Turn(std::atomic<std::size_t>& next, std::size_t index) : next_(next), index_(index) {}
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    void wait() const {
        for (int spins = 0; next_.load(std::memory_order_acquire) != index_; ++spins)
            if (spins > 1000) std::this_thread::yield();
    }

    ~Turn() {
        wait();
        next_.store(index_ + 1, std::memory_order_release);
    }

private:
    std::atomic<std::size_t>& next_;
    std::size_t index_;
};

// `groups` independent totals of `tiles` tiles each, all in one loop: work(group, tile, worker) at any time,
// commit(group, tile, worker) after the commits of the same group's earlier tiles. parallel_for hands out indices in
// increasing order, so whoever waits, waits for a tile that a running thread has.
template <class Work, class Commit>
void for_tiles_in_order(std::size_t groups, std::size_t tiles, int workers, Work&& work, Commit&& commit) {
    const std::unique_ptr<std::atomic<std::size_t>[]> next(new std::atomic<std::size_t>[groups]());
    parallel_for(groups * tiles, workers, [&](std::size_t index, int worker) {
        const std::size_t group = index / tiles, tile = index % tiles;
        const Turn turn(next[group], tile);
        work(group, tile, worker);
        turn.wait();
        commit(group, tile, worker);
    });
}

}  // namespace igb
