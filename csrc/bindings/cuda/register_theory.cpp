// Gaussian expectations and the recursion over layers on a GPU. Bytes that the kernels read are made here and copied to
// the device by Python.
#include <pybind11/stl.h>

#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/activation_names.h"
#include "bindings/cuda/on_device.h"
#include "bindings/cuda/register.h"
#include "core/hermite.h"
#include "cpu/table_rules.h"
#include "cuda/expectations.h"
#include "cuda/propagate.h"

namespace py = pybind11;

namespace igb::bindings {
namespace {

template <class T>
py::bytes bytes_of(const T* values, std::size_t count) {
    static_assert(std::is_trivially_copyable_v<T>);
    return {reinterpret_cast<const char*>(values), sizeof(T) * count};
}

py::bytes table_rules() {
    cuda::TableRules rules;
    const auto& cell = GaussLegendre::rule();
    const auto& strip = GaussLegendreOf<strip_nodes>::rule();
    for (int i = 0; i < cell_nodes; ++i) {
        rules.x[i] = cell.x[i];
        rules.w[i] = cell.w[i];
        for (int k = 0; k < cuda::TableRules::tails; ++k)
            rules.tail[k][i] = cell.coefficient[cell_nodes - cuda::TableRules::tails + k][i];
    }
    for (int i = 0; i < strip_nodes; ++i) {
        rules.strip_x[i] = strip.x[i];
        rules.strip_w[i] = strip.w[i];
    }
    for (int n = 0; n < series_capacity; ++n) {
        rules.forward[n] = hermite_forward(n);
        rules.back[n] = hermite_back(n);
    }
    return bytes_of(&rules, 1);
}

// (weight, name, parameter), or (weight, "table", 0) with the addresses of the edges, of three series, of three rows of
// bounds' logs, of kinks and jumps, all in one array `numbers`, and of the three rows of by_x.
using Share = std::tuple<double, std::string, double, Address, Address, int, int, int, bool>;

TableView view_at(Address numbers, Address by_x, int panels, int kinks, int parity, bool one_sign,
                  const double* (&log_bounds)[3]) {
    const double* at = at_address<const double>(numbers);
    const auto take = [&](int count) {
        const double* const here = at;
        at += count;
        return here;
    };
    TableView table{};
    table.panels = panels;
    table.edges = take(panels + 1);
    for (const double*& series : table.series) series = take(panels * table_terms);
    for (const double*& row : log_bounds) row = take(panels);
    table.kink_count = kinks;
    table.kinks = take(kinks);
    table.jumps = take(kinks);
    for (int m = 0; m < 3; ++m) table.by_x[m] = at_address<const std::uint8_t>(by_x) + m * panels;
    table.parity = parity;
    table.one_sign = one_sign;
    return table;
}

py::bytes theory_shares(const std::vector<Share>& given) {
    std::vector<cuda::TheoryShare> shares;
    for (const auto& [weight, kind, parameter, numbers, by_x, panels, kinks, parity, one_sign] : given) {
        cuda::TheoryShare share{};
        share.weight = weight;
        share.tabulated = kind == "table";
        if (share.tabulated) {
            share.table = view_at(numbers, by_x, panels, kinks, parity, one_sign, share.log_bounds);
        } else {
            share.activation = activation_of(kind, parameter);
        }
        shares.push_back(share);
    }
    return bytes_of(shares.data(), shares.size());
}

// What the shares are (TheoryKind), their number and address, the nodes of an average pool (0: none), the rules.
using Phi = std::tuple<int, int, Address, int, Address>;

cuda::TheoryPhi phi_of(const Phi& given) {
    const auto& [kind, count, shares, average, rules] = given;
    return {at_address<const cuda::TheoryShare>(shares), count, average, static_cast<cuda::TheoryKind>(kind),
            at_address<const cuda::TableRules>(rules)};
}

void single(int device, Address stream, const Phi& phi, std::int64_t count, Address q, Address out) {
    const OnDevice here(device);
    cuda::single_moments(stream_at(stream), phi_of(phi), count, at_address<const double>(q),
                         at_address<SingleMoments>(out));
}

void split(int device, Address stream, const Phi& phi, std::int64_t count, Address sigma_mu2, Address sigma_y2,
           Address out) {
    const OnDevice here(device);
    cuda::split_moments(stream_at(stream), phi_of(phi), count, at_address<const double>(sigma_mu2),
                        at_address<const double>(sigma_y2), at_address<SplitMoments>(out));
}

void pair(int device, Address stream, const Phi& phi, int derivative, std::int64_t count, Address q_aa, Address q_bb,
          Address c, Address out) {
    const OnDevice here(device);
    cuda::pair_moments(stream_at(stream), phi_of(phi), derivative, count, at_address<const double>(q_aa),
                       at_address<const double>(q_bb), at_address<const double>(c), at_address<double>(out));
}

void propagate(int device, Address stream, const Phi& phi, std::int64_t count, Address sigma_w2, Address sigma_b2,
               double residual, bool layernorm, double q_max, std::int64_t depth, Address state, Address layers,
               Address out, std::int64_t end) {
    const OnDevice here(device);
    const cuda::TrajectoryBatch batch{count,
                                      at_address<const double>(sigma_w2),
                                      at_address<const double>(sigma_b2),
                                      residual,
                                      layernorm,
                                      q_max,
                                      depth,
                                      at_address<double>(state),
                                      at_address<std::int64_t>(layers),
                                      at_address<double>(out)};
    cuda::propagate(stream_at(stream), phi_of(phi), batch, end);
}

}  // namespace

void register_theory(py::module_& m) {
    m.def("table_rules", &table_rules);
    m.def("theory_shares", &theory_shares);
    m.def("single_moments", &single);
    m.def("split_moments", &split);
    m.def("pair_moments", &pair);
    m.def("propagate", &propagate);
}

}  // namespace igb::bindings
