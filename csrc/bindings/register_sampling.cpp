// The random numbers themselves: Philox4x32-10 on given counters, the normals of any part of any array that a
// simulation draws from, and the weights of its layers.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <utility>

#include "bindings/register.h"
#include "bindings/watched.h"
#include "bindings/weight_names.h"
#include "core/normal.h"
#include "core/philox.h"
#include "cpu/aligned.h"
#include "cpu/haar.h"
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

// fill(row, begin, count, out) for all of (rows, columns), counted from 0, in pieces: a long row is shared out too.
template <class T, class Fill>
py::array_t<T> filled(Size rows, Size columns, Fill&& fill) {
    py::array_t<T> result({rows, columns});
    T* const out = result.mutable_data();
    const py::gil_scoped_release release;
    constexpr Size piece = Size{1} << 14;
    const Size pieces = (columns + piece - 1) / piece;
    parallel_for(at(rows * pieces), [&](std::size_t index, int) {
        const Size row = static_cast<Size>(index) / pieces, column = static_cast<Size>(index) % pieces * piece;
        fill(row, column, std::min(piece, columns - column), out + row * columns + column);
    });
    return result;
}

template <class T>
py::array_t<T> normals_of(const StreamId& id, const Block& block) {
    check<T>(block, id.layer);
    return filled<T>(block.rows, block.columns, [&](Size row, Size column, Size count, T* out) {
        fill_piece(id, static_cast<std::uint32_t>(block.first_row + row), block.first_column + column, count, out);
    });
}

py::array normals(std::uint64_t seed, std::uint32_t network, std::uint32_t layer, const std::string& stream, Size rows,
                  Size columns, const std::string& dtype, Size first_row, Size first_column) {
    const StreamId id{seed, network, layer, stream_named(stream)};
    const Block block{rows, columns, first_row, first_column};
    if (dtype == "float32") return normals_of<float>(id, block);
    if (dtype == "float64") return normals_of<double>(id, block);
    throw std::invalid_argument("dtype must be float32 or float64, got " + dtype);
}

// Orthonormal columns or, of a wide matrix, rows: the columns of Q, as they lie, or those of Q^T as the rows of Q.
template <class T>
py::array orthogonal_weights(const StreamId& id, Size rows, Size columns) {
    const bool wide = rows < columns;
    const Size order = std::max(rows, columns), vectors = std::min(rows, columns);
    py::array_t<T, py::array::f_style> basis({order, vectors});
    T* const x = basis.mutable_data();
    run_watched(py::none(), [&](Monitor& monitor) {
        std::fill(x, x + order * vectors, T{0});
        for (Size i = 0; i < vectors; ++i) x[i + i * order] = T{1};
        apply_haar(id, order, wide, vectors, x, order, max_workers(), monitor, wide ? all_columns : vectors);
    });
    return wide ? basis.attr("T").template cast<py::array>() : py::array(std::move(basis));
}

template <class T>
py::array weights_of(WeightLaw law, const StreamId& id, Size rows, Size columns) {
    check<T>({rows, columns, 0, 0}, id.layer);
    if (law == WeightLaw::orthogonal) return orthogonal_weights<T>(id, rows, columns);
    return filled<T>(rows, columns, [&](Size row, Size column, Size count, T* out) {
        fill_weights(law, id, static_cast<std::uint32_t>(row), column, count, out);
    });
}

py::array weights(const std::string& law, std::uint64_t seed, std::uint32_t network, std::uint32_t layer, Size rows,
                  Size columns, const std::string& dtype) {
    const StreamId id{seed, network, layer, static_cast<std::uint32_t>(Stream::weights)};
    if (dtype == "float32") return weights_of<float>(weight_law_of(law), id, rows, columns);
    if (dtype == "float64") return weights_of<double>(weight_law_of(law), id, rows, columns);
    throw std::invalid_argument("dtype must be float32 or float64, got " + dtype);
}

}  // namespace

void register_sampling(py::module_& m) {
    m.def("philox4x32", &philox, py::arg("counter"), py::arg("key"),
          "Philox4x32-10 of each row of counter (n, 4) under one key (2,).");
    m.def("normals", &normals, py::kw_only(), py::arg("seed"), py::arg("network"), py::arg("layer"), py::arg("stream"),
          py::arg("rows"), py::arg("columns"), py::arg("dtype"), py::arg("first_row") = 0, py::arg("first_column") = 0,
          "Standard normals (rows, columns): a part of the array that a simulation draws from.");
    m.def(
        "weights", &weights, py::kw_only(), py::arg("law"), py::arg("seed"), py::arg("network"), py::arg("layer"),
        py::arg("rows"), py::arg("columns"), py::arg("dtype"),
        "The weights (rows, columns) of one layer before their scale: independent, of variance one, or the upper left "
        "part of the orthogonal matrix of order max(rows, columns).");
}

}  // namespace igb::bindings
