// Vectors whose storage starts on a cache line, for aligned vector loads and so that two threads share no line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace igb {

template <class T>
struct CacheLineAllocator {
    using value_type = T;
    static constexpr std::align_val_t alignment{64};

    CacheLineAllocator() = default;
    template <class U>
    CacheLineAllocator(const CacheLineAllocator<U>&) {}

    T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), alignment)); }
    void deallocate(T* p, std::size_t) { ::operator delete(p, alignment); }

    template <class U>
    bool operator==(const CacheLineAllocator<U>&) const {
        return true;
    }
};

template <class T>
using AlignedVector = std::vector<T, CacheLineAllocator<T>>;

using Size = std::int64_t;  // sizes and indices of the engines, signed so that differences are what they seem
inline std::size_t at(Size i) { return static_cast<std::size_t>(i); }

}  // namespace igb
