// Expectations of the largest P of k nodes phi(u_1), ..., phi(u_k) for any phi, by integration over its values: with
// H(t) = P(phi(u) <= t) and H(t, t') = P(phi(u) <= t, phi(v) <= t'), of level_sets.h,
//
//     E[P] = int_(t > 0) (1 - H^k) - int_(t < 0) H^k,       E[P^2] = 2 int_(t > 0) t (1 - H^k) - 2 int_(t < 0) t H^k
//     E[phi'^2 at the largest] = int k H^(k-1) sum |phi'(e)| n(e),      over the ends e of {phi <= t}
//     E[P(u) P(v)] = E[P(u)] E[P(v)] + int int (H(t, t')^k - H(t)^k H(t')^k)
//     E[(P(u) - P(v))^2] / 2 = 2 int int_(t < t') (H(t)^k - H(t, t')^k)
//     E[phi'(u) phi'(v) at the same node] = int int k H(t, t')^(k-1) dH(t, t')/dc / sqrt(q q')
//
// Nothing in them is singular but at the breaks of LevelSets, where the double-exponential rule is at home. For
// moderate correlations, H(t, t') is the Hermite series of indicators, whose coefficients are known at their ends. For
// c near 1 and equal variances it differs from H(t) close to t = t' alone, by P(phi(u) <= t, phi(v) > t'): sums of
// integrals over gaps of {phi <= t'}, all positive.
#pragma once

#include <cmath>
#include <limits>

#include "cpu/level_sets.h"

namespace igb::inline IGB_ISA {

// 1 - (1 - x)^k
inline double missing_power(double x, int k) { return x >= 1.0 ? 1.0 : -std::expm1(k * std::log1p(-x)); }

// ---- One input ------------------------------------------------------------------------------------------------------

// t counted from LevelSets::origin().
struct LevelMoments {
    double mean, square, slope2, mean_dq, square_dq;
    bool good;
};

class LevelSingle {
public:
    LevelSingle(const LevelSets& sets, int size) : sets_(sets), size_(size) {}

    LevelMoments moments() {
        Array<Level> levels;
        sets_.fit(levels);
        LevelMoments result{};
        for (int fine = 0; fine < DoubleExponential::levels; ++fine) {
            result = by_rule(DoubleExponential::rule(fine), levels);
            if (result.good) break;
        }
        return result;
    }

private:
    static constexpr double tolerance = 1e-7;  // between two steps of the rule: the shorter one is right to its square

    struct Sums {
        double mean = 0.0, square = 0.0, slope2 = 0.0, mean_dq = 0.0, square_dq = 0.0;
    };

    LevelMoments by_rule(const DoubleExponential& rule, Array<Level>& levels) const {
        Sums all, coarse;
        for (int s = 0; s < sets_.intervals(); ++s) {
            const double width = sets_.width(s);
            for (int i = 0; i < rule.count; ++i) {
                const Sums one = at(s, width * rule.left[i], width * rule.right[i], levels);
                add(all, one, width * rule.weight[i]);
                if (i % 2 == 0) add(coarse, one, 2.0 * width * rule.weight[i]);
            }
        }
        const double size = std::sqrt(all.square);
        const bool good = std::fabs(all.mean - coarse.mean) <= tolerance * size &&
                          std::fabs(all.square - coarse.square) <= tolerance * all.square &&
                          std::fabs(all.slope2 - coarse.slope2) <= tolerance * all.slope2 &&
                          std::fabs(all.mean_dq - coarse.mean_dq) * sets_.q() <= tolerance * size &&
                          std::fabs(all.square_dq - coarse.square_dq) * sets_.q() <= tolerance * all.square;
        return {all.mean, all.square, all.slope2, all.mean_dq, all.square_dq, good};
    }

    static void add(Sums& to, const Sums& one, double weight) {
        to.mean += weight * one.mean;
        to.square += weight * one.square;
        to.slope2 += weight * one.slope2;
        to.mean_dq += weight * one.mean_dq;
        to.square_dq += weight * one.square_dq;
    }

    Sums at(int interval, double left, double right, Array<Level>& levels) const {
        double inside = 0.0, outside = 0.0, slopes = 0.0, tilt = 0.0;
        for (int c = 0; c < sets_.parts(); ++c) {
            Level& level = levels[c];
            sets_.place(c, interval, left, right, level);
            const double share = sets_.weight(c);
            inside += share * level.mass();
            outside += share * level.mass_outside();
            for (int i = 0; i < level.count; ++i) {
                slopes += share * (slope_at(c, level.low[i], level.low_piece[i], level) +
                                   slope_at(c, level.high[i], level.high_piece[i], level));
                tilt += share *
                        (level.high[i] * normal_density(level.high[i]) - level.low[i] * normal_density(level.low[i]));
            }
        }
        const double begin = sets_.begin(interval),
                     t = begin >= 0.0 ? begin + left : begin + sets_.width(interval) - right;
        const double gone = outside < 0.5 ? missing_power(outside, size_) : 1.0 - power_of(inside, size_);
        const double part = begin >= 0.0 ? gone : -power_of(inside, size_);
        const double density = size_ * power_of(inside, size_ - 1);
        return {part, 2.0 * t * part, density * slopes / sets_.root(), 0.5 * density * tilt / sets_.q(),
                t * density * tilt / sets_.q()};
    }

    double slope_at(int c, double z, int piece, const Level& level) const {
        if (piece == Level::nowhere) return 0.0;
        return std::fabs(sets_.pieces(c).slope(level.x[piece], 1.0)) * normal_density(z);
    }

    const LevelSets& sets_;
    int size_;
};

// ---- Two inputs, moderate correlation -------------------------------------------------------------------------------

// Nodes in t with H(t) and the Hermite coefficients of the indicators of {phi <= t}, one row for every component.
class LevelSeries {
public:
    LevelSeries(const LevelSets& sets, int fine, int terms) : terms_(terms), parts_(sets.parts()) {
        const DoubleExponential& rule = DoubleExponential::rule(fine);
        count_ = sets.intervals() * rule.count;
        weight_.reset(size(1));
        chance_.reset(size(1));
        coarse_.reset(size(1));
        series_.reset(size(parts_ * terms));
        forward_.reset(static_cast<std::size_t>(terms));
        back_.reset(static_cast<std::size_t>(terms));
        for (int n = 0; n < terms; ++n) {
            forward_[n] = 1.0 / std::sqrt(n + 1.0);
            back_[n] = std::sqrt(n / (n + 1.0));
        }
        Array<Level> levels;
        sets.fit(levels);
        for (int node = 0; node < count_; ++node) {
            const int interval = node / rule.count, i = node % rule.count;
            const double width = sets.width(interval);
            weight_[node] = width * rule.weight[i];
            coarse_[node] = i % 2 == 0;
            for (int c = 0; c < parts_; ++c) {
                sets.place(c, interval, width * rule.left[i], width * rule.right[i], levels[c]);
                expand(levels[c], row(node, c));
                chance_[node] += sets.weight(c) * row(node, c)[0];
            }
        }
    }

    int count() const { return count_; }
    double weight(int node) const { return weight_[node]; }
    double chance(int node) const { return chance_[node]; }
    bool coarse(int node) const { return coarse_[node]; }
    const double* row(int node, int c) const { return &series_[place(node, c)]; }

private:
    std::size_t size(int each) const { return static_cast<std::size_t>(count_) * static_cast<std::size_t>(each); }
    std::size_t place(int node, int c) const {
        return (static_cast<std::size_t>(node) * static_cast<std::size_t>(parts_) + static_cast<std::size_t>(c)) *
               static_cast<std::size_t>(terms_);
    }
    double* row(int node, int c) { return &series_[place(node, c)]; }

    // E[1(z <= b) h_n(z)] = -n(b) h_(n-1)(b) / sqrt(n)
    void expand(const Level& level, double* f) const {
        f[0] = level.mass();
        for (int i = 0; i < level.count; ++i) {
            add_end(level.high[i], 1.0, f);
            add_end(level.low[i], -1.0, f);
        }
    }

    void add_end(double z, double sign, double* f) const {
        double h = -sign * normal_density(z), before = 0.0;
        if (h == 0.0) return;
        for (int n = 1; n < terms_; ++n) {
            f[n] += h * forward_[n - 1];
            const double next = forward_[n - 1] * z * h - back_[n - 1] * before;
            before = h;
            h = next;
        }
    }

    int terms_, parts_, count_;
    Array<double> weight_, chance_, series_;
    Array<double> forward_, back_;  // h_(n+1) = z forward_n h_n - back_n h_(n-1)
    Array<bool> coarse_;
};

struct LevelPair {
    double value;
    bool good;
};

// int int (H(t, t')^k - H(t)^k H(t')^k), or of k H^(k-1) dH/dc. At |c| = moderate the series has 900 terms, and the
// rule some hundred nodes; at |c| = largest, 3,700 and a thousand.
class LevelProducts {
public:
    static constexpr double moderate = 0.96, largest = 0.99;

    LevelProducts(const LevelSets& a, const LevelSets& b, int size, double c)
        : a_(a), b_(b), size_(size),
          terms_(std::fabs(c) > 1e-5 ? static_cast<int>(-37.0 / std::log(std::fabs(c))) + 8 : 12) {
        powers_.reset(static_cast<std::size_t>(terms_));
        rates_.reset(static_cast<std::size_t>(terms_));
        scaled_.reset(static_cast<std::size_t>(terms_));
        powers_[0] = 1.0;
        for (int n = 1; n < terms_; ++n) {
            rates_[n] = n * powers_[n - 1];
            powers_[n] = c * powers_[n - 1];
        }
        powers_[0] = 0.0;  // of what depends on c
    }

    LevelPair covariance(double scale) { return integral<false>(scale); }
    LevelPair slope(double scale) { return integral<true>(scale); }

private:
    static constexpr double tolerance = 3e-7;  // between two steps of the rule, of `scale`
    static constexpr int most_nodes = 6000;

    template <bool Slope>
    LevelPair integral(double scale) {
        LevelPair result{0.0, false};
        for (int fine = 0; fine < DoubleExponential::levels && !result.good; ++fine) {
            const int nodes = DoubleExponential::rule(fine).count;
            if (nodes * a_.intervals() > most_nodes || nodes * b_.intervals() > most_nodes) break;
            const LevelSeries first(a_, fine, terms_);
            if (&a_ == &b_) {
                result = sum<Slope>(first, first, scale);
            } else {
                const LevelSeries second(b_, fine, terms_);
                result = sum<Slope>(first, second, scale);
            }
        }
        return result;
    }

    template <bool Slope>
    LevelPair sum(const LevelSeries& first, const LevelSeries& second, double scale) {
        const int count = second.count();
        const bool same = &first == &second;
        Array<double> joint(static_cast<std::size_t>(count)), rate(static_cast<std::size_t>(count));
        double all = 0.0, coarse = 0.0;
        for (int i = 0; i < first.count(); ++i) {
            const int from = same ? i : 0;
            for (int j = from; j < count; ++j) joint[j] = rate[j] = 0.0;
            for (int c = 0; c < a_.parts(); ++c) {
                const double share = a_.weight(c);
                add_products(first.row(i, c), second, c, from, share, powers_, joint);
                if (Slope) add_products(first.row(i, c), second, c, from, share, rates_, rate);
                if (a_.parts() == 1) continue;
                for (int j = from; j < count; ++j) {
                    joint[j] += share * first.row(i, c)[0] * (second.row(j, c)[0] - second.chance(j));
                }
            }
            double row = 0.0, coarse_row = 0.0;
            for (int j = from; j < count; ++j) {
                const double apart = first.chance(i) * second.chance(j), both = std::fmax(apart + joint[j], 0.0);
                const double term = Slope ? size_ * power_of(both, size_ - 1) * rate[j]
                                          : power_of(both, size_) - power_of(apart, size_);
                const double weighted = second.weight(j) * (same && j > i ? 2.0 : 1.0) * term;
                row += weighted;
                if (second.coarse(j)) coarse_row += weighted;
            }
            all += first.weight(i) * row;
            if (first.coarse(i)) coarse += 4.0 * first.weight(i) * coarse_row;
        }
        return {all, std::fabs(all - coarse) <= tolerance * scale};
    }

    void add_products(const double* row, const LevelSeries& second, int c, int from, double share,
                      const Array<double>& factors, Array<double>& to) {
        for (int n = 0; n < terms_; ++n) scaled_[n] = share * row[n] * factors[n];
        const double* const scaled = scaled_.data();
        for (int j = from; j < second.count(); ++j) {
            const double* const other = second.row(j, c);
            double sum = 0.0;
#pragma omp simd reduction(+ : sum)
            for (int n = 0; n < terms_; ++n) sum += scaled[n] * other[n];
            to[j] += sum;
        }
    }

    const LevelSets &a_, &b_;
    int size_, terms_;
    Array<double> powers_, rates_, scaled_;
};

// ---- Two inputs close together --------------------------------------------------------------------------------------

struct LevelNear {
    double spread, slope;                      // E[(P(u) - P(v))^2] / 2 and q E[phi'(u) phi'(v) at the same node]
    bool good, coarse_outside, coarse_inside;  // whether the rules for t and t' have too few nodes
};

// For equal variances, s = 1 - c and t = 1 + c.
class LevelDiagonal {
public:
    LevelDiagonal(const LevelSets& sets, int size, double s, double t)
        : sets_(sets), size_(size), s_(s), t_(t), w_(std::sqrt(s * t)) {
        sets.fit(levels_);
        sets.fit(others_);
    }

    LevelNear both() {
        LevelNear result{};
        int outer = 1, inner = 1;
        while (!result.good && outer < DoubleExponential::levels && inner < DoubleExponential::levels) {
            result = by_rule(DoubleExponential::rule(outer), DoubleExponential::rule(inner));
            if (result.coarse_inside) ++inner;
            if (result.coarse_outside) ++outer;
        }
        return result;
    }

private:
    static constexpr double tolerance = 1e-8, inner_tolerance = 2e-7;  // between two steps of the rules
    static constexpr double reach = 8.5;                               // in units of w: v is not found further from u
    static constexpr int most_cuts = 64;

    struct Pair {
        double spread = 0.0, slope = 0.0;
        void add(const Pair& other, double weight) {
            spread += weight * other.spread;
            slope += weight * other.slope;
        }
    };

    LevelNear by_rule(const DoubleExponential& rule, const DoubleExponential& inner_rule) {
        inner_ = &inner_rule;
        inner_error_ = {};
        Pair all, coarse;
        for (int s = 0; s < sets_.intervals(); ++s) {
            const double width = sets_.width(s), layer = layer_below_end(s);
            const double cuts[] = {0.0, layer < 0.3 * width ? width - layer : width, width};
            for (int piece = 0; piece < 2; ++piece) {
                const double from = cuts[piece], length = cuts[piece + 1] - from;
                if (!(length > 0.0)) continue;
                const double rest = width - cuts[piece + 1];
                for (int i = 0; i < rule.count; ++i) {
                    outer_weight_ = length * rule.weight[i];
                    const Pair one = inner(s, from + length * rule.left[i], rest + length * rule.right[i]);
                    all.add(one, outer_weight_);
                    if (i % 2 == 0) coarse.add(one, 2.0 * outer_weight_);
                }
            }
        }
        const auto exceeds = [&](double spread, double slope, double share) {
            return std::fabs(spread) > share * all.spread || std::fabs(slope) > share * std::fabs(all.slope);
        };
        const bool outside = exceeds(all.spread - coarse.spread, all.slope - coarse.slope, tolerance);
        const bool inside = exceeds(inner_error_.spread, inner_error_.slope, inner_tolerance);
        return {2.0 * all.spread, 2.0 * all.slope, !outside && !inside, outside, inside};
    }

    // How far under the end of an interval t' reaches beyond it: there the integrand turns within this length.
    double layer_below_end(int interval) {
        const double width = sets_.width(interval), close = 1e-9 * width;
        double cuts[most_cuts];
        for (int c = 0; c < sets_.parts(); ++c) sets_.place(c, interval, width - close, close, levels_[c]);
        int count = 0;
        find_reaches(interval, width - close, close, cuts, count);
        return count > 0 ? cuts[count - 1] : width;
    }

    // ---- Over t' from t on ------------------------------------------------------------------------------------------

    Pair inner(int interval, double left, double right) {
        double chance = 0.0;
        for (int c = 0; c < sets_.parts(); ++c) {
            sets_.place(c, interval, left, right, levels_[c]);
            chance += sets_.weight(c) * levels_[c].mass();
        }
        Pair sum;
        if (!(chance > 0.0)) return sum;
        double cuts[most_cuts];
        int count = 0;
        find_reaches(interval, left, right, cuts, count);
        if (count == 0) return sum;
        const double end = cuts[count - 1];
        for (int b = interval + 1; b < sets_.intervals() && count < most_cuts; ++b) {
            const double at = right + (sets_.begin(b) - sets_.begin(interval + 1));
            if (at >= end) break;
            insert_sorted(cuts, count, at);
        }
        double begin = -left, stop = right;  // of the interval of t', from t
        Stretch stretch{interval, chance, 0.0, 0.0, 0.0, 0.0};
        for (int i = 0; i < count; stretch.from = cuts[i++]) {
            if (stretch.from == stop && stretch.interval + 1 < sets_.intervals()) {
                begin = stop;
                stop = right + (sets_.begin(++stretch.interval + 1) - sets_.begin(interval + 1));
            }
            stretch.length = cuts[i] - stretch.from;
            stretch.before = stretch.from - begin;
            stretch.after = stop - cuts[i];
            if (stretch.length > 0.0) add_stretch(stretch, sum);
        }
        return sum;
    }

    // A range of t' - t within one interval of t'.
    struct Stretch {
        int interval;
        double chance;  // H(t)
        double from, length;
        double before, after;  // between it and the ends of the interval
    };

    // By Gauss-Legendre, where the last coefficients of the integrand say that it is nearly a polynomial; they do not
    // see a weak singularity at an end.
    void add_stretch(const Stretch& on, Pair& sum) {
        if (std::fmin(on.before, on.after) < 0.05 * on.length || !add_polynomial(on, sum)) add_singular(on, sum);
    }

    bool add_polynomial(const Stretch& on, Pair& sum) {
        const GaussLegendre& gauss = GaussLegendre::rule();
        double spreads[cell_nodes], slopes[cell_nodes];
        for (int i = 0; i < cell_nodes; ++i) {
            const double ahead = 0.5 * (1.0 + gauss.x[i]), rest = 0.5 * (1.0 - gauss.x[i]);
            const Pair one = at_rise(on, on.length * ahead, on.length * rest);
            spreads[i] = one.spread;
            slopes[i] = one.slope;
        }
        if (!is_polynomial(spreads) || !is_polynomial(slopes)) return false;
        for (int i = 0; i < cell_nodes; ++i) sum.add({spreads[i], slopes[i]}, 0.5 * on.length * gauss.w[i]);
        return true;
    }

    void add_singular(const Stretch& on, Pair& sum) {
        Pair all, coarse;
        for (int i = 0; i < inner_->count; ++i) {
            const Pair one = at_rise(on, on.length * inner_->left[i], on.length * inner_->right[i]);
            all.add(one, on.length * inner_->weight[i]);
            if (i % 2 == 0) coarse.add(one, 2.0 * on.length * inner_->weight[i]);
        }
        sum.add(all, 1.0);
        inner_error_.add({std::fabs(all.spread - coarse.spread), std::fabs(all.slope - coarse.slope)}, outer_weight_);
    }

    static bool is_polynomial(const double* values) {
        const GaussLegendre& rule = GaussLegendre::rule();
        double largest = 0.0, tail = 0.0;
        for (int i = 0; i < cell_nodes; ++i) largest = std::fmax(largest, std::fabs(values[i]));
        for (int k = cell_nodes - 4; k < cell_nodes; ++k) {
            double coefficient = 0.0;
            for (int i = 0; i < cell_nodes; ++i) coefficient += rule.coefficient[k][i] * values[i];
            tail = std::fmax(tail, std::fabs(coefficient));
        }
        return tail <= inner_tolerance * largest;
    }

    // At the distances `ahead` and `rest` from the ends of a stretch.
    Pair at_rise(const Stretch& on, double ahead, double rest) {
        Pair one;
        double lost = 0.0;
        for (int c = 0; c < sets_.parts(); ++c) {
            sets_.place_after(c, levels_[c], on.from + ahead, on.interval, on.before + ahead, on.after + rest,
                              others_[c]);
            lost += sets_.weight(c) * loss(levels_[c], others_[c]);
            one.slope += sets_.weight(c) * meetings(levels_[c], others_[c]);
        }
        const double part = lost < on.chance ? lost / on.chance : 1.0;
        one.slope *= size_ * power_of(on.chance * (1.0 - part), size_ - 1);
        one.spread = power_of(on.chance, size_) * missing_power(part, size_);
        return one;
    }

    // How far above t the values are that lie within reach of the ends of {phi <= t}, in order. Of those of like size,
    // the largest.
    void find_reaches(int interval, double left, double right, double* cuts, int& count) const {
        const double t = sets_.begin(interval) + left;
        const double top = right + (sets_.begin(sets_.intervals()) - sets_.begin(interval + 1));
        double reaches[most_cuts];
        int found = 0;
        const auto keep = [&](double rise) {
            if (!(rise > 0.0)) return;
            for (int i = 0; i < found; ++i) {
                if (rise > 0.6 * reaches[i] && rise < 1.7 * reaches[i]) {
                    reaches[i] = std::fmax(reaches[i], rise);
                    return;
                }
            }
            if (found < most_cuts / 4) reaches[found++] = rise;
        };
        for (int c = 0; c < sets_.parts(); ++c) {
            const Level& level = levels_[c];
            for (int i = 0; i < level.count; ++i) {
                if (level.high[i] < Level::infinite) keep(highest(c, level.high[i], level.high_piece[i], 1.0, t));
                if (level.low[i] > -Level::infinite) keep(highest(c, level.low[i], level.low_piece[i], -1.0, t));
            }
        }
        for (int i = 0; i < found; ++i) insert_sorted(cuts, count, std::fmin(reaches[i], top));
    }

    double highest(int c, double z, int moving, double way, double t) const {
        const Pieces& pieces = sets_.pieces(c);
        const bool moves = moving != Level::nowhere;
        const double x = moves ? levels_[c].x[moving] : z * sets_.root(), end = x + way * reach * w_ * sets_.root();
        double most = 0.0;
        for (int p = moves ? moving : pieces.at(x, way); p >= 0 && p < pieces.count(); p += way > 0.0 ? 1 : -1) {
            const Pieces::Piece& piece = pieces[p];
            const bool last = way > 0.0 ? piece.right >= end : piece.left <= end;
            const double start = way > 0.0 ? piece.left : piece.right, stop = last        ? end
                                                                              : way > 0.0 ? piece.right
                                                                                          : piece.left;
            const double at_stop = p == moving ? pieces.change(x, stop - x) : pieces.value(stop, -way) - t;
            if (p != moving) most = std::fmax(most, pieces.value(start, way) - t);
            most = std::fmax(most, at_stop);
            if (last || at_stop <= 0.0) break;
        }
        return most;
    }

    // ---- Two levels -------------------------------------------------------------------------------------------------

    // P(u in {phi <= t}, v not in {phi <= t'}), t' > t: over the gaps of the second, from both of their ends.
    double loss(const Level& level, const Level& other) const {
        const double root = sets_.root();
        double sum = 0.0;
        for (int gap = 0; gap <= other.count; ++gap) {
            const End left = gap == 0 ? End{-Level::infinite, 0.0}
                                      : end_of(level, other, other.high_piece[gap - 1], other.high[gap - 1], root);
            const End right = gap == other.count ? End{Level::infinite, 0.0}
                                                 : end_of(level, other, other.low_piece[gap], other.low[gap], root);
            const double length = (right.from - left.from) - (left.moved + right.moved);
            if (!(length > 0.0)) continue;
            const bool whole = length <= reach * w_;
            const double part = whole ? length : std::fmin(0.5 * length, reach * w_);
            if (left.from > -Level::infinite) sum += over_gap(level, left, 1.0, part);
            if (right.from < Level::infinite && !whole) sum += over_gap(level, right, -1.0, part);
        }
        return sum;
    }

    struct End {
        double from, moved;  // in units of sqrt(q)
    };

    static End end_of(const Level& level, const Level& other, int piece, double z, double root) {
        if (piece == Level::nowhere || level.state[piece] != Level::across) return {z, 0.0};
        return {level.x[piece] / root, other.moved[piece] / root};
    }

    // P(u in the level, v in the first `length` of the gap from its end on): v = from + way (moved + d).
    double over_gap(const Level& level, const End& end, double way, double length) const {
        const GaussLegendre& rule = GaussLegendre::rule();
        const double c = 1.0 - s_, near = end.from + way * end.moved, far = near + way * length;
        const double lowest = std::fmin(c * near, c * far) - 9.0 * w_,
                     highest = std::fmax(c * near, c * far) + 9.0 * w_;
        alignas(64) double past[cell_nodes], shift[cell_nodes], v[cell_nodes], chance[cell_nodes];
        for (int i = 0; i < cell_nodes; ++i) {
            past[i] = end.moved + 0.5 * length * (1.0 + rule.x[i]);
            v[i] = end.from + way * past[i];
            shift[i] = s_ * v[i] - way * past[i];  // c v is this far from the end of the first level
            chance[i] = 0.0;
        }
        const auto add = [&](double z, double side, double sign) {  // P(u beyond z on the side of the interval)
            const double apart = z - end.from;
#pragma omp simd
            for (int i = 0; i < cell_nodes; ++i) chance[i] += sign * normal_cdf(side * (apart + shift[i]) / w_);
        };
        for (int m = 0; m < level.count; ++m) {
            if (level.high[m] < lowest || level.low[m] > highest) continue;
            const bool before = way > 0.0 ? level.high[m] <= end.from : level.low[m] < end.from;
            if (before) {
                add(level.high[m], 1.0, 1.0);
                if (level.low[m] > lowest) add(level.low[m], 1.0, -1.0);
            } else {
                add(level.low[m], -1.0, 1.0);
                if (level.high[m] < highest) add(level.high[m], -1.0, -1.0);
            }
        }
        double sum = 0.0;
        for (int i = 0; i < cell_nodes; ++i) sum += rule.w[i] * normal_density(v[i]) * chance[i];
        return 0.5 * length * sum;
    }

    // dP(u in {phi <= t}, v in {phi <= t'}) / dc: the density of (u, v) at every two ends that move, with their signs.
    double meetings(const Level& level, const Level& other) const {
        double sum = 0.0;
        for (int i = 0; i < level.count; ++i) {
            sum += meetings_of(level.high[i], level.high_piece[i], 1.0, other);
            sum += meetings_of(level.low[i], level.low_piece[i], -1.0, other);
        }
        return sum;
    }

    double meetings_of(double z, int piece, double sign, const Level& other) const {
        if (piece == Level::nowhere) return 0.0;
        double sum = 0.0;
        for (int i = 0; i < other.count; ++i) {
            sum += sign * density(z, piece, other.high[i], other.high_piece[i], other);
            sum -= sign * density(z, piece, other.low[i], other.low_piece[i], other);
        }
        return sum;
    }

    double density(double z, int piece, double z_other, int piece_other, const Level& other) const {
        if (piece_other == Level::nowhere) return 0.0;
        const double apart = (piece == piece_other ? other.moved[piece] / sets_.root() : z_other - z) / w_;
        if (std::fabs(apart) > 10.0) return 0.0;
        return fexp(-0.5 * apart * apart - z * z_other / t_) / (2.0 * pi * w_);
    }

    const LevelSets& sets_;
    int size_;
    double s_, t_, w_;
    Array<Level> levels_, others_;
    const DoubleExponential* inner_ = nullptr;
    double outer_weight_ = 0.0;
    Pair inner_error_;
};

}  // namespace igb::inline IGB_ISA
