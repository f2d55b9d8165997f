// The kernels that are compiled once per instruction set, as a table of function pointers. CMake compiles each of
// normals.cpp, activate.cpp, expectations.cpp and kernels.cpp for every supported set with IGB_ISA naming it;
// dispatch.cpp picks the table when the library loads.
#pragma once

#include <cstdint>

#include "core/activation_kind.h"
#include "core/stream.h"
#include "cpu/activate.h"

namespace igb {

// E over one Gaussian z of variance q: the moments that the mean-field recursions need.
struct SingleMoments {
    double mean;       // E[phi]
    double square;     // E[phi^2]
    double slope2;     // E[phi'^2]
    double square_dq;  // d E[phi^2] / d q
};

// The two halves of E[phi^2] for a node y = mu + e, mu ~ N(0, sigma_mu2), e ~ N(0, sigma_y2), each without cancellation:
// centre = E_mu[(E_e phi)^2] and spread = E_mu[Var_e phi]; centre + spread = E[phi^2].
struct SplitMoments {
    double centre;
    double spread;
};

struct Kernels {
    const char* isa;

    // normals.cpp: standard normals of one row, columns [begin, begin + count); begin a multiple of 64.
    void (*normals_f32)(const StreamId&, std::uint32_t row, std::uint64_t begin, std::uint64_t count, float* out);
    void (*normals_f64)(const StreamId&, std::uint32_t row, std::uint64_t begin, std::uint64_t count, double* out);

    // activate.cpp: the nonlinearity of one tile with its per-node statistics.
    TileNorms (*activate_f32)(const Activation&, std::int64_t nodes, std::int64_t inputs, float* tile, std::int64_t ld,
                              const TileUnits& in, const TileUnits& out, const NodeMoments&);
    TileNorms (*activate_f64)(const Activation&, std::int64_t nodes, std::int64_t inputs, double* tile, std::int64_t ld,
                              const TileUnits& in, const TileUnits& out, const NodeMoments&);

    // expectations.cpp: Gaussian expectations, to near machine precision.
    SingleMoments (*single_moments)(const Activation&, double q);
    SplitMoments (*split_moments)(const Activation&, double sigma_mu2, double sigma_y2);
    double (*pair_moment)(const Activation&, int derivative, double q_aa, double q_bb, double c);
};

const Kernels& kernels();  // the table in use

inline void fill_normals(const StreamId& id, std::uint32_t row, std::int64_t begin, std::int64_t count, float* out) {
    kernels().normals_f32(id, row, static_cast<std::uint64_t>(begin), static_cast<std::uint64_t>(count), out);
}

inline void fill_normals(const StreamId& id, std::uint32_t row, std::int64_t begin, std::int64_t count, double* out) {
    kernels().normals_f64(id, row, static_cast<std::uint64_t>(begin), static_cast<std::uint64_t>(count), out);
}

inline TileNorms activate_tile(const Activation& activation, std::int64_t nodes, std::int64_t inputs, float* tile,
                               std::int64_t ld, const TileUnits& in, const TileUnits& out, const NodeMoments& moments) {
    return kernels().activate_f32(activation, nodes, inputs, tile, ld, in, out, moments);
}

inline TileNorms activate_tile(const Activation& activation, std::int64_t nodes, std::int64_t inputs, double* tile,
                               std::int64_t ld, const TileUnits& in, const TileUnits& out, const NodeMoments& moments) {
    return kernels().activate_f64(activation, nodes, inputs, tile, ld, in, out, moments);
}

bool select_isa(const char* name);              // "baseline", "avx2", "avx512"; false if this machine cannot run it
const char* const* available_isas(int* count);  // what this binary has and this machine runs, best last

}  // namespace igb
