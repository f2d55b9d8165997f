// The random numbers themselves: Philox4x32-10 on given counters, and the normals of any part of any array that a
// simulation draws from.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <utility>

#include "bindings/register.h"
#include "core/normal.h"
#include "core/philox.h"
#include "cpu/aligned.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace py = pybind11;

namespace igb::bindings {
namespace {

using Words = py::array_t<std::uint32_t, py::array::c_style | py::array::forcecast>;

Words philox(const Words& counter, const Words& key) {
    if (counter.ndim() != 2 || counter.shape(1) != 4) throw std::invalid_argument("counter must have the shape (n, 4)");
    if (key.ndim() != 1 || key.shape(0) != 2) throw std::invalid_argument("key must have the shape (2,)");
    Words result({counter.shape(0), py::ssize_t{4}});
    const auto in = counter.unchecked<2>();
    auto out = result.mutable_unchecked<2>();
    for (py::ssize_t i = 0; i < counter.shape(0); ++i) {
        const PhiloxWords words = philox4x32({in(i, 0), in(i, 1), in(i, 2), in(i, 3)}, {key.at(0), key.at(1)});
        out(i, 0) = words.x0;
        out(i, 1) = words.x1;
        out(i, 2) = words.x2;
        out(i, 3) = words.x3;
    }
    return result;
}

std::uint32_t stream_named(const std::string& name) {
    constexpr std::array<std::pair<const char*, Stream>, 4> streams{
        {{"weights", Stream::weights}, {"biases", Stream::biases}, {"gram", Stream::gram}, {"inputs", Stream::inputs}}};
    for (const auto& [known, stream] : streams) {
        if (name == known) return static_cast<std::uint32_t>(stream);
    }
    throw std::invalid_argument("stream must be weights, biases, gram or inputs, got " + name);
}

// A block of an array of normals: rows [first_row, first_row + rows), columns likewise.
struct Block {
    Size rows, columns, first_row, first_column;
};

template <class T>
void check(const Block& block, std::uint32_t layer) {
    const auto require = [](bool holds, const std::string& message) {
        if (!holds) throw std::invalid_argument(message);
    };
    constexpr Size most_rows = Size{1} << 32, most_columns = static_cast<Size>(NormalLayout<T>::columns);
    require(layer < (1u << 24), "layer must be below 2^24, got " + std::to_string(layer));
    require(block.rows >= 0, "rows must not be negative, got " + std::to_string(block.rows));
    require(block.columns >= 0, "columns must not be negative, got " + std::to_string(block.columns));
    require(block.first_row >= 0 && block.first_row <= most_rows && block.rows <= most_rows - block.first_row,
            "first_row + rows must be from 0 to 2^32, got " + std::to_string(block.first_row) + " + " +
                std::to_string(block.rows));
    require(block.first_column >= 0 && block.first_column <= most_columns &&
                block.columns <= most_columns - block.first_column,
            "first_column + columns must be from 0 to " + std::to_string(most_columns) + ", got " +
                std::to_string(block.first_column) + " + " + std::to_string(block.columns));
}

// Columns are drawn from multiples of 64 on: a piece that begins elsewhere goes through a buffer.
template <class T>
void fill_piece(const StreamId& id, std::uint32_t row, Size begin, Size count, T* out) {
    constexpr Size unit = 64;
    const Size skipped = begin % unit;
    if (skipped != 0) {
        alignas(64) T head[unit];
        const Size taken = std::min(unit - skipped, count);
        fill_normals(id, row, begin - skipped, skipped + taken, head);
        std::copy(head + skipped, head + skipped + taken, out);
        begin += taken;
        count -= taken;
        out += taken;
    }
    if (count > 0) fill_normals(id, row, begin, count, out);
}

template <class T>
py::array_t<T> normals_of(const StreamId& id, const Block& block) {
    check<T>(block, id.layer);
    py::array_t<T> result({block.rows, block.columns});
    T* const out = result.mutable_data();
    const py::gil_scoped_release release;
    constexpr Size piece = Size{1} << 14;  // columns at a time: a long row is shared out too
    const Size pieces = (block.columns + piece - 1) / piece;
    parallel_for(at(block.rows * pieces), [&](std::size_t index, int) {
        const Size row = static_cast<Size>(index) / pieces;
        const Size column = static_cast<Size>(index) % pieces * piece;
        fill_piece(id, static_cast<std::uint32_t>(block.first_row + row), block.first_column + column,
                   std::min(piece, block.columns - column), out + row * block.columns + column);
    });
    return result;
}

py::array normals(std::uint64_t seed, std::uint32_t network, std::uint32_t layer, const std::string& stream, Size rows,
                  Size columns, const std::string& dtype, Size first_row, Size first_column) {
    const StreamId id{seed, network, layer, stream_named(stream)};
    const Block block{rows, columns, first_row, first_column};
    if (dtype == "float32") return normals_of<float>(id, block);
    if (dtype == "float64") return normals_of<double>(id, block);
    throw std::invalid_argument("dtype must be float32 or float64, got " + dtype);
}

}  // namespace

void register_sampling(py::module_& m) {
    m.def("philox4x32", &philox, py::arg("counter"), py::arg("key"),
          "Philox4x32-10 of each row of counter (n, 4) under one key (2,).");
    m.def("normals", &normals, py::kw_only(), py::arg("seed"), py::arg("network"), py::arg("layer"), py::arg("stream"),
          py::arg("rows"), py::arg("columns"), py::arg("dtype"), py::arg("first_row") = 0, py::arg("first_column") = 0,
          "Standard normals (rows, columns): a part of the array that a simulation draws from.");
}

}  // namespace igb::bindings
