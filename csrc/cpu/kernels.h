// The kernels that are compiled once per instruction set, as a table of function pointers. CMake compiles each of their
// files (cmake/instruction_sets.cmake lists them) for every supported set with IGB_ISA naming it; dispatch.cpp picks
// the table when the library loads.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/activation_kind.h"
#include "core/gaussian_moments.h"
#include "core/hermite.h"
#include "core/stream.h"
#include "cpu/activate.h"
#include "cpu/covariance_rows.h"
#include "cpu/table.h"

namespace igb {

// The expansion of phi^(m)(sqrt(q) z) in orthonormal Hermite polynomials h_n: E[f(u) f(v)] = sum_n f_n^2 c^n.
struct HermiteSeries {
    static constexpr int capacity = series_capacity;
    double q = -1.0;
    int derivative = -1, terms = 0;
    double f[capacity];        // f_n = E[f(z) h_n(z)]
    double norm2 = 0.0;        // E[f^2], of which the f_n^2 are the most
    double slope_norm2 = 0.0;  // q E[f'^2], of which the n f_n^2 are the most; inf where that does not exist
};

struct SeriesCache {
    HermiteSeries a, b;
};

// What nodes draw their phi from, each with its weight, and whether their largest or their smallest value counts.
struct TableShare {
    double weight;
    TableView table;
};

struct TableMixture {
    const TableShare* shares;
    int count;
    bool largest;
};

// Of numbers T.
template <class T>
struct TileKernels {
    // normals.cpp: standard normals of one row, columns [begin, begin + count); begin a multiple of 64.
    void (*normals)(const StreamId&, std::uint32_t row, std::uint64_t begin, std::uint64_t count, T* out);
    // weights.cpp: likewise, independent weights of variance one.
    void (*weights)(WeightLaw, const StreamId&, std::uint32_t row, std::uint64_t begin, std::uint64_t count, T* out);

    // activate.cpp: what happens to a tile between two layers (activate.h).
    TileNorms (*activate)(const PhiView&, std::int64_t nodes, std::int64_t inputs, T* tile, std::int64_t ld,
                          const TileUnits& in, const TileUnits& out, const NodeMoments&, const double* gains,
                          T* slopes);
    void (*sum_nodes)(std::int64_t nodes, std::int64_t inputs, const T* tile, std::int64_t ld, const NodeMoments&);
    TileNorms (*pool)(PoolKind, const TileShape&, T* tile, const TileUnits&, T* shares);
    void (*map_columns)(const ColumnMap* maps, std::int64_t nodes, std::int64_t inputs, T* tile, std::int64_t ld);
    void (*sum_columns)(std::int64_t nodes, std::int64_t inputs, const T* tile, std::int64_t ld, double* sums);
    void (*multiply)(std::int64_t nodes, std::int64_t inputs, const T* a, std::int64_t lda, const T* b,
                     std::int64_t ldb, T* out, std::int64_t ldo, const double* weights, double* squares);
};

struct Kernels {
    const char* isa;

    TileKernels<float> tile_f32;
    TileKernels<double> tile_f64;

    // expectations.cpp: Gaussian expectations, to near machine precision.
    SingleMoments (*single_moments)(const Activation&, double q);
    SplitMoments (*split_moments)(const Activation&, double sigma_mu2, double sigma_y2);
    double (*pair_moment)(const Activation&, int derivative, double q_aa, double q_bb, double c);

    // tabulated.cpp: the same for a phi given as a table; of the largest of `size` nodes, where phi is monotone.
    SingleMoments (*table_single)(const TableView&, int size, double q);
    SplitMoments (*table_split)(const TableView&, int size, double sigma_mu2, double sigma_y2, SeriesCache&);
    double (*table_pair)(const TableView&, int size, int derivative, double q_aa, double q_bb, double c, SeriesCache&);
    // The same for any phi, of the largest or smallest of `size` nodes; nan where it cannot be told to ten digits.
    SingleMoments (*level_single)(const TableMixture&, int size, double q);
    SplitMoments (*level_split)(const TableMixture&, int size, double sigma_mu2, double sigma_y2);
    double (*level_pair)(const TableMixture&, int size, int derivative, double q_aa, double q_bb, double c);
    void (*table_values)(const TableView&, int derivative, std::int64_t count, const double* x, double* out);

    const CovarianceKernels* covariance;  // covariance_rows.cpp
};

const Kernels& kernels();  // the table in use

template <class T>
const TileKernels<T>& tile_kernels() {
    if constexpr (std::is_same_v<T, float>) {
        return kernels().tile_f32;
    } else {
        return kernels().tile_f64;
    }
}

template <class T>
void fill_normals(const StreamId& id, std::uint32_t row, std::int64_t begin, std::int64_t count, T* out) {
    tile_kernels<T>().normals(id, row, static_cast<std::uint64_t>(begin), static_cast<std::uint64_t>(count), out);
}

template <class T>
void fill_weights(WeightLaw law, const StreamId& id, std::uint32_t row, std::int64_t begin, std::int64_t count,
                  T* out) {
    tile_kernels<T>().weights(law, id, row, static_cast<std::uint64_t>(begin), static_cast<std::uint64_t>(count), out);
}

template <class T>
TileNorms activate_tile(const PhiView& phi, std::int64_t nodes, std::int64_t inputs, T* tile, std::int64_t ld,
                        const TileUnits& in, const TileUnits& out, const NodeMoments& moments,
                        const double* gains = nullptr, std::type_identity_t<T>* slopes = nullptr) {
    return tile_kernels<T>().activate(phi, nodes, inputs, tile, ld, in, out, moments, gains, slopes);
}

template <class T>
void sum_tile(std::int64_t nodes, std::int64_t inputs, const T* tile, std::int64_t ld, const NodeMoments& moments) {
    tile_kernels<T>().sum_nodes(nodes, inputs, tile, ld, moments);
}

template <class T>
TileNorms pool_tile(PoolKind kind, const TileShape& shape, T* tile, const TileUnits& units,
                    std::type_identity_t<T>* shares = nullptr) {
    return tile_kernels<T>().pool(kind, shape, tile, units, shares);
}

template <class T>
void map_tile(const ColumnMap* maps, std::int64_t nodes, std::int64_t inputs, T* tile, std::int64_t ld) {
    tile_kernels<T>().map_columns(maps, nodes, inputs, tile, ld);
}

template <class T>
void add_column_sums(std::int64_t nodes, std::int64_t inputs, const T* tile, std::int64_t ld, double* sums) {
    tile_kernels<T>().sum_columns(nodes, inputs, tile, ld, sums);
}

template <class T>
void multiply_tiles(std::int64_t nodes, std::int64_t inputs, const T* a, std::int64_t lda,
                    const std::type_identity_t<T>* b, std::int64_t ldb, std::type_identity_t<T>* out, std::int64_t ldo,
                    const double* weights = nullptr, double* squares = nullptr) {
    tile_kernels<T>().multiply(nodes, inputs, a, lda, b, ldb, out, ldo, weights, squares);
}

bool select_isa(const char* name);              // "baseline", "avx2", "avx512"; false if this machine cannot run it
const char* const* available_isas(int* count);  // what this binary has and this machine runs, best last

}  // namespace igb
