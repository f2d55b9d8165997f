// parallel_for: every index once, in workers' own scratch; serial inside a loop; the first exception comes back; usable
// from several threads at once and in the child of a fork.
#include "cpu/parallel.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"

namespace {

void every_index_runs_once() {
    for (const int threads : {1, 2, 5}) {
        igb::set_num_threads(threads);
        for (const std::size_t count : {0u, 1u, 2u, 7u, 1000u}) {
            std::vector<int> runs(count, 0);
            std::vector<std::size_t> per_worker(static_cast<std::size_t>(igb::max_workers()), 0);
            igb::parallel_for(count, [&](std::size_t index, int worker) {
                ++runs[index];
                ++per_worker[static_cast<std::size_t>(worker)];
            });
            std::size_t total = 0;
            for (const std::size_t n : per_worker) total += n;
            CHECK(total == count);
            for (const int n : runs) CHECK(n == 1);
        }
    }
}

void worker_zero_is_the_caller() {
    igb::set_num_threads(4);
    const auto caller = std::this_thread::get_id();
    std::atomic<int> wrong{0};
    igb::parallel_for(200, [&](std::size_t, int worker) {
        if ((worker == 0) != (std::this_thread::get_id() == caller)) ++wrong;
    });
    CHECK(wrong == 0);
}

void nested_loops_are_serial() {
    igb::set_num_threads(3);
    std::atomic<int> sum{0}, wrong{0};
    igb::parallel_for(10, [&](std::size_t, int) {
        const auto outer = std::this_thread::get_id();
        if (igb::max_workers() != 1) ++wrong;
        igb::parallel_for(10, [&](std::size_t, int worker) {
            if (worker != 0 || std::this_thread::get_id() != outer) ++wrong;
            ++sum;
        });
    });
    CHECK(sum == 100);
    CHECK(wrong == 0);
    CHECK(igb::max_workers() == 3);
}

void exceptions_come_back() {
    igb::set_num_threads(2);
    for (int repeat = 0; repeat < 5; ++repeat) {
        std::atomic<int> runs{0};
        CHECK_THROWS(std::runtime_error, igb::parallel_for(100000, [&](std::size_t index, int) {
                         ++runs;
                         if (index == 3) throw std::runtime_error("three");
                         std::this_thread::sleep_for(std::chrono::microseconds(10));
                     }));
        CHECK(runs < 100000);
    }
    std::atomic<int> runs{0};
    igb::parallel_for(10, [&](std::size_t, int) { ++runs; });
    CHECK(runs == 10);
}

void several_callers_at_once() {
    igb::set_num_threads(2);
    std::atomic<int> runs{0};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 3; ++caller) {
        callers.emplace_back([&] {
            for (int repeat = 0; repeat < 20; ++repeat) igb::parallel_for(50, [&](std::size_t, int) { ++runs; });
        });
    }
    for (std::thread& caller : callers) caller.join();
    CHECK(runs == 3 * 20 * 50);
}

void thread_counts_are_checked() {
    CHECK_THROWS(std::invalid_argument, igb::set_num_threads(0));
    CHECK_THROWS(std::invalid_argument, igb::set_num_threads(-1));
    CHECK_THROWS(std::invalid_argument, igb::set_num_threads(igb::max_num_threads() + 1));
    igb::set_num_threads(2);
    CHECK(igb::get_num_threads() == 2);
}

#ifndef __SANITIZE_THREAD__  // which refuses threads in the child of a process that had some
void works_in_the_child_of_a_fork() {
    igb::set_num_threads(2);
    igb::parallel_for(10, [](std::size_t, int) {});  // the parent has a team by now
    const pid_t child = fork();
    if (child == 0) {
        alarm(30);  // a child that waits for the parent's team would wait for ever
        std::atomic<int> runs{0};
        igb::parallel_for(100, [&](std::size_t, int) { ++runs; });
        _exit(runs == 100 ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

}  // namespace

int main() {
    every_index_runs_once();
    worker_zero_is_the_caller();
    nested_loops_are_serial();
    exceptions_come_back();
    several_callers_at_once();
    thread_counts_are_checked();
#ifndef __SANITIZE_THREAD__
    works_in_the_child_of_a_fork();
#endif
    return failures();
}
