// Gaussian expectations of a phi given as a table, compiled once for each instruction set: single ones by
// Gauss-Legendre, pairs by the Hermite series (hermite.h) where it converges and as double integrals (pair_integral.h)
// where it does not.
#include "core/config.h"
#include "core/table_moments.h"
#include "cpu/hermite.h"
#include "cpu/kernels.h"
#include "cpu/level_integrals.h"
#include "cpu/pair_integral.h"

namespace igb::inline IGB_ISA {

namespace {

// 1 - c below which the spread of a pool is E[P'^2] times that of u to twelve digits: the next term is of order
// sqrt(s).
constexpr double linear_s = 1e-26;

bool is_even(const TableMixture& mixture) {
    for (int i = 0; i < mixture.count; ++i) {
        if (mixture.shares[i].table.parity <= 0) return false;
    }
    return true;
}

}  // namespace

void table_values(const TableView& table, int derivative, std::int64_t count, const double* x, double* out) {
    for (std::int64_t i = 0; i < count; ++i) evaluate<1>(table, derivative, panel_of(table, x[i]), x + i, out + i);
}

SingleMoments table_single(const TableView& table, int size, double q) {
    const GaussLegendre& rule = GaussLegendre::rule();
    q = q > smallest_q ? q : smallest_q;
    const double root = std::sqrt(q);
    const Range range = range_of(table, 0, root).joined(range_of(table, 1, root)).joined(range_of(table, 2, root));
    // By symmetry, half of it will do where phi has a parity; what is odd vanishes.
    const bool half = table.parity != 0 && size == 1;
    double mean = 0.0, square = 0.0, slope2 = 0.0, bend = 0.0, curvature = 0.0, moment = 0.0, tilt = 0.0;
    for_each_cell(table, half ? 0.0 : range.low * root, range.high * root, 2.0 * root,
                  [&](int panel, double low, double high) {
                      alignas(64) double x[cell_nodes], z[cell_nodes], f[cell_nodes], df[cell_nodes], ddf[cell_nodes];
                      alignas(64) double weight[cell_nodes];
                      for (int i = 0; i < cell_nodes; ++i) x[i] = low + 0.5 * (high - low) * (1.0 + rule.x[i]);
                      evaluate<cell_nodes>(table, 0, panel, x, f);
                      evaluate<cell_nodes>(table, 1, panel, x, df);
                      evaluate<cell_nodes>(table, 2, panel, x, ddf);
                      const double inverse = 1.0 / root, scale = (half ? 1.0 : 0.5) * (high - low) * inverse;
#pragma omp simd
                      for (int i = 0; i < cell_nodes; ++i) {
                          z[i] = x[i] * inverse;
                          weight[i] = scale * rule.w[i] * normal_density(z[i]);
                      }
                      if (size > 1) {
                          for (int i = 0; i < cell_nodes; ++i) weight[i] *= size * power_of(normal_cdf(z[i]), size - 1);
                      }
#pragma omp simd reduction(+ : mean, square, slope2, bend, curvature, moment, tilt)
                      for (int i = 0; i < cell_nodes; ++i) {
                          mean += weight[i] * f[i];
                          square += weight[i] * f[i] * f[i];
                          slope2 += weight[i] * df[i] * df[i];
                          bend += weight[i] * f[i] * ddf[i];
                          curvature += weight[i] * ddf[i];
                          moment += weight[i] * z[i] * f[i] * df[i];
                          tilt += weight[i] * z[i] * df[i];
                      }
                  });
    if (half && table.parity < 0) mean = curvature = tilt = 0.0;
    return moments_of(table, size, q, {mean, square, slope2, bend, curvature, moment, tilt});
}

SplitMoments table_split(const TableView& table, int size, double sigma_mu2, double sigma_y2, SeriesCache& cache) {
    const double q = sigma_mu2 + sigma_y2;
    if (q == 0.0) return {table_single(table, size, q).square, 0.0};
    const double s = sigma_y2 / q;
    if (size == 1 && may_converge(table, 1.0 - s)) {
        for (const int terms : series_steps) {
            SplitMoments result;
            if (split_by_series(view_of(series_at(table, 0, q, terms, cache.a)), s, result)) return result;
        }
    }
    const double root = std::sqrt(q);
    double spread = 0.0;
    if (s > 0.0) {
        const double used = s > smallest_s ? s : smallest_s;
        PairIntegral integral(table, 0, root, root, used, 1.0 + sigma_mu2 / q, size);
        const double rest = s / used;
        spread = integral.spread() * (jumps_somewhere(table) ? std::sqrt(rest) : rest);
    }
    const double centre = table_single(table, size, q).square - spread;
    return {centre > 0.0 ? centre : 0.0, spread};
}

double table_pair(const TableView& table, int size, int derivative, double q_aa, double q_bb, double c,
                  SeriesCache& cache) {
    q_aa = q_aa > smallest_q ? q_aa : smallest_q;
    q_bb = q_bb > smallest_q ? q_bb : smallest_q;
    const bool equal = q_aa == q_bb;
    if (equal && c == 1.0 && derivative < 2) {
        const SingleMoments at = table_single(table, size, q_aa);
        return derivative == 0 ? at.square : at.slope2;
    }
    if (size == 1 && may_converge(table, c)) {
        for (const int terms : series_steps) {
            const HermiteSeries& f = series_at(table, derivative, q_aa, terms, cache.a);
            const HermiteSeries& g = equal ? f : series_at(table, derivative, q_bb, terms, cache.b);
            double sum;
            const Tail tail = product_by_series(view_of(f), view_of(g), c, sum);
            // Where phi has one sign, the integral keeps the digits of a product far below the norm.
            const double norm = std::sqrt(f.norm2) * std::sqrt(g.norm2);
            if (derivative == 0 && table.one_sign && std::fabs(sum) < 0.01 * norm) break;
            const bool last = terms == HermiteSeries::capacity;
            if (tail == Tail::small_to_sum || (last && tail == Tail::small_to_norm)) return sum;
        }
    }
    PairIntegral integral(table, derivative, std::sqrt(q_aa), std::sqrt(q_bb), held(1.0 - c), held(1.0 + c), size);
    return integral.product();
}

SingleMoments level_single(const TableMixture& mixture, int size, double q) {
    constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
    const LevelSets sets(mixture, q > smallest_q ? q : smallest_q);
    const LevelMoments at = sets.good() ? LevelSingle(sets, size).moments() : LevelMoments{};
    if (!at.good) return {unknown, unknown, unknown, unknown, unknown};
    const double origin = sets.origin(), sign = mixture.largest ? 1.0 : -1.0;
    return {sign * (origin + at.mean), origin * origin + 2.0 * origin * at.mean + at.square,
            sets.jumps() ? std::numeric_limits<double>::infinity() : at.slope2,
            2.0 * origin * at.mean_dq + at.square_dq, sign * at.mean_dq};
}

SplitMoments level_split(const TableMixture& mixture, int size, double sigma_mu2, double sigma_y2) {
    constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
    const double q = sigma_mu2 + sigma_y2, s = q > 0.0 ? sigma_y2 / q : 0.0;
    const LevelSets sets(mixture, q > smallest_q ? q : smallest_q);
    const LevelMoments at = sets.good() ? LevelSingle(sets, size).moments() : LevelMoments{};
    if (!at.good) return {unknown, unknown};
    const double mean = sets.origin() + at.mean, variance = at.square - at.mean * at.mean;
    if (1.0 - s <= LevelProducts::moderate) {
        const LevelPair pair = LevelProducts(sets, sets, size, sigma_mu2 / q).covariance(variance * std::sqrt(s));
        return pair.good ? SplitMoments{mean * mean + pair.value, variance - pair.value}
                         : SplitMoments{unknown, unknown};
    }
    if (s < linear_s && !sets.jumps()) return {mean * mean + variance, at.slope2 * sigma_y2};
    LevelNear near = LevelDiagonal(sets, size, held(s), held(1.0 + sigma_mu2 / q)).both();
    near.spread *= std::sqrt(s / held(s));
    return near.good ? SplitMoments{mean * mean + (variance - near.spread), near.spread}
                     : SplitMoments{unknown, unknown};
}

double level_pair(const TableMixture& mixture, int size, int derivative, double q_aa, double q_bb, double c) {
    constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
    q_aa = q_aa > smallest_q ? q_aa : smallest_q;
    q_bb = q_bb > smallest_q ? q_bb : smallest_q;
    if (is_even(mixture)) c = std::fabs(c);
    const LevelSets a(mixture, q_aa);
    const LevelMoments of_a = a.good() ? LevelSingle(a, size).moments() : LevelMoments{};
    if (!of_a.good) return unknown;
    const double mean_a = a.origin() + of_a.mean, variance_a = of_a.square - of_a.mean * of_a.mean;
    if (q_aa == q_bb && c > LevelProducts::moderate) {
        if (c == 1.0) return derivative == 0 ? mean_a * mean_a + variance_a : of_a.slope2;
        const LevelNear near = LevelDiagonal(a, size, held(1.0 - c), held(1.0 + c)).both();
        if (!near.good) return unknown;
        return derivative == 0 ? mean_a * mean_a + (variance_a - near.spread) : near.slope / q_aa;
    }
    if (std::fabs(c) > LevelProducts::largest) return unknown;
    const LevelSets b(mixture, q_bb);
    const LevelMoments of_b = b.good() ? LevelSingle(b, size).moments() : LevelMoments{};
    if (!of_b.good) return unknown;
    const LevelSets& other = q_aa == q_bb ? a : b;
    LevelProducts products(a, other, size, c);
    const double variance_b = of_b.square - of_b.mean * of_b.mean, root = a.root() * b.root();
    const LevelPair pair = derivative == 0 ? products.covariance(std::sqrt(variance_a) * std::sqrt(variance_b))
                                           : products.slope(root * std::sqrt(of_a.slope2 * of_b.slope2));
    if (!pair.good) return unknown;
    return derivative == 0 ? mean_a * (b.origin() + of_b.mean) + pair.value : pair.value / root;
}

}  // namespace igb::inline IGB_ISA
