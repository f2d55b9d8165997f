// What one counter deals to the columns of a row (core/normal.h, core/weights.h), for whoever takes all of it. All laws
// deal alike: counter c0 = 16 b + j has parts x bits numbers, and number k of them belongs to column
//     block b + 16 k + j,     k = bits part + bit,     block = 16 parts bits.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/config.h"
#include "core/normal.h"
#include "core/philox.h"
#include "core/stream.h"
#include "core/weights.h"

namespace igb::inline IGB_ISA {

inline constexpr std::int64_t dealt_lanes = 16;  // j

// The stream of one network of a batch.
IGB_HD StreamId network_of(const StreamId& id, std::int64_t slice) {
    return {id.seed, id.network + static_cast<std::uint32_t>(slice), id.layer, id.stream};
}

// Numbers: DealtNormals, DealtUniforms or DealtSigns.
template <class Numbers>
IGB_HD Numbers dealt(const StreamId& id, std::int64_t slice, std::int64_t row, std::int64_t counter) {
    return Numbers(
        normal_words(network_of(id, slice), static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(counter)));
}

template <class T>
struct DealtNormals {
    static constexpr std::int64_t parts = NormalLayout<T>::normals, bits = 1, block = dealt_lanes * parts;

    IGB_HD explicit DealtNormals(const PhiloxWords& w) {
        if constexpr (std::is_same_v<T, float>) {
            pairs_[0] = box_muller(w.x0, w.x1);
            pairs_[1] = box_muller(w.x2, w.x3);
        } else {
            pairs_[0] = box_muller(joined(w.x0, w.x1), joined(w.x2, w.x3));
        }
    }

    IGB_HD T operator()(std::int64_t part, std::int64_t = 0) const {
        return part % 2 == 0 ? pairs_[part / 2].first : pairs_[part / 2].second;
    }

private:
    NormalPair<T> pairs_[NormalLayout<T>::normals / 2];
};

template <class T>
struct DealtUniforms {
    static constexpr std::int64_t parts = NormalLayout<T>::normals, bits = 1, block = dealt_lanes * parts;

    IGB_HD explicit DealtUniforms(const PhiloxWords& w) : words_(w) {}

    IGB_HD T operator()(std::int64_t part, std::int64_t = 0) const {
        if constexpr (std::is_same_v<T, float>) {
            return uniform_weight(part == 0 ? words_.x0 : part == 1 ? words_.x1 : part == 2 ? words_.x2 : words_.x3);
        } else {
            return uniform_weight(part == 0 ? joined(words_.x0, words_.x1) : joined(words_.x2, words_.x3));
        }
    }

private:
    PhiloxWords words_;
};

template <class T>
struct DealtSigns {
    static constexpr std::int64_t parts = 4, bits = RademacherLayout::bits, block = RademacherLayout::block;

    IGB_HD explicit DealtSigns(const PhiloxWords& w) : words_(w) {}

    IGB_HD T operator()(std::int64_t part, std::int64_t bit) const {
        const std::uint32_t word = part == 0 ? words_.x0 : part == 1 ? words_.x1 : part == 2 ? words_.x2 : words_.x3;
        return rademacher_weight<T>(word, static_cast<std::uint32_t>(bit));
    }

private:
    PhiloxWords words_;
};

}  // namespace igb::inline IGB_ISA
