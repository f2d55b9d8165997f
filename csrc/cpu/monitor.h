// How a long call stays in touch with its caller: tiles report their progress, and the calling thread, at most ten
// times a second, shows it and learns whether to stop (Ctrl-C).
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <utility>

namespace igb {

class Monitor {
public:
    using Callback = std::function<bool(double fraction)>;  // false: stop

    explicit Monitor(Callback callback = {})
        : callback_(std::move(callback)), owner_(std::this_thread::get_id()), last_(Clock::now()) {}

    void expect(double total) { total_ = total; }  // work units, set before the first advance

    // Called by any thread when it has done some work; only the thread that made the monitor calls back.
    void advance(double units) {
        done_.fetch_add(units, std::memory_order_relaxed);
        if (callback_ && std::this_thread::get_id() == owner_) check();
    }

    bool stopped() const { return stopped_.load(std::memory_order_relaxed); }

private:
    using Clock = std::chrono::steady_clock;

    void check() {
        const auto now = Clock::now();
        if (now - last_ < std::chrono::milliseconds(100)) return;
        last_ = now;
        const double done = done_.load(std::memory_order_relaxed);
        if (!callback_(total_ > 0.0 ? done / total_ : 0.0)) stopped_.store(true, std::memory_order_relaxed);
    }

    Callback callback_;
    std::thread::id owner_;
    Clock::time_point last_;
    double total_ = 0.0;
    std::atomic<double> done_{0.0};
    std::atomic<bool> stopped_{false};
};

}  // namespace igb
