// The kernels of cuda/activate.cu, run on the host, against the CPU's: every activation, tables, norms, batches,
// slopes, pools before phi, at sizes that are no multiple of anything; differences relative to themselves, down to the
// smallest numbers and around saturated origins.
#include "cuda/activate.cu"

#include <functional>
#include <stdexcept>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/table.h"
#include "layer_tiles.h"

namespace {

using namespace igb::test;
using igb::Activation;
using igb::ActivationKind;
using igb::PoolKind;
using igb::cuda::ActivateTask;
using igb::cuda::TileBatch;

#ifdef IGB_HOST_THREADS
constexpr bool few = true;
#else
constexpr bool few = false;
#endif

// ---- phi ------------------------------------------------------------------------------------------------------------

struct Phi {
    Activation activation{ActivationKind::linear};
    const igb::Table* table = nullptr;
    double ulps = 40.0;    // of the difference, both sides' errors together,
    double of_step = 0.0;  // and as many of this times d: where phi itself cancels on the way
};

using Function = std::function<long double(long double)>;

// The Chebyshev series of phi and of its slope on equal panels.
igb::Table tabulated(const Function& phi, const Function& slope, double low, double high, int panels) {
    constexpr int nodes = 32;
    const long double pi = std::acos(-1.0L);
    igb::Table table;
    for (int p = 0; p <= panels; ++p) table.edges.push_back(low + (high - low) * p / panels);
    for (int m = 0; m < 3; ++m) {
        table.series[m].by_x.assign(at(panels), 0);
        for (int p = 0; p < panels; ++p) {
            const long double middle = (static_cast<long double>(table.edges[at(p)]) + table.edges[at(p + 1)]) / 2;
            const long double half = (static_cast<long double>(table.edges[at(p + 1)]) - table.edges[at(p)]) / 2;
            for (int k = 0; k < igb::table_terms; ++k) {
                long double sum = 0;
                for (int i = 0; i < nodes; ++i) {
                    const long double angle = pi * (i + 0.5L) / nodes;
                    sum += (m == 1 ? slope : phi)(middle + half * std::cos(angle)) * std::cos(k * angle);
                }
                table.series[m].coefficients.push_back(static_cast<double>(sum * (k == 0 ? 1 : 2) / nodes));
            }
        }
    }
    table.q_max = 1.0;
    table.finish();
    return table;
}

const igb::Table& sine() {
    static const igb::Table table = tabulated([](long double x) { return std::sin(x); },
                                              [](long double x) { return std::cos(x); }, -40.0, 40.0, 160);
    return table;
}

const igb::Table& logistic() {
    static const igb::Table table = tabulated(
        [](long double x) { return 1 / (1 + std::exp(-x)); },
        [](long double x) { return std::exp(-x) / ((1 + std::exp(-x)) * (1 + std::exp(-x))); }, -60.0, 60.0, 120);
    return table;
}

// |x| with a jump of 1/2 at 1, and, next to zero, x^2 / 2 held by_x: by hand.
const igb::Table& broken() {
    static const igb::Table table = [] {
        igb::Table t;
        t.edges = {-64.0, 0.0, 1.0, 64.0};
        for (int m = 0; m < 3; ++m) {
            t.series[m].coefficients.assign(3 * igb::table_terms, 0.0);
            t.series[m].by_x = {0, static_cast<std::uint8_t>(m < 2 ? 1 : 0), 0};
        }
        const auto set = [&](int m, std::size_t panel, double c0, double c1) {
            t.series[m].coefficients[panel * igb::table_terms] = c0;
            t.series[m].coefficients[panel * igb::table_terms + 1] = c1;
        };
        set(0, 0, 32.0, -32.0);  // -x
        set(1, 0, -1.0, 0.0);
        set(0, 1, 0.25, 0.25);  // x (x / 2)
        set(1, 1, 1.0, 0.0);    // x (1)
        set(0, 2, 32.5, 31.5);  // x
        set(1, 2, 1.0, 0.0);
        t.kinks = {0.0, 1.0};
        t.jumps = {0.0, 0.5};
        t.q_max = 1.0;
        t.finish();
        return t;
    }();
    return table;
}

// Those that differ in what they do to memory are enough for the sanitizers.
std::vector<Phi> all_phis() {
    if (few)
        return {{{ActivationKind::tanh}},
                {{ActivationKind::linear}, &sine(), 200.0, 200.0},
                {{ActivationKind::linear}, &broken(), 40.0, 40.0}};
    return {{{ActivationKind::linear}},
            {{ActivationKind::relu}},
            {{ActivationKind::leaky_relu, 0.2}},
            {{ActivationKind::leaky_relu, -1.0}},
            {{ActivationKind::tanh}},
            {{ActivationKind::erf}},
            {{ActivationKind::linear}, &sine(), 200.0, 200.0},
            {{ActivationKind::linear}, &logistic(), 400.0},
            {{ActivationKind::linear}, &broken(), 40.0, 40.0}};
}

// ---- One batch ------------------------------------------------------------------------------------------------------

template <class T>
struct Case {
    TileBatch batch;
    std::vector<T> tile;
    std::vector<double> in, out;
    std::vector<double> maps, gains;  // or empty
    bool slopes = true;
    PoolKind pool = PoolKind::none;  // before phi

    // What the rounding of a map does to x, in epsilons: of the origin and of the difference, from terms that may
    // cancel.
    double map_slack(std::int64_t g, std::int64_t a, std::int64_t row) const {
        if (maps.empty() || a == 0) return 0.0;
        const double* const first = maps.data() + 3 * g * batch.columns;
        const double* const map = first + 3 * a;
        const double y = static_cast<double>(tile[at(place(batch, g, 0, row))]);
        const double d = static_cast<double>(tile[at(place(batch, g, a, row))]);
        const double of_origin = (std::abs(first[0] * y) + std::abs(first[2])) * in[at(2 * g)];
        const double of_difference = std::abs(map[0] * d) + std::abs(map[1] * y) + std::abs(map[2]);
        return 2.0 * (2.0 * of_origin + of_difference * in[at(2 * g + 1)]) / out[at(2 * g + 1)];
    }
};

template <class T>
struct Results {
    std::vector<T> tile;
    Output<T> slopes;
    Output<double> origin, sum, sum2, origin_slope2, slope2, norms;
    std::vector<std::int32_t> beyond;

    explicit Results(const Case<T>& of, std::int64_t rows)
        : tile(of.tile), slopes(of.batch.networks * of.batch.columns * of_members(of, rows)),
          origin(of.batch.networks * of_members(of, rows)), sum(origin), sum2(origin),
          origin_slope2(of.batch.networks * rows), slope2(origin_slope2), norms(2 * of.batch.networks),
          beyond(at(of.batch.networks) + 1, 0) {}

private:
    static std::int64_t of_members(const Case<T>& of, std::int64_t rows) {
        return of.pool == PoolKind::none ? rows : of.batch.slab.rows();
    }
};

template <class T>
Results<T> run(const Phi& phi, const Case<T>& given, std::int64_t rows) {
    Results<T> r(given, rows);
    Output<double> scratch(igb::cuda::activate_scratch(given.batch, given.pool, rows));
    ActivateTask<T> task{};
    task.batch = given.batch;
    task.pool = given.pool;
    task.rows = rows;
    task.tile = r.tile.data();
    task.slopes = given.slopes ? r.slopes.get() : nullptr;
    task.maps = given.maps.empty() ? nullptr : given.maps.data();
    task.gains = given.gains.empty() ? nullptr : given.gains.data();
    task.in = given.in.data();
    task.out = given.out.data();
    task.origin = r.origin.get();
    task.sum = r.sum.get();
    task.sum2 = r.sum2.get();
    task.origin_slope2 = r.origin_slope2.get();
    task.slope2 = r.slope2.get();
    task.norms = r.norms.get();
    task.beyond = r.beyond.data();
    task.scratch = scratch.get();
    const igb::TableView view = phi.table != nullptr ? phi.table->view() : igb::TableView{};
    igb::cuda::activate(nullptr, phi.activation, phi.table != nullptr ? &view : nullptr, task);
    CHECK(scratch.end_stands() && r.slopes.end_stands() && r.origin.end_stands() && r.sum.end_stands());
    CHECK(r.sum2.end_stands() && r.origin_slope2.end_stands() && r.slope2.end_stands() && r.norms.end_stands());
    CHECK(r.tile.back() == T{1000} && r.beyond.back() == 0);
    return r;
}

// What the CPU makes of one member of one network, whose rows begin at `row`; or, with a pool, of all of them.
template <class T>
struct Twin {
    std::vector<T> tile, slopes, shares;
    std::vector<double> origin, sum, sum2, origin_slope2, slope2;
    igb::TileNorms norms;

    Twin(const Phi& phi, const Case<T>& given, std::int64_t g, std::int64_t row)
        : tile(given.tile.begin() + place(given.batch, g, 0, 0),
               given.tile.begin() + place(given.batch, g, 0, 0) + given.batch.between()),
          slopes(tile.size()), shares(tile.size()), origin(at(given.batch.slab.rows())), sum(origin), sum2(origin),
          origin_slope2(origin), slope2(origin) {
        const TileBatch& batch = given.batch;
        const std::int64_t nodes = batch.slab.nodes, columns = batch.columns, ld = batch.slab.rows();
        T* const rows = tile.data() + row;
        const igb::NodeMoments all{origin.data() + row, sum.data() + row, sum2.data() + row, origin_slope2.data() + row,
                                   slope2.data() + row};
        igb::NodeMoments to = all;
        std::vector<double> unused(at(ld));
        const bool pooled = given.pool != PoolKind::none;
        const igb::TileUnits in{given.in[at(2 * g)], given.in[at(2 * g + 1)]};
        if (pooled || !given.maps.empty()) {
            std::vector<igb::ColumnMap> maps;
            for (std::int64_t a = 0; !given.maps.empty() && a < columns; ++a) {
                const double* const map = given.maps.data() + 3 * (g * columns + a);
                maps.push_back({map[0], map[1], map[2]});
            }
            for (std::int64_t from = 0; from < (pooled ? ld : 1); from += batch.slab.member) {
                igb::sum_tile(nodes, columns, rows + from, ld,
                              {all.origin + from, all.sum + from, all.sum2 + from, nullptr, nullptr});
                if (!maps.empty()) igb::map_tile(maps.data(), nodes, columns, rows + from, ld);
            }
            to.origin = to.sum = to.sum2 = unused.data();
        }
        if (pooled) {
            const igb::TileShape shape{nodes, columns, ld, batch.slab.members, batch.slab.member};
            igb::pool_tile(given.pool, shape, rows, in, shares.data());
        }
        const igb::TableView view = phi.table != nullptr ? phi.table->view() : igb::TableView{};
        const igb::PhiView of{phi.activation, phi.table != nullptr ? &view : nullptr};
        const double* const gains = given.gains.empty() ? nullptr : given.gains.data() + g * columns;
        norms = igb::activate_tile(of, nodes, columns, rows, ld, in, {given.out[at(2 * g)], given.out[at(2 * g + 1)]},
                                   to, gains, slopes.data() + row);
    }
};

template <class T>
void same_as_cpu(const Phi& phi, const Case<T>& given) {
    const TileBatch& batch = given.batch;
    const std::int64_t rows = batch.slab.rows(), columns = batch.columns;
    const Results<T> got = run(phi, given, rows);
    for (std::int64_t g = 0; g < batch.networks; ++g) {
        double origin_norm = 0.0, difference_norm = 0.0;
        bool beyond = false;
        const double to_out = given.in[at(2 * g + 1)] / given.out[at(2 * g + 1)];
        for (std::int64_t s = 0; s < batch.slab.members; ++s) {
            const Twin<T> want(phi, given, g, s * batch.slab.member);
            origin_norm += want.norms.origin;
            difference_norm += want.norms.difference;
            beyond = beyond || want.norms.beyond_table;
            for (std::int64_t i = 0; i < batch.slab.nodes; ++i) {
                const std::int64_t row = s * batch.slab.member + i, node = g * rows + row;
                double sizes = 0.0;
                for (std::int64_t a = 0; a < columns; ++a) {
                    const std::size_t here = at(a * rows + row);
                    const double d = static_cast<double>(given.tile[at(place(batch, g, a, row))]);
                    const double scale = given.maps.empty() || a == 0 ? 1.0 : given.maps[at(3 * (g * columns + a))];
                    const double x = static_cast<double>(want.tile[here]);
                    const double steep = a == 0 ? phi.ulps * (std::abs(x) + 1.0 / given.out[at(2 * g)])
                                                : phi.of_step * std::abs(scale * d * to_out);
                    const double mapped = given.map_slack(g, a, row);
                    CHECK_CLOSE(got.tile[at(place(batch, g, a, row))], x,
                                epsilon<T> * (phi.ulps * std::abs(x) + steep + mapped) + 4.0 * tiniest<T>);
                    const double slope = static_cast<double>(want.slopes[here]);
                    const double gain = given.gains.empty() ? 1.0 : given.gains[at(g * columns + a)];
                    const double slope_slack = given.maps.empty() ? 1.0 : 8.0;
                    if (given.slopes)
                        CHECK_CLOSE(got.slopes[place(batch, g, a, row)], slope,
                                    epsilon<T> * slope_slack * (phi.ulps + phi.of_step) * gain + tiniest<T>);
                    sizes += a > 0 ? std::abs(d) : 0.0;
                }
                const double rounding = 140.0 * epsilon<T>;
                CHECK(got.origin[node] == want.origin[at(row)]);
                CHECK_CLOSE(got.sum[node], want.sum[at(row)], rounding * sizes);
                CHECK_CLOSE(got.sum2[node], want.sum2[at(row)], rounding * want.sum2[at(row)] + 70 * tiniest<T>);
                const double slopes2 = want.slope2[at(row)], first2 = want.origin_slope2[at(row)];
                const double many = 4.0 * (phi.ulps + phi.of_step) * epsilon<T> * (given.maps.empty() ? 1.0 : 8.0);
                const double gain = given.gains.empty() ? 1.0 : 4.0;
                CHECK_CLOSE(got.slope2[node], slopes2,
                            rounding * slopes2 + many * static_cast<double>(columns) * gain * gain + tiniest<T>);
                CHECK_CLOSE(got.origin_slope2[node], first2, many * (first2 + gain * gain));
            }
        }
        CHECK_CLOSE(got.norms[2 * g], origin_norm, 200 * epsilon<T> * (origin_norm + 1e-3));
        CHECK_CLOSE(got.norms[2 * g + 1], difference_norm,
                    (200.0 + 2.0 * (phi.ulps + phi.of_step)) * epsilon<T> * difference_norm + 1e3 * tiniest<T>);
        CHECK((got.beyond[at(g)] != 0) == beyond);
    }
}

template <class T>
Case<T> random_case(const TileBatch& batch, const std::function<double()>& origin, const std::function<double()>& step,
                    bool normed) {
    Case<T> made{batch, {}, {}, {}, {}, {}};
    // Units are powers of two; the origin is in units of 1/8.
    made.tile = random_tiles<T>(batch, [&] { return 8.0 * origin(); }, [&] { return 32.0 * step(); });
    for (std::int64_t g = 0; g < batch.networks; ++g) {
        const double more = g % 2 == 0 ? 1.0 : 0.5;
        made.in.insert(made.in.end(), {0x1p-3, 0x1p-5 * more});
        made.out.insert(made.out.end(), {0x1p2, 0x1p-4 * more});
        for (std::int64_t a = 0; normed && a < batch.columns; ++a) {
            made.maps.insert(made.maps.end(), {1.0 + 0.25 * normal(), a == 0 ? 0.0 : 0.01 * normal(), 0.1 * normal()});
            made.gains.push_back(std::exp(0.4 * normal()));
            if (made.gains.back() > 4.0) made.gains.back() = 4.0;
        }
    }
    return made;
}

// ---- All of them ----------------------------------------------------------------------------------------------------

template <class T>
void every_phi() {
    const double smallest = std::is_same_v<T, float> ? 1e-30 : 1e-290;
    const auto any_step = [=] { return of_any_size(smallest, 10.0); };
    const auto saturated = [] { return 12.0 * normal(); };
    for (const Phi& phi : all_phis()) {
        same_as_cpu<T>(phi, random_case<T>(batch_of(2, 5, 1, 33), normal, any_step, false));
        if (few) continue;
        same_as_cpu<T>(phi, random_case<T>(batch_of(1, 100, 1, 100), saturated, any_step, false));
        if (phi.table == nullptr) same_as_cpu<T>(phi, random_case<T>(batch_of(2, 5, 2, 33), normal, normal, true));
    }
}

template <class T>
void every_size() {
    const Phi phi{{ActivationKind::tanh}};
    for (const std::int64_t columns :
         few ? std::vector<std::int64_t>{1, 259} : std::vector<std::int64_t>{1, 2, 3, 5, 100, 257, 1025}) {
        for (const std::int64_t nodes : few ? std::vector<std::int64_t>{33} : std::vector<std::int64_t>{1, 33, 100}) {
            same_as_cpu<T>(phi, random_case<T>(batch_of(1, columns, 1, nodes), normal, normal, false));
        }
    }
    for (const std::int64_t members : {2, 3, 7}) {
        if (few && members != 3) continue;
        same_as_cpu<T>(phi, random_case<T>(batch_of(few ? 1 : 3, 5, members, 33), normal, normal, members == 3));
    }
}

// x = phi(pool(y)) in one walk, and nothing written on the other members.
template <class T>
void same_as_pool_then_phi(const Phi& phi, const Case<T>& given) {
    const TileBatch& batch = given.batch;
    const igb::cuda::NodeSlab& slab = batch.slab;
    const std::int64_t rows = slab.rows(), columns = batch.columns;
    const Results<T> got = run(phi, given, slab.member);
    const double rounding = 140.0 * epsilon<T>, steep = 8.0 * (phi.ulps + phi.of_step) * epsilon<T>;
    for (std::int64_t g = 0; g < batch.networks; ++g) {
        const Twin<T> want(phi, given, g, 0);
        const double to_out = given.in[at(2 * g + 1)] / given.out[at(2 * g + 1)];
        for (std::int64_t pool = 0; pool < slab.nodes; ++pool) {
            double gains2 = 0.0;
            for (std::int64_t a = 0; a < columns; ++a) {
                const double x = static_cast<double>(want.tile[at(a * rows + pool)]);
                const double gain = given.gains.empty() ? 1.0 : given.gains[at(g * columns + a)];
                double size = 0.0, mapped = 0.0;
                gains2 += gain * gain;
                for (std::int64_t row = pool; row < rows; row += slab.member) {
                    const std::int64_t here = place(batch, g, a, row);
                    size = std::max(size, std::abs(static_cast<double>(given.tile[at(here)])));
                    mapped = std::max(mapped, given.map_slack(g, a, row));
                    CHECK(row == pool || got.tile[at(here)] == given.tile[at(here)]);
                    if (!given.slopes) continue;
                    const double share = static_cast<double>(want.shares[at(a * rows + row)]);
                    const double slope = share * static_cast<double>(want.slopes[at(a * rows + pool)]);
                    CHECK_CLOSE(got.slopes[here], slope, share * (steep * gain + tiniest<T>));
                }
                const double of_origin = phi.ulps / given.out[at(2 * g)], of_step = phi.of_step * size * to_out;
                CHECK_CLOSE(
                    got.tile[at(place(batch, g, a, pool))], x,
                    epsilon<T> * (phi.ulps * std::abs(x) + (a == 0 ? of_origin : of_step + mapped)) + 4.0 * tiniest<T>);
            }
            const std::int64_t node = g * slab.member + pool;
            const double slopes2 = want.slope2[at(pool)], first2 = want.origin_slope2[at(pool)];
            CHECK_CLOSE(got.slope2[node], slopes2, rounding * slopes2 + steep * gains2);
            CHECK_CLOSE(got.origin_slope2[node], first2, steep * (first2 + gains2));
            for (std::int64_t row = pool; row < rows; row += slab.member) {
                double sizes = 0.0;
                for (std::int64_t a = 1; a < columns; ++a)
                    sizes += std::abs(static_cast<double>(given.tile[at(place(batch, g, a, row))]));
                const std::int64_t member = g * rows + row;
                CHECK(got.origin[member] == want.origin[at(row)]);
                CHECK_CLOSE(got.sum[member], want.sum[at(row)], rounding * sizes);
                CHECK_CLOSE(got.sum2[member], want.sum2[at(row)], rounding * want.sum2[at(row)] + 70 * tiniest<T>);
            }
        }
        CHECK_CLOSE(got.norms[2 * g], want.norms.origin, 200 * epsilon<T> * (want.norms.origin + 1e-3));
        CHECK_CLOSE(got.norms[2 * g + 1], want.norms.difference,
                    (200.0 + 2.0 * (phi.ulps + phi.of_step)) * epsilon<T> * want.norms.difference + 1e3 * tiniest<T>);
        CHECK((got.beyond[at(g)] != 0) == want.norms.beyond_table);
    }
}

template <class T>
void pools_first() {
    const std::vector<Phi> phis{{{ActivationKind::tanh}}, {{ActivationKind::linear}, &logistic(), 400.0}};
    const std::int64_t most = igb::cuda::most_pooled<T>;
    for (std::int64_t members = few ? 3 : 1; members <= (few ? 3 : most); ++members) {
        for (const Phi& phi : phis) {
            for (const PoolKind kind : {PoolKind::max, PoolKind::min}) {
                if (few && (kind == PoolKind::max) != (phi.table == nullptr)) continue;
                const bool normed = phi.table == nullptr && members % 2 == 1;
                Case<T> given = random_case<T>(batch_of(2, few ? 5 : 37, members, 33), normal, normal, normed);
                given.pool = kind;
                given.slopes = members != 4 || kind == PoolKind::max;
                // Ties, and a second network whose differences are far below what keeps the members apart.
                for (std::int64_t a = 0; a < given.batch.columns; ++a) {
                    for (std::int64_t row = 0; row < given.batch.slab.rows(); row += given.batch.slab.member)
                        given.tile[at(place(given.batch, 0, a, row))] = T{2};
                }
                if (!normed) given.in[3] = std::is_same_v<T, float> ? 0x1p-140 : 0x1p-1030;
                same_as_pool_then_phi(phi, given);
            }
        }
    }
}

template <class T>
void large_pools_are_refused() {
    Case<T> given = random_case<T>(batch_of(1, 2, igb::cuda::most_pooled<T> + 1, 33), normal, normal, false);
    given.pool = PoolKind::max;
    CHECK_THROWS(std::invalid_argument, run(Phi{{ActivationKind::tanh}}, given, given.batch.slab.member));
}

// Only the rows of the first member, without moments and slopes: what follows a pool.
template <class T>
void first_member_alone() {
    const Phi phi{{ActivationKind::tanh}};
    Case<T> given = random_case<T>(batch_of(2, 6, 3, 33), normal, normal, false);
    const std::int64_t member = given.batch.slab.member, rows = given.batch.slab.rows();
    const Results<T> all = run(phi, given, rows), part = run(phi, given, member);
    for (std::int64_t g = 0; g < 2; ++g) {
        double norm = 0.0;
        for (std::int64_t a = 0; a < 6; ++a) {
            for (std::int64_t row = 0; row < rows; ++row) {
                const std::size_t here = at(place(given.batch, g, a, row));
                CHECK(part.tile[here] == (row < member ? all.tile[here] : given.tile[here]));
                if (row < member)
                    CHECK(part.slopes[(g * 6 + a) * member + row] == all.slopes[place(given.batch, g, a, row)]);
                if (a == 0 && row < 33) norm += std::pow(static_cast<double>(part.tile[here]), 2);
            }
        }
        for (std::int64_t i = 0; i < 33; ++i) CHECK(part.slope2[g * member + i] == all.slope2[g * rows + i]);
        CHECK_CLOSE(part.norms[2 * g], norm, 1e-12 * norm);
    }
}

// A network alone and among others: the same to the last bit. So are slopes that nobody asks for.
template <class T>
void batches_do_not_matter() {
    const Phi phi{{ActivationKind::erf}};
    const Case<T> both = random_case<T>(batch_of(2, few ? 300 : 1025, 1, 33), normal, normal, false);
    Case<T> second = both;
    second.batch.networks = 1;
    second.slopes = false;
    second.tile.assign(both.tile.begin() + both.batch.between(), both.tile.end());
    second.in.erase(second.in.begin(), second.in.begin() + 2);
    second.out.erase(second.out.begin(), second.out.begin() + 2);
    const std::int64_t rows = both.batch.slab.rows();
    const Results<T> all = run(phi, both, rows), one = run(phi, second, rows);
    CHECK(same_bits(std::vector<T>(all.tile.begin() + both.batch.between(), all.tile.end()), one.tile));
    for (std::int64_t i = 0; i < rows; ++i) {
        CHECK(all.sum[rows + i] == one.sum[i] && all.sum2[rows + i] == one.sum2[i]);
        CHECK(all.slope2[rows + i] == one.slope2[i]);
    }
    CHECK(all.norms[2] == one.norms[0] && all.norms[3] == one.norms[1]);
}

// Only nodes that count tell that they left the table, and an overflow is not the table's fault.
template <class T>
void the_end_of_a_table_shows() {
    const Phi phi{{ActivationKind::linear}, &sine()};
    struct Step {
        double origin, step;
        bool left;
    };
    const double inf = std::numeric_limits<double>::infinity();
    for (const Step& each : {Step{0.0, 39.0, false}, Step{0.0, 41.0, true}, Step{-41.0, 0.0, true},
                             Step{inf, 0.0, false}, Step{0.0, inf, false}}) {
        if (few && !each.left) continue;
        Case<T> given = random_case<T>(batch_of(2, 4, 1, 33), [] { return 0.0; }, [] { return 0.0; }, false);
        for (std::int64_t g = 0; g < 2; ++g) {
            for (std::int64_t row = 33; row < 64; ++row) given.tile[at(place(given.batch, g, 1, row))] = T{30000};
        }
        given.in = {1.0, 1.0, 1.0, 1.0};
        given.tile[at(place(given.batch, 1, 0, 5))] = static_cast<T>(each.origin);
        given.tile[at(place(given.batch, 1, 3, 5))] = static_cast<T>(each.step);
        const Results<T> got = run(phi, given, given.batch.slab.rows());
        CHECK(got.beyond[0] == 0);
        CHECK((got.beyond[1] != 0) == each.left);
        const Twin<T> want(phi, given, 1, 0);
        CHECK(want.norms.beyond_table == each.left);
        for (const std::int64_t a : {0, 3}) {
            const std::int64_t here = place(given.batch, 0, a, 5);
            CHECK(std::isnan(got.tile[at(given.batch.between() + here)]) == std::isnan(want.tile[at(here)]));
        }
    }
}

template <class T>
void all() {
    every_phi<T>();
    pools_first<T>();
    large_pools_are_refused<T>();
    if (few && std::is_same_v<T, float>) return;
    every_size<T>();
    first_member_alone<T>();
    batches_do_not_matter<T>();
    the_end_of_a_table_shows<T>();
}

}  // namespace

int main() {
    all<float>();
    all<double>();
    return summary();
}
