// The kernels of cuda/expectations.cu and cuda/propagate.cu, run on the host, against igb::Expectations and
// igb::propagate: closed forms, tanh, tables with and without a parity, kinks and jumps, mixtures and averages, from
// tiny to large variances.
#include "cuda/expectations.cu"
#include "cuda/propagate.cu"

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <numbers>
#include <vector>

#include "check.h"
#include "cpu/moments.h"
#include "cpu/propagate.h"
#include "cpu/table_rules.h"

namespace {

using igb::Activation, igb::ActivationKind, igb::Phi, igb::Pool, igb::PoolKind;

constexpr double poison = -12345.0;

// ---- phi ------------------------------------------------------------------------------------------------------------

using Functions = std::function<double(int, double)>;

// Chebyshev series of phi, phi' and phi'' on equal panels.
std::shared_ptr<const igb::Table> tabulated(const Functions& phi, double reach, int panels, std::vector<double> kinks,
                                            std::vector<double> jumps, int parity) {
    igb::Table table;
    constexpr int terms = igb::table_terms;
    for (int p = 0; p <= panels; ++p) table.edges.push_back(reach * (2.0 * p / panels - 1.0));
    for (int m = 0; m < 3; ++m) {
        table.series[m].by_x.assign(static_cast<std::size_t>(panels), 0);
        for (std::size_t p = 0; p < table.panels(); ++p) {
            const double low = table.edges[p], high = table.edges[p + 1];
            for (int k = 0; k < terms; ++k) {
                double sum = 0.0;
                for (int i = 0; i < terms; ++i) {
                    const double angle = std::numbers::pi * (i + 0.5) / terms;
                    sum += phi(m, low + 0.5 * (high - low) * (1.0 + std::cos(angle))) * std::cos(k * angle);
                }
                table.series[m].coefficients.push_back((k > 0 ? 2.0 : 1.0) / terms * sum);
            }
        }
    }
    table.kinks = std::move(kinks);
    table.jumps = std::move(jumps);
    table.parity = parity;
    table.q_max = reach * reach / 80.0;
    table.finish();
    return std::make_shared<const igb::Table>(std::move(table));
}

double logistic(int m, double x) {
    const double f = 1.0 / (1.0 + std::exp(-x)), slope = f * (1.0 - f);
    return m == 0 ? f : m == 1 ? slope : slope * (1.0 - 2.0 * f);
}

double sine(int m, double x) { return m == 0 ? std::sin(x) : m == 1 ? std::cos(x) : -std::sin(x); }

double kinked(int m, double x) {  // the logistic function and a slope that begins at 1/2
    const double line = x > 0.5 ? (m == 0 ? x - 0.5 : m == 1 ? 1.0 : 0.0) : 0.0;
    return logistic(m, x) + line;
}

double stepped(int m, double x) { return logistic(m, x) + (m == 0 && x > 0.5 ? 0.75 : 0.0); }

Phi of(ActivationKind kind, double parameter = 0.0) { return {{{1.0, {Activation{kind, parameter}, nullptr}}}}; }
Phi of(std::shared_ptr<const igb::Table> table) { return {{{1.0, {Activation{ActivationKind::linear}, table}}}}; }

Phi mixed(const Phi& a, const Phi& b) {
    Phi result;
    for (const auto& share : a.shares) result.shares.push_back({0.25 * share.weight, share.leaf});
    for (const auto& share : b.shares) result.shares.push_back({0.75 * share.weight, share.leaf});
    return result;
}

// What the kernels are given; the memory of the device is this machine's.
struct OnDevice {
    std::vector<igb::cuda::TheoryShare> shares;
    std::vector<std::vector<double>> logs;
    igb::cuda::TableRules rules{};
    igb::cuda::TheoryPhi phi{};

    OnDevice(const Phi& given, const Pool& pool) {
        fill_rules();
        logs.reserve(3 * given.shares.size());
        bool tables = false, closed = true;
        for (const Phi::Share& share : given.shares) {
            igb::cuda::TheoryShare one{};
            one.weight = share.weight;
            one.activation = share.leaf.activation;
            one.tabulated = share.leaf.table != nullptr;
            if (one.tabulated) {
                one.table = share.leaf.table->view();
                for (int m = 0; m < 3; ++m) {
                    std::vector<double>& row = logs.emplace_back();
                    for (const double bound : share.leaf.table->series[m].largest) row.push_back(igb::log_bound(bound));
                    one.log_bounds[m] = row.data();
                }
            }
            tables = tables || one.tabulated;
            closed = closed && !one.tabulated && share.leaf.activation.kind != ActivationKind::tanh;
            shares.push_back(one);
        }
        using Kind = igb::cuda::TheoryKind;
        phi = {shares.data(), static_cast<int>(shares.size()), pool.kind == PoolKind::average ? pool.size : 0,
               tables   ? Kind::tabulated
               : closed ? Kind::closed
                        : Kind::ruled,
               &rules};
    }

    void fill_rules() {
        const auto& cell = igb::GaussLegendre::rule();
        const auto& strip = igb::GaussLegendreOf<igb::strip_nodes>::rule();
        for (int i = 0; i < igb::cell_nodes; ++i) {
            rules.x[i] = cell.x[i];
            rules.w[i] = cell.w[i];
            for (int k = 0; k < 4; ++k) rules.tail[k][i] = cell.coefficient[igb::cell_nodes - 4 + k][i];
        }
        for (int i = 0; i < igb::strip_nodes; ++i) {
            rules.strip_x[i] = strip.x[i];
            rules.strip_w[i] = strip.w[i];
        }
        for (int n = 0; n < igb::series_capacity; ++n) {
            rules.forward[n] = igb::hermite_forward(n);
            rules.back[n] = igb::hermite_back(n);
        }
    }
};

// ---- Comparisons ----------------------------------------------------------------------------------------------------

double worst = 0.0;

// To `tolerance` of `size`.
void close(double got, double want, double size, double tolerance) {
    if (std::isnan(want) || std::isinf(want)) {
        CHECK(std::isnan(want) ? std::isnan(got) : got == want);
        return;
    }
    CHECK_CLOSE(got, want, tolerance * size);
    if (size > 0.0) worst = std::fmax(worst, std::abs(got - want) / size);
}

struct Point {
    double q_aa, q_bb, c;
};

void same_as_cpu(const char* name, const Phi& phi, const Pool& pool, const std::vector<Point>& points, int orders,
                 double tolerance) {
    const OnDevice device(phi, pool);
    igb::Expectations want(phi, pool);
    const std::size_t count = points.size();
    const auto signed_count = static_cast<std::int64_t>(count);
    std::vector<double> q(count), mu2(count), y2(count), q_bb(count), c(count);
    for (std::size_t i = 0; i < count; ++i) {
        q[i] = points[i].q_aa;
        q_bb[i] = points[i].q_bb;
        c[i] = points[i].c;
        mu2[i] = points[i].q_aa * std::abs(points[i].c);
        y2[i] = points[i].q_aa * (1.0 - std::abs(points[i].c));
    }
    worst = 0.0;
    std::vector<igb::SingleMoments> single(count + 1, {poison, poison, poison, poison, poison});
    igb::cuda::single_moments(nullptr, device.phi, signed_count, q.data(), single.data());
    for (std::size_t i = 0; i < count; ++i) {
        const igb::SingleMoments at = want.single(q[i]);
        close(single[i].mean, at.mean, std::sqrt(at.square), tolerance);
        close(single[i].square, at.square, at.square, tolerance);
        close(single[i].slope2, at.slope2, at.slope2, tolerance);
        const double size = std::fmax(std::abs(at.square_dq), std::isfinite(at.slope2) ? at.slope2 : 1.0);
        close(single[i].square_dq, at.square_dq, size, tolerance);
        close(single[i].mean_dq, at.mean_dq, std::fmax(std::abs(at.mean_dq), 1.0), tolerance);
    }
    CHECK(single[count].mean == poison && single[count].mean_dq == poison);

    std::vector<igb::SplitMoments> split(count + 1, {poison, poison});
    igb::cuda::split_moments(nullptr, device.phi, signed_count, mu2.data(), y2.data(), split.data());
    for (std::size_t i = 0; i < count; ++i) {
        const igb::SplitMoments at = want.split(mu2[i], y2[i]);
        close(split[i].centre, at.centre, std::fmax(at.centre, 1e-3 * at.spread), tolerance);
        close(split[i].spread, at.spread, at.spread, tolerance);
    }
    CHECK(split[count].centre == poison && split[count].spread == poison);

    for (int derivative = 0; derivative <= orders; ++derivative) {
        std::vector<double> pair(count + 1, poison);
        igb::cuda::pair_moments(nullptr, device.phi, derivative, signed_count, q.data(), q_bb.data(), c.data(),
                                pair.data());
        for (std::size_t i = 0; i < count; ++i) {
            const double at = want.pair(derivative, q[i], q_bb[i], c[i]);
            const double norm = std::sqrt(want.pair(derivative, q[i], q[i], 1.0)) *
                                std::sqrt(want.pair(derivative, q_bb[i], q_bb[i], 1.0));
            close(pair[i], at, std::isfinite(norm) ? std::fmax(std::abs(at), 1e-3 * norm) : std::abs(at), tolerance);
        }
        CHECK(pair[count] == poison);
    }
    std::printf("%-10s pool %d: %zu points, within %.1e of the CPU\n", name, pool.size, count, worst);
}

// Fresh numbers from 0 to 1.
double random_number() {
    static std::uint64_t state = 0x9E3779B97F4A7C15u;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(state >> 11) * 0x1p-53;
}

std::vector<Point> points_of(int count, double low, double high) {
    std::vector<Point> points;
    for (const double c : {0.96, -0.4, 1.0, -1.0, 0.0, 1.0 - 1e-12}) {
        if (static_cast<int>(points.size()) < count) points.push_back({low, low, c});
    }
    while (static_cast<int>(points.size()) < count) {
        const double q = low * std::pow(high / low, random_number()),
                     other = low * std::pow(high / low, random_number());
        points.push_back({q, points.size() % 2 == 0 ? q : other, 2.0 * random_number() - 1.0});
    }
    return points;
}

// ---- The recursion --------------------------------------------------------------------------------------------------

void same_trajectories(const Phi& phi, const Pool& pool, double residual, bool layernorm, std::int64_t count,
                       std::int64_t depth, double largest_w2) {
    const OnDevice device(phi, pool);
    const auto size = static_cast<std::size_t>(count), rows = static_cast<std::size_t>(depth);
    std::vector<double> w(size), b(size), state, out(6 * size * rows + 1, poison);
    std::vector<std::int64_t> layers(size, 0);
    for (std::size_t i = 0; i < size; ++i) {
        w[i] = 0.5 + largest_w2 * random_number();
        b[i] = i % 3 == 0 ? 0.0 : 0.1 * random_number();
        state.insert(state.end(), {b[i], 0.0, w[i], 0.0});
    }
    const igb::cuda::TrajectoryBatch batch{count,       w.data(), b.data(),     residual,      layernorm,
                                           phi.q_max(), depth,    state.data(), layers.data(), out.data()};
    const std::int64_t stretch = std::max<std::int64_t>(depth / 4, 1);
    for (std::int64_t end = 0; end < depth + stretch; end += stretch)
        igb::cuda::propagate(nullptr, device.phi, batch, std::min(end, depth));
    igb::Monitor monitor;
    for (std::size_t i = 0; i < size; ++i) {
        std::vector<std::vector<double>> columns(6, std::vector<double>(rows, poison));
        const std::int64_t computed = igb::propagate({phi, pool, w[i], b[i], residual, layernorm, b[i], w[i], depth},
                                                     {columns[0].data(), columns[1].data(), columns[2].data(),
                                                      columns[3].data(), columns[4].data(), columns[5].data()},
                                                     monitor);
        CHECK(layers[i] == computed);
        for (std::size_t k = 0; k < 6; ++k) {
            for (std::size_t row = 0; row < rows; ++row) {
                const double got = out[(k * rows + row) * size + i], want = columns[k][row];
                close(got, want, std::abs(want), 1e-13 * static_cast<double>(depth));
            }
        }
    }
    CHECK(out.back() == poison);
}

}  // namespace

int main() {
    const Pool none{PoolKind::none, 1}, average{PoolKind::average, 3};
#ifdef IGB_HOST_THREADS  // a thread of the operating system for each of the GPU's
    constexpr int many = 9, some = 2, few = 1, layers = 3;
#else
    constexpr int many = 131, some = 21, few = 14, layers = 23;
#endif
    // tight: series leave out at most series_error, here and there. loose: the double integral stops at 2e-15 of sums of
    // many cells.
    constexpr double tight = 2.0 * igb::series_error, loose = 2e-12;
    const Phi tanh = of(ActivationKind::tanh), relu = of(ActivationKind::relu), erf = of(ActivationKind::erf);
    same_as_cpu("linear", of(ActivationKind::linear), none, points_of(many, 1e-3, 1e4), 2, tight);
    same_as_cpu("relu", relu, average, points_of(many, 1e-3, 1e4), 1, tight);
    same_as_cpu("leaky_relu", of(ActivationKind::leaky_relu, -0.3), none, points_of(many, 1e-3, 1e4), 1, tight);
    same_as_cpu("erf", erf, none, points_of(many, 1e-3, 1e4), 2, tight);
    same_as_cpu("tanh", tanh, none, points_of(some, 1e-3, 1e4), 2, tight);
    same_as_cpu("tanh", tanh, none, {{0.0, 0.0, 0.5}, {300.0, 2.0, 0.1}, {1e-300, 1.0, 0.0}, {900.0, 900.0, 0.0}}, 2,
                tight);
    same_as_cpu("relu, tanh", mixed(relu, tanh), average, points_of(some, 1e-3, 1e2), 1, tight);

    const auto smooth = tabulated(logistic, 40.0, 120, {}, {}, 0), odd = tabulated(sine, 30.0, 60, {}, {}, -1);
    const auto bent = tabulated(kinked, 40.0, 160, {0.5}, {0.0}, 0);
    const auto jumping = tabulated(stepped, 40.0, 160, {0.5}, {0.75}, 0);
    same_as_cpu("logistic", of(smooth), none, points_of(some, 1e-3, 4.0), 2, tight);
    same_as_cpu("sine", of(odd), average, points_of(some, 1e-3, 4.0), 2, tight);
    same_as_cpu("kinked", of(bent), none, points_of(few, 1e-2, 4.0), 1, loose);
    same_as_cpu("stepped", of(jumping), none, points_of(few, 1e-2, 4.0), 0, loose);
    same_as_cpu("mixture", mixed(of(bent), tanh), average, points_of(few / 2 + 1, 0.1, 4.0), 1, loose);

    same_trajectories(relu, none, 0.0, false, 130, 33, 3.0);
    same_trajectories(of(ActivationKind::linear), none, 0.0, false, 3, 170, 600.0);  // overflows
    same_trajectories(tanh, none, 0.0, false, 3, layers, 3.0);
    same_trajectories(tanh, average, 0.5, false, 2, layers / 3, 3.0);
    same_trajectories(mixed(relu, tanh), none, 0.0, true, 2, layers / 3, 3.0);
    same_trajectories(mixed(of(odd), tanh), average, 0.5, true, few > 1 ? 2 : 1, layers / 3, 3.0);
    same_trajectories(of(smooth), none, 0.0, false, few > 1 ? 2 : 1, layers / 4 + 1, 3.0);
    same_trajectories(of(bent), none, 1.0, false, few > 1 ? 2 : 1, layers / 2 + 1, 60.0);  // outgrows its table
    return summary();
}
