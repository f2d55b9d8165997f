// The kernels on a tile against plain loops in long double, for every instruction set and both precisions: differences
// relative to themselves however small, tables across edges, kinks, jumps and in saturation, pools, maps, sums,
// products.
#include "cpu/activate.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "check.h"
#include "cpu/kernels.h"
#include "cpu/table.h"

namespace {

using igb::Activation;
using igb::ActivationKind;
using igb::TileNorms;
using igb::TileUnits;
using Real = long double;
using Function = std::function<Real(Real)>;

template <class T>
constexpr Real epsilon = static_cast<Real>(std::numeric_limits<T>::epsilon());

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// ---- Tiles ----------------------------------------------------------------------------------------------------------

constexpr std::int64_t node_counts[] = {1, 31, 32, 33, 65};
constexpr std::int64_t input_counts[] = {1, 2, 3, 70};

template <class T>
struct Tile {
    std::int64_t nodes, inputs, rows, ld;
    std::vector<T> data;

    // The padding holds a number that would show.
    Tile(std::int64_t nodes_, std::int64_t inputs_, std::int64_t members = 1)
        : nodes(nodes_), inputs(inputs_), rows((nodes + 31) / 32 * 32), ld(rows * members + 32),
          data(at(ld * inputs), T{1000}) {}
    T& operator()(std::int64_t i, std::int64_t a) { return data[at(i + a * ld)]; }
    T operator()(std::int64_t i, std::int64_t a) const { return data[at(i + a * ld)]; }
};

struct Moments {
    std::vector<double> origin, sum, sum2, origin_slope2, slope2;

    explicit Moments(std::int64_t rows)
        : origin(at(rows)), sum(at(rows)), sum2(at(rows)), origin_slope2(at(rows)), slope2(at(rows)) {}
    igb::NodeMoments view() { return {origin.data(), sum.data(), sum2.data(), origin_slope2.data(), slope2.data()}; }
};

std::mt19937_64& engine() {
    static std::mt19937_64 numbers(20);
    return numbers;
}

Real normal() { return static_cast<Real>(std::normal_distribution<double>()(engine())); }

// Of either sign, sizes equally likely on a logarithmic scale.
Real of_any_size(double smallest, double largest) {
    std::uniform_real_distribution<double> exponent(std::log(smallest), std::log(largest));
    const double size = std::exp(exponent(engine()));
    return static_cast<Real>(engine()() & 1 ? size : -size);
}

template <class T>
constexpr double smallest_step = std::is_same_v<T, float> ? 1e-30 : 1e-290;

// ---- phi ------------------------------------------------------------------------------------------------------------

// phi as formulas. Differences do not cancel.
struct Reference {
    Function value, slope;
    std::function<Real(Real, Real)> difference;  // phi(m + d) - phi(m)
    std::function<Real(Real, Real)> scale;       // what its error is measured in: |d| times the slopes on the way
    Real kink = 0;                               // m + d may round to it: it is then told from m and d
};

Real no_scale(const Reference& phi, Real m, Real d) { return std::abs(phi.difference(m, d)); }

const Reference hyperbolic_tangent{[](Real x) { return std::tanh(x); },
                                   [](Real x) { return 1 / (std::cosh(x) * std::cosh(x)); },
                                   [](Real m, Real d) { return std::sinh(d) / (std::cosh(m + d) * std::cosh(m)); },
                                   [](Real m, Real d) { return no_scale(hyperbolic_tangent, m, d); }};

const Reference sine{[](Real x) { return std::sin(x); }, [](Real x) { return std::cos(x); },
                     [](Real m, Real d) { return 2 * std::cos(m + d / 2) * std::sin(d / 2); },
                     [](Real, Real d) { return std::min(std::abs(d), Real{1}); }};

const Reference logistic{
    [](Real x) { return 1 / (1 + std::exp(-x)); },
    [](Real x) { return std::exp(-x) / ((1 + std::exp(-x)) * (1 + std::exp(-x))); },
    [](Real m, Real d) { return std::exp(-m) * -std::expm1(-d) / ((1 + std::exp(-m)) * (1 + std::exp(-m - d))); },
    [](Real m, Real d) { return no_scale(logistic, m, d); }};

const Reference modulus{[](Real x) { return std::abs(x); }, [](Real x) { return x < 0 ? Real{-1} : Real{1}; },
                        [](Real m, Real d) {
                            const Real y = m + d;
                            if ((m < 0) == (y < 0)) return m < 0 ? -d : d;
                            return m < 0 ? d + 2 * m : -d - 2 * m;
                        },
                        [](Real, Real d) { return std::abs(d); }};

const Reference parabola{[](Real x) { return x * x; }, [](Real x) { return 2 * x; },
                         [](Real m, Real d) { return d * (2 * m + d); },
                         [](Real m, Real d) { return std::abs(d) * (std::abs(m) + std::abs(d)); }};

const Reference versine{
    [](Real x) { return 2 * std::sin(x / 2) * std::sin(x / 2); }, [](Real x) { return std::sin(x); },
    [](Real m, Real d) { return 2 * std::sin(m + d / 2) * std::sin(d / 2); },
    [](Real m, Real d) { return std::min(std::abs(d), Real{1}) * std::min(std::abs(m) + std::abs(d), Real{1}); }};

// 3 below the step, 2 + x above it.
constexpr Real step_at = 0.25L;
const Reference step{[](Real x) { return x < step_at ? Real{3} : 2 + x; },
                     [](Real x) { return x < step_at ? Real{0} : Real{1}; },
                     [](Real m, Real d) {
                         const bool before = m < step_at, after = d < step_at - m;
                         if (before && after) return Real{0};
                         if (!before && !after) return d;
                         return before ? m + d - 1 : 1 - m;
                     },
                     [](Real m, Real d) { return std::max(std::abs(d), std::abs(step.difference(m, d))); }, step_at};

Real slope_after(const Reference& phi, Real m, Real d) {
    const Real y = m + d;
    return phi.slope(y == phi.kink && d < phi.kink - m ? std::nextafter(y, Real{-100}) : y);
}

// ---- Tables ---------------------------------------------------------------------------------------------------------

void fit(const Function& f, double low, double high, bool by_x, double* c) {
    constexpr int nodes = 32;
    const Real pi = std::acos(Real{-1});
    Real values[nodes];
    for (int i = 0; i < nodes; ++i) {
        const Real t = std::cos(pi * (Real(i) + Real{0.5L}) / nodes);
        const Real x = Real(low) + (Real(high) - Real(low)) * (1 + t) / 2;
        values[i] = by_x ? f(x) / x : f(x);
    }
    for (int k = 0; k < igb::table_terms; ++k) {
        Real sum = 0;
        for (int i = 0; i < nodes; ++i) sum += values[i] * std::cos(pi * Real(k) * (Real(i) + Real{0.5L}) / nodes);
        const Real term = sum * (k == 0 ? 1 : 2) / nodes;
        c[k] = std::abs(term) < 1e-17L * std::abs(values[0]) ? 0.0 : static_cast<double>(term);
    }
}

igb::Table tabulated(const Reference& phi, std::vector<double> edges, std::vector<double> kinks = {},
                     std::vector<double> jumps = {}) {
    igb::Table table;
    table.edges = std::move(edges);
    const bool vanishes[2] = {phi.value(0) == 0, phi.slope(0) == 0};
    for (int m = 0; m < 3; ++m) {
        igb::Table::Series& series = table.series[m];
        series.coefficients.assign(table.panels() * igb::table_terms, 0.0);
        series.by_x.assign(table.panels(), 0);
        if (m == 2) continue;  // not looked at here
        for (std::size_t p = 0; p < table.panels(); ++p) {
            const double low = table.edges[p], high = table.edges[p + 1];
            const bool by_x = vanishes[m] && (low == 0.0 || high == 0.0);
            series.by_x[p] = by_x;
            fit(m == 0 ? phi.value : phi.slope, low, high, by_x, &series.coefficients[p * igb::table_terms]);
        }
    }
    table.kinks = std::move(kinks);
    table.jumps = std::move(jumps);
    table.q_max = 1.0;
    table.finish();
    return table;
}

std::vector<double> equal_panels(double low, double high, int panels) {
    std::vector<double> edges;
    for (int p = 0; p <= panels; ++p) edges.push_back(low + (high - low) * p / panels);
    return edges;
}

std::vector<double> doubling_panels(double first, double last) {
    std::vector<double> edges{0.0};
    for (double edge = first; edge <= last; edge *= 2) {
        edges.push_back(edge);
        edges.insert(edges.begin(), -edge);
    }
    return edges;
}

// ---- The nonlinearity -----------------------------------------------------------------------------------------------

struct Points {
    std::function<Real()> origin, step;
};

// One tile of m and d; all that activate() gives for it. `ulps` is what is allowed, in units of epsilon.
template <class T>
void activate_is_right(const igb::PhiView& phi, const Reference& exact, const Points& points, std::int64_t nodes,
                       std::int64_t inputs, bool with_gains, Real ulps) {
    const TileUnits in{0x1p-3, 0x1p-5}, out{0x1p2, 0x1p-4};
    Tile<T> tile(nodes, inputs), slopes(nodes, inputs);
    for (std::int64_t i = 0; i < nodes; ++i) {
        tile(i, 0) = static_cast<T>(points.origin() / Real(in.origin));
        for (std::int64_t a = 1; a < inputs; ++a) tile(i, a) = static_cast<T>(points.step() / Real(in.difference));
    }
    std::vector<double> gains(at(inputs));
    for (std::int64_t a = 0; a < inputs; ++a) gains[at(a)] = with_gains ? std::exp(0.1 * static_cast<double>(a)) : 1.0;
    const Tile<T> before = tile;
    Moments moments(tile.rows);
    const TileNorms norms = igb::activate_tile(phi, nodes, inputs, tile.data.data(), tile.ld, in, out, moments.view(),
                                               with_gains ? gains.data() : nullptr, slopes.data.data());
    const Real tolerance = ulps * epsilon<T>;
    const Real floor = Real(std::numeric_limits<T>::min()) * epsilon<T>;  // the smallest numbers have few digits
    Real origin_norm = 0, difference_norm = 0;
    for (std::int64_t i = 0; i < nodes; ++i) {
        const Real m = Real(before(i, 0)) * Real(in.origin);
        const Real value = exact.value(m) / Real(out.origin);
        Real sum = 0, size = 0, sum2 = 0, slope2 = 0;
        CHECK_CLOSE(tile(i, 0), value, tolerance * (std::abs(value) + epsilon<T>));
        CHECK_CLOSE(slopes(i, 0), Real(gains[0]) * exact.slope(m), tolerance * 2);
        CHECK_CLOSE(moments.origin[at(i)], before(i, 0), 0.0);
        CHECK_CLOSE(moments.origin_slope2[at(i)], std::pow(slopes(i, 0), 2),
                    4 * epsilon<T> * std::pow(slopes(i, 0), 2));
        origin_norm += Real(tile(i, 0)) * Real(tile(i, 0));
        for (std::int64_t a = 1; a < inputs; ++a) {
            const Real d = Real(before(i, a)) * Real(in.difference), gain = Real(gains[at(a)]);
            CHECK_CLOSE(Real(tile(i, a)) * Real(out.difference), exact.difference(m, d),
                        tolerance * exact.scale(m, d) + floor);
            CHECK_CLOSE(Real(slopes(i, a)) / gain, slope_after(exact, m, d), tolerance * 2);
            sum += Real(before(i, a));
            size += std::abs(Real(before(i, a)));
            sum2 += Real(before(i, a)) * Real(before(i, a));
            slope2 += Real(slopes(i, a)) * Real(slopes(i, a));
            difference_norm += Real(tile(i, a)) * Real(tile(i, a));
        }
        const Real rounding = 70 * epsilon<T>;
        CHECK_CLOSE(moments.sum[at(i)], sum, rounding * size);
        CHECK_CLOSE(moments.sum2[at(i)], sum2, rounding * sum2 + Real(std::numeric_limits<T>::min()));
        CHECK_CLOSE(moments.slope2[at(i)], slope2, rounding * slope2 + Real(std::numeric_limits<T>::min()));
    }
    CHECK_CLOSE(norms.origin, origin_norm, 70 * epsilon<T> * origin_norm);
    CHECK_CLOSE(norms.difference, difference_norm,
                70 * epsilon<T> * difference_norm + Real(std::numeric_limits<T>::min()));
    CHECK(!norms.beyond_table);
}

template <class T>
void activate_is_right(const igb::PhiView& phi, const Reference& exact, const Points& points, Real ulps) {
    for (const std::int64_t nodes : node_counts) {
        for (const std::int64_t inputs : input_counts) {
            activate_is_right<T>(phi, exact, points, nodes, inputs, inputs == 3, ulps);
        }
    }
    activate_is_right<T>(phi, exact, points, 96, 70, true, ulps);
}

template <class T>
void rules() {
    const igb::PhiView tanh_phi{Activation{ActivationKind::tanh}, nullptr};
    const igb::PhiView modulus_phi{Activation{ActivationKind::leaky_relu, -1.0}, nullptr};
    const auto any_step = [] { return of_any_size(smallest_step<T>, 10.0); };
    activate_is_right<T>(tanh_phi, hyperbolic_tangent, {normal, any_step}, 12);
    activate_is_right<T>(modulus_phi, modulus, {normal, any_step}, 12);
}

template <class T>
void tables() {
    // Steps of any size from anywhere, and from next to an edge or on it.
    const auto any_step = [] { return of_any_size(smallest_step<T>, 10.0); };
    const auto at_edges = [] {
        const Real edge = static_cast<Real>(std::uniform_int_distribution<int>(-8, 8)(engine())) / 4;
        return engine()() % 8 == 0 ? edge : edge + of_any_size(1e-25, 0.01);
    };
    struct Case {
        const Reference& exact;
        igb::Table table;
        std::vector<Points> points;
        Real ulps;
    };
    const std::vector<Case> cases{
        {sine, tabulated(sine, equal_panels(-20.0, 20.0, 80)), {{normal, any_step}, {at_edges, any_step}}, 60},
        // Saturated on both sides, near and far from each other.
        {logistic,
         tabulated(logistic, equal_panels(-60.0, 60.0, 120)),
         {{[] { return 9 * normal(); }, any_step},
          {[] { return Real{20} + std::abs(normal()); }, [] { return 5 + normal(); }},
          {at_edges, any_step}},
         100},
        {modulus,
         tabulated(modulus, {-20.0, 0.0, 20.0}, {0.0}, {0.0}),
         {{normal, any_step}, {[] { return of_any_size(smallest_step<T>, 1.0); }, any_step}},
         8},
        {step,
         tabulated(step, {-20.0, 0.25, 1.0, 20.0}, {0.25}, {-0.75}),
         {{normal, any_step}, {at_edges, any_step}},
         16},
        {parabola,
         tabulated(parabola, doubling_panels(0x1p-12, 32.0)),
         {{normal, any_step}, {[] { return of_any_size(1e-12, 1.0); }, [] { return of_any_size(1e-12, 1.0); }}},
         60},
        {versine,
         tabulated(versine, equal_panels(-20.0, 20.0, 80)),
         {{[] { return of_any_size(1e-12, 1.0); }, [] { return of_any_size(1e-12, 10.0); }}},
         60},
        // One panel alone.
        {sine,
         tabulated(sine, {-1.0, 1.0}),
         {{[] { return of_any_size(0.05, 0.5); }, [] { return of_any_size(0.05, 0.5); }}},
         200},
    };
    for (const Case& each : cases) {
        const igb::TableView view = each.table.view();
        const igb::PhiView phi{Activation{ActivationKind::linear}, &view};
        for (const Points& points : each.points) activate_is_right<T>(phi, each.exact, points, each.ulps);
    }
}

// Only nodes that count tell that they left the table.
template <class T>
void the_end_of_a_table_shows() {
    const igb::Table table = tabulated(sine, equal_panels(-2.0, 2.0, 8));
    const igb::TableView view = table.view();
    const igb::PhiView phi{Activation{ActivationKind::linear}, &view};
    struct Case {
        T origin, step;
        bool beyond;
    };
    for (const Case& each : {Case{T{1}, T{1}, false}, Case{T{-2}, T{4}, false}, Case{T{3}, T{0}, true},
                             Case{T{1}, T{1.5}, true}, Case{T{-1}, T{-1.5}, true}}) {
        Tile<T> tile(33, 3);
        for (std::int64_t i = 0; i < 33; ++i) tile(i, 0) = tile(i, 1) = tile(i, 2) = T{0};
        tile(32, 0) = each.origin;
        tile(32, 2) = each.step;
        Moments moments(tile.rows);
        const TileNorms norms = igb::activate_tile(phi, 33, 3, tile.data.data(), tile.ld, {}, {}, moments.view());
        CHECK(norms.beyond_table == each.beyond);
        for (const T x : {tile(32, 0), tile(32, 2)}) CHECK(std::abs(x) <= 2);
    }
}

// ---- Sums, maps, products -------------------------------------------------------------------------------------------

template <class T>
Tile<T> random_tile(std::int64_t nodes, std::int64_t inputs) {
    Tile<T> tile(nodes, inputs);
    for (std::int64_t a = 0; a < inputs; ++a) {
        for (std::int64_t i = 0; i < nodes; ++i) tile(i, a) = static_cast<T>(normal());
    }
    return tile;
}

template <class T>
void sums(std::int64_t nodes, std::int64_t inputs) {
    const Tile<T> tile = random_tile<T>(nodes, inputs);
    Moments moments(tile.rows);
    igb::sum_tile(nodes, inputs, tile.data.data(), tile.ld, moments.view());
    std::vector<double> columns(at(inputs), 2.5);
    igb::add_column_sums(nodes, inputs, tile.data.data(), tile.ld, columns.data());
    for (std::int64_t i = 0; i < nodes; ++i) {
        Real sum = 0, sum2 = 0, size = 0;
        for (std::int64_t a = 1; a < inputs; ++a) {
            const Real d = Real(tile(i, a));
            sum += d;
            size += std::abs(d);
            sum2 += d * d;
        }
        CHECK(moments.origin[at(i)] == static_cast<double>(tile(i, 0)));
        CHECK_CLOSE(moments.sum[at(i)], sum, 70 * epsilon<T> * size);
        CHECK_CLOSE(moments.sum2[at(i)], sum2, 70 * epsilon<T> * sum2);
    }
    for (std::int64_t a = 0; a < inputs; ++a) {
        Real sum = 2.5L, size = 2.5L;
        for (std::int64_t i = 0; i < nodes; ++i) {
            sum += Real(tile(i, a));
            size += std::abs(Real(tile(i, a)));
        }
        CHECK_CLOSE(columns[at(a)], sum, 70 * epsilon<double> * size);
    }
}

template <class T>
void maps(std::int64_t nodes, std::int64_t inputs) {
    Tile<T> tile = random_tile<T>(nodes, inputs);
    const Tile<T> before = tile;
    std::vector<igb::ColumnMap> map(at(inputs));
    for (igb::ColumnMap& each : map) {
        each = {static_cast<double>(normal()), static_cast<double>(normal()), static_cast<double>(normal())};
    }
    igb::map_tile(map.data(), nodes, inputs, tile.data.data(), tile.ld);
    for (std::int64_t a = 0; a < inputs; ++a) {
        for (std::int64_t i = 0; i < nodes; ++i) {
            const Real scaled = Real(map[at(a)].scale) * Real(before(i, a)), shift = Real(map[at(a)].shift);
            const Real from_origin = a == 0 ? 0 : Real(map[at(a)].from_origin) * Real(before(i, 0));
            const Real size = std::abs(scaled) + std::abs(from_origin) + std::abs(shift);
            CHECK_CLOSE(tile(i, a), scaled + from_origin + shift, 4 * epsilon<T> * size);
        }
    }
}

template <class T>
void products(std::int64_t nodes, std::int64_t inputs) {
    const Tile<T> a = random_tile<T>(nodes, inputs), b = random_tile<T>(nodes, inputs);
    Tile<T> out(nodes, inputs), in_place = a;
    std::vector<double> weights(at(inputs)), squares(at(nodes)), again(at(nodes));
    for (double& weight : weights) weight = engine()() % 2 == 0 ? 1.0 : 0x1p-200;
    igb::multiply_tiles(nodes, inputs, a.data.data(), a.ld, b.data.data(), b.ld, out.data.data(), out.ld,
                        weights.data(), squares.data());
    igb::multiply_tiles(nodes, inputs, in_place.data.data(), a.ld, b.data.data(), b.ld, in_place.data.data(), a.ld);
    for (std::int64_t i = 0; i < nodes; ++i) {
        Real sum = 0;
        for (std::int64_t c = 0; c < inputs; ++c) {
            const Real product = Real(a(i, c)) * Real(b(i, c));
            CHECK_CLOSE(out(i, c), product, epsilon<T> * std::abs(product));
            CHECK(in_place(i, c) == out(i, c));
            sum += Real(weights[at(c)]) * Real(out(i, c)) * Real(out(i, c));
        }
        CHECK_CLOSE(squares[at(i)], sum, 70 * epsilon<double> * sum);
    }
}

// ---- Pools ----------------------------------------------------------------------------------------------------------

// Members nearer to each other than rounding would show if they were added up, ties among them.
template <class T>
void pools(igb::PoolKind kind, std::int64_t members, double difference_unit, std::int64_t nodes, std::int64_t inputs) {
    const TileUnits units{0x1p4, difference_unit};
    Tile<T> tile(nodes, inputs, members), shares(nodes, inputs, members);
    for (std::int64_t s = 0; s < members; ++s) {
        for (std::int64_t i = 0; i < nodes; ++i) {
            const Real base = Real(static_cast<int>(i % 3)) + (i % 2 == 0 ? 0 : normal());  // ties where i is even
            tile(s * tile.rows + i, 0) = static_cast<T>(i % 5 == 0 ? Real(tile(i, 0)) : base);
            for (std::int64_t a = 1; a < inputs; ++a) {
                tile(s * tile.rows + i, a) = a % 7 == 0 ? T{0} : static_cast<T>(normal() / (a % 3 == 1 ? 1 : 1e6L));
            }
        }
    }
    const Tile<T> before = tile;
    const igb::TileShape shape{nodes, inputs, tile.ld, members, tile.rows};
    const TileNorms norms = igb::pool_tile(kind, shape, tile.data.data(), units, shares.data.data());
    Real origin_norm = 0, difference_norm = 0;
    const bool average = kind == igb::PoolKind::average;
    const Real sign = kind == igb::PoolKind::min ? -1 : 1;
    for (std::int64_t i = 0; i < nodes; ++i) {
        const auto y0 = [&](std::int64_t s) { return Real(before(s * tile.rows + i, 0)); };
        Real best = y0(0), mean = 0, first_size = 0;
        for (std::int64_t s = 0; s < members; ++s) {
            best = sign * y0(s) > sign * best ? y0(s) : best;
            mean += y0(s) / Real(members);
            first_size += std::abs(y0(s));
        }
        CHECK_CLOSE(tile(i, 0), average ? mean : best, average ? epsilon<T> * first_size : 0);
        origin_norm += Real(tile(i, 0)) * Real(tile(i, 0));
        for (std::int64_t a = 0; a < inputs; ++a) {
            const auto d = [&](std::int64_t s) { return a == 0 ? Real{0} : Real(before(s * tile.rows + i, a)); };
            // Of origin and difference apart, so that nothing is rounded.
            const auto value = [&](std::int64_t s) {
                return (y0(s) - best) * (Real(units.origin) / Real(units.difference)) + d(s);
            };
            Real expected = average ? 0 : value(0), size = 0;
            std::int64_t winner = 0;
            for (std::int64_t s = 0; s < members; ++s) {
                if (average) {
                    expected += d(s) / Real(members);
                } else if (sign * value(s) > sign * expected) {
                    winner = s;
                    expected = value(s);
                }
                size += std::abs(d(s));
            }
            for (std::int64_t s = 0; s < members; ++s) {
                const Real share =
                    average ? Real(static_cast<T>(1.0 / static_cast<double>(members))) : Real(s == winner);
                CHECK_CLOSE(shares(s * tile.rows + i, a), share, 0);
            }
            if (a == 0) continue;
            CHECK_CLOSE(tile(i, a), expected, 4 * epsilon<T> * size);
            difference_norm += Real(tile(i, a)) * Real(tile(i, a));
        }
    }
    CHECK_CLOSE(norms.origin, origin_norm, 1e-14L * origin_norm);
    CHECK_CLOSE(norms.difference, difference_norm, 1e-13L * difference_norm);
}

template <class T>
void all() {
    rules<T>();
    tables<T>();
    the_end_of_a_table_shows<T>();
    for (const std::int64_t nodes : node_counts) {
        for (const std::int64_t inputs : input_counts) {
            sums<T>(nodes, inputs);
            maps<T>(nodes, inputs);
            products<T>(nodes, inputs);
            for (const auto kind : {igb::PoolKind::max, igb::PoolKind::min, igb::PoolKind::average}) {
                for (const std::int64_t members : {1, 2, 5}) {
                    for (const double unit : {0x1p3, 0x1p-40, 0x1p-1022}) pools<T>(kind, members, unit, nodes, inputs);
                }
            }
        }
    }
}

}  // namespace

int main() {
    int count = 0;
    const char* const* const isas = igb::available_isas(&count);
    for (int i = 0; i < count; ++i) {
        CHECK(igb::select_isa(isas[i]));
        all<float>();
        all<double>();
    }
    return summary();
}
