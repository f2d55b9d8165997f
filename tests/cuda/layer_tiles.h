// Batches of tiles for the tests of kernels against their twins on the CPU: random numbers that have been nowhere
// before, outputs that hold a number which would show, and one more of it behind the end.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/layout.h"

namespace igb::test {

constexpr double poison = -12345.0;

inline std::mt19937_64& engine() {
    static std::mt19937_64 numbers(7);
    return numbers;
}

inline double normal() { return std::normal_distribution<double>()(engine()); }

// Of either sign, sizes equally likely on a logarithmic scale.
inline double of_any_size(double smallest, double largest) {
    std::uniform_real_distribution<double> exponent(std::log(smallest), std::log(largest));
    const double size = std::exp(exponent(engine()));
    return (engine()() & 1) != 0 ? size : -size;
}

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// `count` numbers of poison, and one behind them that stays.
template <class T>
struct Output {
    std::vector<T> data;

    explicit Output(std::int64_t count) : data(at(count) + 1, static_cast<T>(poison)) {}
    T* get() { return data.data(); }
    T operator[](std::int64_t i) const { return data[at(i)]; }
    bool end_stands() const { return data.back() == static_cast<T>(poison); }
};

inline cuda::TileBatch batch_of(std::int64_t networks, std::int64_t columns, std::int64_t members, std::int64_t nodes) {
    const std::int64_t member = (nodes + 63) / 64 * 64;
    return {networks, columns, {members, nodes, member, 0, member}};
}

inline bool counts(const cuda::TileBatch& batch, std::int64_t row) {
    return row % batch.slab.member < batch.slab.nodes;
}

// Value (network, column, row) of a batch.
inline std::int64_t place(const cuda::TileBatch& batch, std::int64_t g, std::int64_t a, std::int64_t row) {
    return (g * batch.columns + a) * batch.slab.rows() + row;
}

// Origins and differences as the functions make them; the padding holds a number that would show.
template <class T, class Origin, class Step>
std::vector<T> random_tiles(const cuda::TileBatch& batch, Origin&& origin, Step&& step) {
    std::vector<T> tile(at(batch.size()) + 1, T{1000});
    for (std::int64_t g = 0; g < batch.networks; ++g) {
        for (std::int64_t a = 0; a < batch.columns; ++a) {
            for (std::int64_t row = 0; row < batch.slab.rows(); ++row) {
                if (counts(batch, row)) tile[at(place(batch, g, a, row))] = static_cast<T>(a == 0 ? origin() : step());
            }
        }
    }
    return tile;
}

template <class T>
constexpr double epsilon = static_cast<double>(std::numeric_limits<T>::epsilon());
template <class T>
constexpr double tiniest = static_cast<double>(std::numeric_limits<T>::min());

template <class A, class B>
bool same_bits(const std::vector<A>& a, const std::vector<B>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(A)) == 0;
}

}  // namespace igb::test
