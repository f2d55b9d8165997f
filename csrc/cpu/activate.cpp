// The nonlinearity of one tile (see activate.h): x_0 = phi(y_0), Delta_a = phi(y_0 + d_a) - phi(y_0).
// Inner loops run over the nodes of one block, whose anchors and sums stay in registers or the first-level cache;
// every vector lane is a node, so that sums over the inputs need no horizontal step and no tail.
#include "cpu/activate.h"

#include "core/activations.h"
#include "cpu/kernels.h"

namespace igb::inline IGB_ISA {

namespace {

constexpr std::int64_t inputs_per_sum = 64;  // a single-precision sum is handed on to double after so many terms

template <class T, class Phi>
TileNorms activate_block(const Phi& phi, std::int64_t nodes, std::int64_t inputs, T* tile, std::int64_t ld,
                         const TileUnits& in, const TileUnits& out, const NodeMoments& moments) {
    constexpr int block = static_cast<int>(node_block);
    alignas(64) T m[block], anchor[block];
    alignas(64) double sum[block], sum2[block], slope2[block], norm2[block];
    const T origin_in = static_cast<T>(in.origin), origin_out = static_cast<T>(1.0 / out.origin);
    const T difference_in = static_cast<T>(in.difference), difference_out = static_cast<T>(1.0 / out.difference);

#pragma omp simd
    for (int j = 0; j < block; ++j) {
        m[j] = tile[j] * origin_in;
        anchor[j] = phi.anchor(m[j]);
        const T slope = phi.slope(m[j]);
        moments.origin[j] = tile[j];
        moments.origin_slope2[j] = static_cast<double>(slope * slope);
        slope2[j] = 0.0;
        tile[j] = phi.value(m[j]) * origin_out;
        sum[j] = 0.0;
        sum2[j] = 0.0;
        norm2[j] = 0.0;
    }
    for (std::int64_t first = 1; first < inputs; first += inputs_per_sum) {
        const std::int64_t last = first + inputs_per_sum < inputs ? first + inputs_per_sum : inputs;
        alignas(64) T s1[block] = {}, s2[block] = {}, s3[block] = {}, s4[block] = {};
        for (std::int64_t a = first; a < last; ++a) {
            T* const column = tile + a * ld;
#pragma omp simd
            for (int j = 0; j < block; ++j) {
                const T d = column[j];
                const auto change = phi.change(m[j], anchor[j], d * difference_in);
                const T x = change.difference * difference_out;
                column[j] = x;
                s1[j] += d;
                s2[j] += d * d;
                s3[j] += change.slope * change.slope;
                s4[j] += x * x;
            }
        }
#pragma omp simd
        for (int j = 0; j < block; ++j) {
            sum[j] += static_cast<double>(s1[j]);
            sum2[j] += static_cast<double>(s2[j]);
            slope2[j] += static_cast<double>(s3[j]);
            norm2[j] += static_cast<double>(s4[j]);
        }
    }
    TileNorms norms;
    for (int j = 0; j < block; ++j) {
        moments.sum[j] = sum[j];
        moments.sum2[j] = sum2[j];
        moments.slope2[j] = slope2[j];
        if (j < nodes) {  // the padding does not count
            norms.origin += static_cast<double>(tile[j]) * static_cast<double>(tile[j]);
            norms.difference += norm2[j];
        }
    }
    return norms;
}

}  // namespace

template <class T>
TileNorms activate(const Activation& activation, std::int64_t nodes, std::int64_t inputs, T* tile, std::int64_t ld,
                   const TileUnits& in, const TileUnits& out, const NodeMoments& moments) {
    TileNorms norms;
    visit<T>(activation, [&](const auto& phi) {
        for (std::int64_t i = 0; i < nodes; i += node_block) {
            const NodeMoments here{moments.origin + i, moments.sum + i, moments.sum2 + i, moments.origin_slope2 + i,
                                   moments.slope2 + i};
            const TileNorms part = activate_block<T>(phi, nodes - i, inputs, tile + i, ld, in, out, here);
            norms.origin += part.origin;
            norms.difference += part.difference;
        }
    });
    return norms;
}

template TileNorms activate<float>(const Activation&, std::int64_t, std::int64_t, float*, std::int64_t,
                                   const TileUnits&, const TileUnits&, const NodeMoments&);
template TileNorms activate<double>(const Activation&, std::int64_t, std::int64_t, double*, std::int64_t,
                                    const TileUnits&, const TileUnits&, const NodeMoments&);

}  // namespace igb::inline IGB_ISA
