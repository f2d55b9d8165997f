// All the parallelism of igbfast: parallel_for(count, body) runs body(index, worker) for every index below count, on
// up to get_num_threads() threads that take the next index, in increasing order, as they become free. Which worker
// runs which index is not fixed, so a result must depend on the index alone; `worker` only names scratch memory.
#pragma once

#include <cstddef>
#include <type_traits>

namespace igb {

void set_num_threads(int n);  // throws std::invalid_argument unless 1 <= n <= max_num_threads()
int get_num_threads();        // at first OMP_NUM_THREADS, or the processors that this process may use
int max_num_threads();
bool have_openmp();  // whether loops run on an OpenMP team rather than on std::thread

// How many distinct values of `worker` a parallel_for called here can pass: get_num_threads(), or 1 inside a loop.
// Scratch memory for that many workers is enough, provided the thread count is not changed in between (so read it once
// and pass it on as `workers`).
int max_workers();

namespace detail {
void run_loop(std::size_t count, int workers, void (*call)(void* body, std::size_t index, int worker), void* body);
}

// body(index, worker) for index = 0 .. count - 1; worker in [0, workers). Worker 0 is the calling thread, always (it
// may check for signals). The first exception thrown by a body stops the loop, and is rethrown here once every worker
// has stopped. Called from within a body, the loop is serial, on the caller, as worker 0.
template <class Body>
void parallel_for(std::size_t count, int workers, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    detail::run_loop(
        count, workers, [](void* b, std::size_t index, int worker) { (*static_cast<Plain*>(b))(index, worker); },
        const_cast<std::remove_const_t<Plain>*>(&body));
}

template <class Body>
void parallel_for(std::size_t count, Body&& body) {
    parallel_for(count, max_workers(), body);
}

}  // namespace igb
