// The host's side of csrc/cuda/launch.h. The threads of a block run
//     as fibers, one at a time, each until it waits for the others: quick, and always in the same order (in that of
//     their numbers in one block, against it in the next), so that a missing barrier gives wrong numbers;
//     with IGB_HOST_THREADS, as threads of the operating system, for the sanitizers: the thread sanitizer sees two CUDA
//     threads, of one block or of two, that touch the same memory without a barrier between them.
// Shared memory is an allocation of its own for every block and array, filled with a pattern: the address sanitizer
// sees what is beyond its end, and numbers that nobody wrote show.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#ifdef IGB_HOST_THREADS
#include <condition_variable>
#include <thread>
#else
#include <ucontext.h>
#endif

#define IGB_DEVICE inline
#define IGB_APART inline
#define IGB_KERNEL(threads) void
#define IGB_ROOMY_KERNEL(threads) void
#define IGB_SHARED(T, name, count)    \
    static const char name##_key = 0; \
    T* const name = static_cast<T*>(::igb::cuda::host::block().shared(&name##_key, sizeof(T) * (count)))
#define IGB_UNROLL
#define IGB_UNROLL_BY(times)
#define __restrict__

struct Index3 {
    unsigned x = 0, y = 0, z = 0;
};

inline thread_local Index3 threadIdx, blockIdx, blockDim, gridDim;

namespace igb::cuda::host {

// What the threads of one block share.
class Block;
inline thread_local Block* current_block = nullptr;
inline Block& block() { return *current_block; }

inline void fail(const char* what) {
    std::fprintf(stderr, "host_launch.h: %s\n", what);
    std::abort();
}

// The arrays of IGB_SHARED, by the addresses that stand for their names.
class SharedMemory {
public:
    void* get(const void* key, std::size_t bytes) {
        const std::lock_guard<std::mutex> guard(lock_);
        std::unique_ptr<std::uint64_t[]>& array = arrays_[key];
        if (!array) {
            const std::size_t words = (bytes + 7) / 8;
            array = std::unique_ptr<std::uint64_t[]>(new std::uint64_t[words]);
            std::memset(array.get(), 0xFF, words * 8);  // nan
        }
        return array.get();
    }

private:
    std::mutex lock_;
    std::map<const void*, std::unique_ptr<std::uint64_t[]>> arrays_;
};

#ifdef IGB_HOST_THREADS

// A barrier that threads may leave for good.
class Barrier {
public:
    explicit Barrier(unsigned count) : count_(count) {}

    void wait() {
        std::unique_lock<std::mutex> guard(lock_);
        const std::uint64_t turn = turn_;
        if (++arrived_ == count_) {
            release();
        } else {
            changed_.wait(guard, [&] { return turn_ != turn; });
        }
    }

    void leave() {
        const std::lock_guard<std::mutex> guard(lock_);
        --count_;
        if (count_ > 0 && arrived_ == count_) release();
    }

private:
    void release() {
        arrived_ = 0;
        ++turn_;
        changed_.notify_all();
    }

    std::mutex lock_;
    std::condition_variable changed_;
    unsigned count_, arrived_ = 0;
    std::uint64_t turn_ = 0;
};

class Block {
public:
    explicit Block(unsigned threads) : barrier_(threads) {
        for (unsigned first = 0; first < threads; first += 32)
            warps_.push_back(std::make_unique<Warp>(threads - first < 32 ? threads - first : 32));
    }

    void* shared(const void* key, std::size_t bytes) { return memory_.get(key, bytes); }
    void synchronize() { barrier_.wait(); }

    std::uint64_t exchange(unsigned thread, std::uint64_t value, unsigned from) {
        Warp& warp = *warps_[thread / 32];
        warp.values[thread % 32] = value;
        warp.barrier.wait();
        const std::uint64_t result = warp.values[from % 32];
        warp.barrier.wait();
        return result;
    }

    void leave(unsigned thread) {
        barrier_.leave();
        warps_[thread / 32]->barrier.leave();
    }

private:
    struct Warp {
        explicit Warp(unsigned count) : barrier(count) {}
        Barrier barrier;
        std::uint64_t values[32] = {};
    };

    SharedMemory memory_;
    Barrier barrier_;
    std::vector<std::unique_ptr<Warp>> warps_;
};

#else

// The fibers of one block, run by one thread. A fiber takes the CUDA threads that have not begun one after the other;
// where one waits, the fiber stays with it, and another takes the rest.
class Block {
public:
    Block(unsigned threads, bool backwards) : count_(threads), backwards_(backwards) {
        waiting_.resize(threads);
        values_.resize(threads);
    }

    void* shared(const void* key, std::size_t bytes) { return memory_.get(key, bytes); }
    void synchronize() { wait(Waiting::block); }

    std::uint64_t exchange(unsigned thread, std::uint64_t value, unsigned from) {
        values_[thread] = value;
        wait(Waiting::warp);
        const std::uint64_t result = values_[thread / 32 * 32 + from % 32];
        wait(Waiting::warp);
        return result;
    }

    // kernel() for every thread; set(thread) says which one is running.
    template <class Set, class Kernel>
    void run(const Set& set, const Kernel& kernel) {
        set_ = [](void* of, unsigned thread) { (*static_cast<const Set*>(of))(thread); };
        set_of_ = const_cast<Set*>(&set);
        kernel_ = [](void* of) { (*static_cast<const Kernel*>(of))(); };
        kernel_of_ = const_cast<Kernel*>(&kernel);
        while (left_ > 0 || begun_ < count_) {
            if (begun_ < count_) {
                start_fiber();
            } else if (!continue_fibers()) {
                fail("the threads of a block wait for different things");
            }
        }
    }

private:
    enum class Waiting : std::uint8_t { no, block, warp };

    struct Fiber {
        ucontext_t context{};
        std::unique_ptr<char[]> stack{new char[stack_size]};
        unsigned thread = 0;
    };
    static constexpr std::size_t stack_size = std::size_t{256} * 1024;

    static std::vector<std::unique_ptr<Fiber>>& idle() {
        static thread_local std::vector<std::unique_ptr<Fiber>> fibers;
        return fibers;
    }

    static void enter(unsigned high, unsigned low) {
        reinterpret_cast<Block*>((static_cast<std::uintptr_t>(high) << 32) | low)->work();
    }

    void start_fiber() {
        if (idle().empty()) idle().push_back(std::make_unique<Fiber>());
        std::unique_ptr<Fiber> fiber = std::move(idle().back());
        idle().pop_back();
        getcontext(&fiber->context);
        fiber->context.uc_stack.ss_sp = fiber->stack.get();
        fiber->context.uc_stack.ss_size = stack_size;
        fiber->context.uc_link = &scheduler_;
        const auto self = reinterpret_cast<std::uintptr_t>(this);
        makecontext(&fiber->context, reinterpret_cast<void (*)()>(&Block::enter), 2, static_cast<unsigned>(self >> 32),
                    static_cast<unsigned>(self));
        running_ = std::move(fiber);
        resume();
    }

    void resume() {
        Fiber* const fiber = running_.get();
        swapcontext(&scheduler_, &fiber->context);
        if (running_) idle().push_back(std::move(running_));  // it has ended
    }

    void work() {
        while (begun_ < count_) {
            const unsigned thread = backwards_ ? count_ - 1 - begun_ : begun_;
            ++begun_;
            ++left_;
            running_->thread = thread;
            set_(set_of_, thread);
            kernel_(kernel_of_);
            --left_;
        }
    }

    void wait(Waiting what) {
        Fiber* const fiber = running_.get();
        waiting_[fiber->thread] = what;
        parked_.push_back(std::move(running_));
        swapcontext(&fiber->context, &scheduler_);
    }

    // Those that wait for the same as all others of their block or warp that are still there.
    bool continue_fibers() {
        std::vector<unsigned> living((count_ + 31) / 32), in_warp(living.size());
        unsigned in_block = 0;
        for (const auto& fiber : parked_) {
            ++living[fiber->thread / 32];
            in_warp[fiber->thread / 32] += waiting_[fiber->thread] == Waiting::warp ? 1u : 0u;
            in_block += waiting_[fiber->thread] == Waiting::block ? 1u : 0u;
        }
        const bool whole_block = in_block == parked_.size();
        std::vector<std::unique_ptr<Fiber>> going;
        for (auto& fiber : parked_) {
            const unsigned warp = fiber->thread / 32;
            if (whole_block || (waiting_[fiber->thread] == Waiting::warp && in_warp[warp] == living[warp]))
                going.push_back(std::move(fiber));
        }
        std::erase(parked_, nullptr);
        for (auto& fiber : going) {
            waiting_[fiber->thread] = Waiting::no;
            running_ = std::move(fiber);
            set_(set_of_, running_->thread);
            resume();
        }
        return !going.empty();
    }

    const unsigned count_;
    const bool backwards_;
    unsigned begun_ = 0, left_ = 0;
    SharedMemory memory_;
    ucontext_t scheduler_{};
    std::unique_ptr<Fiber> running_;
    std::vector<std::unique_ptr<Fiber>> parked_;
    std::vector<Waiting> waiting_;
    std::vector<std::uint64_t> values_;
    void (*set_)(void*, unsigned) = nullptr;
    void (*kernel_)(void*) = nullptr;
    void *set_of_ = nullptr, *kernel_of_ = nullptr;
};

#endif

inline unsigned thread_number() { return threadIdx.y * blockDim.x + threadIdx.x; }

template <class T>
T exchanged(T value, unsigned from) {
    static_assert(sizeof(T) <= sizeof(std::uint64_t));
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = block().exchange(thread_number(), bits, from);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace igb::cuda::host

inline void __syncthreads() { igb::cuda::host::block().synchronize(); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return igb::cuda::host::exchanged(value, (igb::cuda::host::thread_number() % 32) ^ static_cast<unsigned>(mask));
}

// Lanes beyond the end keep their own value.
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned by) {
    const unsigned lane = igb::cuda::host::thread_number() % 32;
    return igb::cuda::host::exchanged(value, lane + by < 32 ? lane + by : lane);
}

template <class T>
T atomicAdd(T* at, T value) {
    static_assert(std::is_integral_v<T>);
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

template <class T>
T atomicOr(T* at, T value) {
    static_assert(std::is_integral_v<T>);
    return __atomic_fetch_or(at, value, __ATOMIC_RELAXED);
}

namespace igb::cuda {

namespace host {

inline Index3 index_of(unsigned number, Grid size) {
    return {number % size.x, number / size.x % size.y, number / size.x / size.y};
}

}  // namespace host

template <class... Parameters, class... Arguments>
void launch(GpuStream, Grid blocks, Grid threads, void (*kernel)(Parameters...), Arguments... arguments) {
    using namespace host;
    const unsigned number = blocks.x * blocks.y * blocks.z, team = threads.x * threads.y;
    const auto set = [&](unsigned thread, unsigned at) {
        threadIdx = index_of(thread, threads);
        blockIdx = index_of(at, blocks);
        blockDim = {threads.x, threads.y, 1};
        gridDim = {blocks.x, blocks.y, blocks.z};
    };
    if (team == 0 || team > 1024 || blocks.y > 65535 || blocks.z > 65535) fail("a launch that no GPU would take");
#ifdef IGB_HOST_THREADS
    // All blocks at once: a thread goes on to the next block without waiting for its neighbours.
    std::vector<std::unique_ptr<Block>> all;
    for (unsigned b = 0; b < number; ++b) all.push_back(std::make_unique<Block>(team));
    std::vector<std::thread> crew;
    for (unsigned t = 0; t < team; ++t) {
        crew.emplace_back([&, t] {
            for (unsigned b = 0; b < number; ++b) {
                current_block = all[b].get();
                set(t, b);
                kernel(arguments...);
                all[b]->leave(t);
            }
        });
    }
    for (std::thread& thread : crew) thread.join();
#else
    for (unsigned b = 0; b < number; ++b) {
        Block one(team, b % 2 == 1);
        current_block = &one;
        one.run([&](unsigned thread) { set(thread, b); }, [&] { kernel(arguments...); });
    }
    current_block = nullptr;
#endif
}

}  // namespace igb::cuda
