// Philox words of one row, sixteen counters at a time, for the arrays of random numbers that are compiled once for each
// instruction set, and how these cut a row.
#pragma once

#include <cstdint>

#include "core/config.h"
#include "core/normal.h"
#include "core/philox.h"
#include "core/stream.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace igb::inline IGB_ISA {

inline constexpr int row_lanes = static_cast<int>(NormalLayout<float>::lanes);

// The words of one block, each in the order of its columns: float takes x0 .. x3 as they are, double the pairs x0 x1
// and x2 x3 joined.
struct Words32 {
    alignas(64) std::uint32_t x[4][row_lanes];
};

struct Words64 {
    alignas(64) std::uint64_t x[2][row_lanes];
};

#if defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__)

// Compilers turn the 32 x 32 -> 64-bit products of a plain loop into full 64-bit products or into shuffles, for three
// times the time of the one instruction that multiplies the lower halves of 64-bit row_lanes. So Philox alone runs on
// vectors written out; the rest of its arithmetic is the same template.
#if defined(__AVX512F__)
inline constexpr int philox_bytes = 64;
#elif defined(__AVX2__)
inline constexpr int philox_bytes = 32;
#else
inline constexpr int philox_bytes = 16;
#endif
inline constexpr int philox_width = philox_bytes / 8;

typedef std::uint64_t PhiloxVector __attribute__((vector_size(philox_bytes)));

struct LowerProduct {
    IGB_HD PhiloxVector operator()(std::uint32_t m, PhiloxVector x) const {
#if defined(__AVX512F__)
        return reinterpret_cast<PhiloxVector>(
            _mm512_maskz_mul_epu32(0xFF, _mm512_set1_epi64(m), reinterpret_cast<__m512i>(x)));
#elif defined(__AVX2__)
        return reinterpret_cast<PhiloxVector>(_mm256_mul_epu32(_mm256_set1_epi64x(m), reinterpret_cast<__m256i>(x)));
#else
        return reinterpret_cast<PhiloxVector>(_mm_mul_epu32(_mm_set1_epi64x(m), reinterpret_cast<__m128i>(x)));
#endif
    }
};

// Philox of counters c0, c0 + step, c0 + 2 step, ...
IGB_HD PhiloxState<PhiloxVector> philox_vector(const StreamId& id, std::uint32_t row, std::uint32_t c0,
                                               std::uint32_t step) {
    PhiloxVector counter{};
    for (std::uint32_t i = 0; i < philox_width; ++i) {
        counter[i] = i * step;
    }
    const PhiloxWords start = normal_counter(id, row, 0);
    const PhiloxVector zero{};
    return philox_rounds<PhiloxVector>({counter + c0, zero + start.x1, zero + start.x2, zero + start.x3},
                                       normal_key(id), LowerProduct{});
}

IGB_HD void store(PhiloxVector v, void* to) { __builtin_memcpy(to, &v, sizeof v); }

// Even counters in the lower halves, odd counters in the upper ones: the order of the columns.
IGB_HD void draw(const StreamId& id, std::uint32_t row, std::uint32_t c0, Words32& words) {
    constexpr std::uint64_t lower = 0xFFFFFFFFu;
    for (int i = 0; i < row_lanes; i += 2 * philox_width) {
        const std::uint32_t first = c0 + static_cast<std::uint32_t>(i);
        const auto even = philox_vector(id, row, first, 2), odd = philox_vector(id, row, first + 1, 2);
        store((even.x0 & lower) | (odd.x0 << 32), &words.x[0][i]);
        store((even.x1 & lower) | (odd.x1 << 32), &words.x[1][i]);
        store((even.x2 & lower) | (odd.x2 << 32), &words.x[2][i]);
        store((even.x3 & lower) | (odd.x3 << 32), &words.x[3][i]);
    }
}

IGB_HD void draw(const StreamId& id, std::uint32_t row, std::uint32_t c0, Words64& words) {
    constexpr std::uint64_t lower = 0xFFFFFFFFu;
    for (int i = 0; i < row_lanes; i += philox_width) {
        const auto w = philox_vector(id, row, c0 + static_cast<std::uint32_t>(i), 1);
        store((w.x0 << 32) | (w.x1 & lower), &words.x[0][i]);
        store((w.x2 << 32) | (w.x3 & lower), &words.x[1][i]);
    }
}

#else

IGB_HD void draw(const StreamId& id, std::uint32_t row, std::uint32_t c0, Words32& words) {
#pragma omp simd
    for (int j = 0; j < row_lanes; ++j) {
        const PhiloxWords w = normal_words(id, row, c0 + static_cast<std::uint32_t>(j));
        words.x[0][j] = w.x0;
        words.x[1][j] = w.x1;
        words.x[2][j] = w.x2;
        words.x[3][j] = w.x3;
    }
}

IGB_HD void draw(const StreamId& id, std::uint32_t row, std::uint32_t c0, Words64& words) {
#pragma omp simd
    for (int j = 0; j < row_lanes; ++j) {
        const PhiloxWords w = normal_words(id, row, c0 + static_cast<std::uint32_t>(j));
        words.x[0][j] = joined(w.x0, w.x1);
        words.x[1][j] = joined(w.x2, w.x3);
    }
}

#endif

// Columns [begin, begin + count) of one row, begin a multiple of the block: fill(c0, out) makes a block from the
// counters c0 .. c0 + 15.
template <class T, class Fill>
IGB_HD void fill_row(std::uint64_t begin, std::uint64_t count, T* out, Fill fill) {
    constexpr std::uint64_t block = NormalLayout<T>::block;
    std::uint32_t c0 = static_cast<std::uint32_t>(begin / block * NormalLayout<T>::lanes);
    std::uint64_t done = 0;
    for (; done + block <= count; done += block) {
        fill(c0, out + done);
        c0 += static_cast<std::uint32_t>(NormalLayout<T>::lanes);
    }
    if (done < count) {
        T last[block];
        fill(c0, last);
        for (std::uint64_t i = 0; done + i < count; ++i) {
            out[done + i] = last[i];
        }
    }
}

}  // namespace igb::inline IGB_ISA
