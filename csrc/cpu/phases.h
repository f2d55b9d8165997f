// Work in many short phases, each of which needs all of the one before, in a single loop: opening a loop for each would
// cost far more than waiting, above all where other programs want the processors too.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

#include "cpu/parallel.h"

namespace igb {

// work(phase, index, worker) for every index below counts[phase], once all of the earlier phases is done. parallel_for
// hands out its indices in increasing order, so whoever waits, waits for work that a running thread has.
template <class Work>
void for_phases(const std::vector<std::size_t>& counts, int workers, Work&& work) {
    std::vector<std::size_t> starts(1, 0);
    for (const std::size_t count : counts) starts.push_back(starts.back() + count);
    std::atomic<std::size_t> done{0};
    struct Done {  // counts also work that threw, so that no one waits for ever
        std::atomic<std::size_t>& count;
        ~Done() { count.fetch_add(1, std::memory_order_release); }
    };
    parallel_for(starts.back(), workers, [&](std::size_t index, int worker) {
        const auto next = std::upper_bound(starts.begin(), starts.end(), index);
        const std::size_t phase = static_cast<std::size_t>(next - starts.begin()) - 1;
        const Done counted{done};
        for (int spins = 0; done.load(std::memory_order_acquire) < starts[phase]; ++spins)
            if (spins > 1000) std::this_thread::yield();
        work(phase, index - starts[phase], worker);
    });
}

}  // namespace igb
