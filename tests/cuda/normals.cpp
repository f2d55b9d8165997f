// The kernel of cuda/normals.cu, run on the host, against cpu/normals.cpp: every number to two units in the last place
// (instruction sets differ in fused multiply-adds), at sizes that are no multiple of anything, and nothing written beside.
#include "cuda/normals.cu"

#include <cmath>
#include <limits>
#include <vector>

#include "check.h"

namespace {

template <class T>
bool close(T got, T want) {
    const T unit = std::nextafter(std::abs(want), std::numeric_limits<T>::infinity()) - std::abs(want);
    return std::abs(got - want) <= 2 * unit;
}

template <class T>
void same_as_cpu(const igb::cuda::Block& block, std::uint64_t ld) {
    const igb::StreamId id{0x123456789ABCDEF0u, 77, 5, static_cast<std::uint32_t>(igb::Stream::gram)};
    const T poison = static_cast<T>(-12345);
    std::vector<T> got(block.rows * ld + 1, poison), want(block.columns);
    igb::cuda::fill_normals(nullptr, id, block, got.data(), ld);
    for (std::uint64_t row = 0; row < block.rows; ++row) {
        igb::fill_normals(id, block.first_row + static_cast<std::uint32_t>(row),
                          static_cast<std::int64_t>(block.first_column), static_cast<std::int64_t>(block.columns),
                          want.data());
        for (std::uint64_t column = 0; column < block.columns; ++column) {
            CHECK(close(got[row * ld + column], want[column]));
        }
        for (std::uint64_t column = block.columns; column < ld; ++column) CHECK(got[row * ld + column] == poison);
    }
    CHECK(got.back() == poison);
}

template <class T>
void all_sizes() {
    same_as_cpu<T>({0, 1, 0, 1}, 1);
    same_as_cpu<T>({3, 5, 0, 63}, 64);
    same_as_cpu<T>({0, 2, 64, 65}, 65);
    same_as_cpu<T>({0xFFFFFFF0u, 7, 6400, 1001}, 1013);
    same_as_cpu<T>({9, 0, 0, 100}, 100);
    same_as_cpu<T>({9, 3, 128, 0}, 2);
}

}  // namespace

int main() {
    all_sizes<float>();
    all_sizes<double>();
    return failures();
}
