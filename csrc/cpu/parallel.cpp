// The loop behind parallel_for: workers draw the next index from one counter. The team is OpenMP's, except
//   * in a build without it, as for the thread sanitizer, which does not see OpenMP's own synchronisation, and
//   * in the child of a fork, where OpenMP's team has no threads left and would wait for them for ever;
// there it is a fork and join of std::thread.
#include "cpu/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#include <pthread.h>
#endif

namespace igb {
namespace {

thread_local bool inside_a_loop = false;

int default_threads() {
#ifdef _OPENMP
    return std::max(1, omp_get_max_threads());
#else
    return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
#endif
}

std::atomic<int>& chosen_threads() {
    static std::atomic<int> n{std::min(default_threads(), max_num_threads())};
    return n;
}

class Loop {
public:
    Loop(std::size_t count, void (*call)(void*, std::size_t, int), void* body)
        : count_(count), call_(call), body_(body) {}

    // What one worker does: take indices until there are none, or until one has failed.
    void work(int worker) noexcept {
        inside_a_loop = true;
        try {
            while (!failed_.load(std::memory_order_relaxed)) {
                const std::size_t index = next_.fetch_add(1, std::memory_order_relaxed);
                if (index >= count_) break;
                call_(body_, index, worker);
            }
        } catch (...) {
            const std::lock_guard lock(mutex_);
            if (!error_) error_ = std::current_exception();
            failed_.store(true, std::memory_order_relaxed);
        }
        inside_a_loop = false;
    }

    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
    }

private:
    std::size_t count_;
    void (*call_)(void*, std::size_t, int);
    void* body_;
    std::atomic<std::size_t> next_{0};
    std::atomic<bool> failed_{false};
    std::mutex mutex_;
    std::exception_ptr error_;
};

void run_on_threads(Loop& loop, int workers) {
    std::vector<std::thread> others;
    others.reserve(static_cast<std::size_t>(workers - 1));
    try {
        for (int worker = 1; worker < workers; ++worker) {
            others.emplace_back([&loop, worker] { loop.work(worker); });
        }
    } catch (const std::system_error&) {
        // The system gives no more threads: those that exist, and this one, do the work.
    }
    loop.work(0);
    for (std::thread& thread : others) thread.join();
}

#ifdef _OPENMP
std::atomic<bool> forked{false};

void watch_forks() {
    static const int watching = pthread_atfork(nullptr, nullptr, [] { forked.store(true); });
    (void)watching;
}

void run_on_team(Loop& loop, int workers) {
    watch_forks();
    if (forked.load()) return run_on_threads(loop, workers);
#pragma omp parallel num_threads(workers)
    loop.work(omp_get_thread_num());
}
#else
void run_on_team(Loop& loop, int workers) { run_on_threads(loop, workers); }
#endif

}  // namespace

int max_num_threads() { return 4096; }

bool have_openmp() {
#ifdef _OPENMP
    return true;
#else
    return false;
#endif
}

void set_num_threads(int n) {
    if (n < 1 || n > max_num_threads()) {
        throw std::invalid_argument("n must be a number of threads from 1 to " + std::to_string(max_num_threads()) +
                                    ", got " + std::to_string(n));
    }
    chosen_threads().store(n);
}

int get_num_threads() { return chosen_threads().load(); }

int max_workers() { return inside_a_loop ? 1 : get_num_threads(); }

void detail::run_loop(std::size_t count, int workers, void (*call)(void*, std::size_t, int), void* body) {
    const int team = static_cast<int>(std::min<std::size_t>(count, static_cast<std::size_t>(std::max(workers, 1))));
    if (inside_a_loop || team <= 1) {
        for (std::size_t index = 0; index < count; ++index) call(body, index, 0);
        return;
    }
    Loop loop(count, call, body);
    run_on_team(loop, team);
    loop.rethrow();
}

}  // namespace igb
