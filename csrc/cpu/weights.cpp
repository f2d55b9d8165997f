// Rows of weights (core/weights.h): Philox, by vectors, is most of the time of uniform weights and little of that of
// rademacher weights, of which one counter makes 128. Measured on one 2.6 GHz Zen 4 core, rows of 8192, in M/s:
//                   AVX-512            AVX2               SSE2
//                   float    double    float    double    float    double
//     uniform       1,840       910    1,290       610      690       320
//     rademacher   13,700     8,200   11,100     7,800    7,100     4,600
#include "core/weights.h"

#include "cpu/philox_rows.h"

namespace igb::inline IGB_ISA {

void normals_f32(const StreamId&, std::uint32_t row, std::uint64_t begin, std::uint64_t count, float* out);
void normals_f64(const StreamId&, std::uint32_t row, std::uint64_t begin, std::uint64_t count, double* out);
void weights_f32(WeightLaw, const StreamId&, std::uint32_t row, std::uint64_t begin, std::uint64_t count, float* out);
void weights_f64(WeightLaw, const StreamId&, std::uint32_t row, std::uint64_t begin, std::uint64_t count, double* out);

namespace {

void fill_uniform(const StreamId& id, std::uint32_t row, std::uint32_t c0, float* out) {
    Words32 words;
    draw(id, row, c0, words);
    for (int k = 0; k < 4; ++k) {
#pragma omp simd
        for (int j = 0; j < row_lanes; ++j) {
            out[row_lanes * k + j] = uniform_weight(words.x[k][j]);
        }
    }
}

void fill_uniform(const StreamId& id, std::uint32_t row, std::uint32_t c0, double* out) {
    Words64 words;
    draw(id, row, c0, words);
    for (int k = 0; k < 2; ++k) {
#pragma omp simd
        for (int j = 0; j < row_lanes; ++j) {
            out[row_lanes * k + j] = uniform_weight(words.x[k][j]);
        }
    }
}

template <class T>
void uniform_row(const StreamId& id, std::uint32_t row, std::uint64_t begin, std::uint64_t count, T* out) {
    fill_row(begin, count, out, [&](std::uint32_t c0, T* block) { fill_uniform(id, row, c0, block); });
}

// Sixteen columns, from one bit of each of sixteen words.
template <class T>
IGB_HD void spread(const std::uint32_t* words, std::uint32_t k, T* out) {
#pragma omp simd
    for (int j = 0; j < row_lanes; ++j) {
        out[j] = rademacher_weight<T>(words[j], k);
    }
}

template <class T>
void rademacher_row(const StreamId& id, std::uint32_t row, std::uint64_t begin, std::uint64_t count, T* out) {
    using Layout = RademacherLayout;
    Words32 words;
    const std::uint64_t end = begin + count;
    for (std::uint64_t column = begin; column < end;) {
        draw(id, row, static_cast<std::uint32_t>(column / Layout::block * Layout::lanes), words);
        std::uint64_t unit = column % Layout::block / Layout::lanes;
        for (; unit < Layout::units && column + Layout::lanes <= end;
             ++unit, column += Layout::lanes, out += row_lanes) {
            spread(words.x[unit / Layout::bits], static_cast<std::uint32_t>(unit % Layout::bits), out);
        }
        if (unit < Layout::units && column < end) {
            T last[row_lanes];
            spread(words.x[unit / Layout::bits], static_cast<std::uint32_t>(unit % Layout::bits), last);
            for (int j = 0; column < end; ++j, ++column) {
                out[j] = last[j];
            }
        }
    }
}

}  // namespace

void weights_f32(WeightLaw law, const StreamId& id, std::uint32_t row, std::uint64_t begin, std::uint64_t count,
                 float* out) {
    if (law == WeightLaw::uniform) return uniform_row(id, row, begin, count, out);
    if (law == WeightLaw::rademacher) return rademacher_row(id, row, begin, count, out);
    normals_f32(id, row, begin, count, out);
}

void weights_f64(WeightLaw law, const StreamId& id, std::uint32_t row, std::uint64_t begin, std::uint64_t count,
                 double* out) {
    if (law == WeightLaw::uniform) return uniform_row(id, row, begin, count, out);
    if (law == WeightLaw::rademacher) return rademacher_row(id, row, begin, count, out);
    normals_f64(id, row, begin, count, out);
}

}  // namespace igb::inline IGB_ISA
