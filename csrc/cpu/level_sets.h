// Where phi is at most t, for a phi that both rises and falls: {phi <= t} is a union of intervals, one end on each of
// the monotone pieces of phi that passes t. With H(t) = P(u in {phi <= t}), the largest of k nodes is at most t with
// the probability H(t)^k (level_integrals.h). Between two neighbours of the breaks - values at turning points, kinks,
// jumps and at the ends of what counts - the ends of the intervals are analytic in t.
//
// Values are those of phi - phi(0), and distances in t and in x come from integrals of phi' where they are small, so
// that nothing is lost at small variances nor between two levels close together.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <new>

#include "cpu/kernels.h"
#include "cpu/table_rules.h"

namespace igb::inline IGB_ISA {

// An array without the standard library, whose templates would be shared between instruction sets, and without
// exceptions: what is asked for here is some megabytes at the most.
template <class T>
class Array {
public:
    explicit Array(std::size_t size = 0) { fill(size); }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    ~Array() { drop(); }

    void reset(std::size_t size) {
        drop();
        fill(size);
    }
    T& operator[](std::size_t i) { return data_[i]; }
    const T& operator[](std::size_t i) const { return data_[i]; }
    T& operator[](int i) { return data_[i]; }
    const T& operator[](int i) const { return data_[i]; }
    T* data() { return data_; }

private:
    void fill(std::size_t size) {
        size_ = size;
        data_ = static_cast<T*>(std::malloc((size + 1) * sizeof(T)));
        if (data_ == nullptr) std::abort();
        for (std::size_t i = 0; i < size; ++i) new (data_ + i) T();
    }

    void drop() {
        for (std::size_t i = 0; i < size_; ++i) data_[i].~T();
        std::free(data_);
    }

    T* data_;
    std::size_t size_;
};

inline void insert_sorted(double* row, int& count, double x) {
    int at = count++;
    for (; at > 0 && row[at - 1] > x; --at) row[at] = row[at - 1];
    row[at] = x;
}

// sign phi - level on [low, high], cut into monotone pieces; `sign` is -1 for the least of k nodes.
class Pieces {
public:
    struct Piece {
        double left, right;        // where it lies
        double least, most;        // its values
        double at_least, at_most;  // where: its ends
        double way;                // 1 if it rises with x, -1 if it falls
    };
    static constexpr int most_pieces = 2048;

    // False if there are too many.
    bool cut(const TableView& table, double sign, double level, double low, double high) {
        table_ = table;
        sign_ = sign;
        low_ = low;
        high_ = high;
        level_from(level);
        return find_turns() && make_pieces();
    }

    int count() const { return count_; }
    const Piece& operator[](int p) const { return pieces_[p]; }

    // The piece that begins at x, in the direction `way`; count() where there is none.
    int at(double x, double way) const {
        int p = 0;
        while (p < count_ && !(way > 0.0 ? pieces_[p].right > x : pieces_[p].right >= x)) ++p;
        return p;
    }

    const TableView& table() const { return table_; }
    double low() const { return low_; }
    double high() const { return high_; }

    // The value at x, from the side `way`.
    double value(double x, double way) const {
        const int p = panel_toward(x, way);
        return value_in(p, x);
    }

    double slope(double x, double way) const {
        double out[1];
        evaluate<1>(table_, 1, panel_toward(x, way), &x, out);
        return sign_ * out[0];
    }

    // value(x + d) - value(x), with no jump between, to its own digits; `rounding` bounds the error where these are
    // fewer.
    double change(double x, double d) const {
        double rounding;
        return change(x, d, rounding);
    }

    double change(double x, double d, double& rounding) const {
        rounding = 0.0;
        const double way = d < 0.0 ? -1.0 : 1.0, y = x + d;
        const int from = panel_toward(x, way), to = panel_toward(y, -way);
        if (from == to && std::fabs(d) < near_by * length(from)) return by_slope(from, x, d);
        if (from != to && std::abs(to - from) == 1 && std::fabs(d) < near_by * std::fmin(length(from), length(to))) {
            const double edge = table_.edges[way > 0.0 ? to : from], first = edge - x;
            return by_slope(from, x, first) + by_slope(to, edge, d - first);
        }
        const double before = value_in(from, x), after = value_in(to, y);
        rounding = 2e-16 * (std::fabs(before) + std::fabs(after));
        return after - before;
    }

    // How far to go from x, in the direction `way`, until the value has changed by `amount` in the sense of `sign` (1
    // up,
    // -1 down), which it does all the way; not further than `most`.
    double travel(double x, double way, double sign, double amount, double most) const {
        if (!(amount > 0.0) || !(most > 0.0)) return 0.0;
        double low = 0.0, high = most, d = first_guess(x, way, sign, amount, most);
        for (int step = 0; step < 100; ++step) {
            double rounding;
            const double over = sign * change(x, way * d, rounding) - amount;
            (over < 0.0 ? low : high) = d;
            if (std::fabs(over) <= 2e-16 * amount + rounding) break;
            double next = d - over / (sign * way * slope(x + way * d, -way));
            const bool newton = next > low && next < high;
            if (!newton) next = 0.5 * (low + high);
            const bool near = std::fabs(next - d) <= (newton ? 1e-9 : 3e-16) * next;  // Newton doubles the digits
            d = next;
            if (near) break;
        }
        return d;
    }

private:
    static constexpr double near_by = 0.1;  // of a panel: so far four nodes integrate phi'
    static constexpr int samples = 40;      // on each panel, for changes of sign of phi'

    double length(int panel) const { return table_.edges[panel + 1] - table_.edges[panel]; }

    int panel_toward(double x, double way) const {
        const int p = panel_of(table_, x);
        return way < 0.0 && p > 0 && table_.edges[p] == x ? p - 1 : p;
    }

    double by_slope(int panel, double x, double d) const {
        constexpr double node[] = {0.06943184420297371, 0.33000947820757187, 0.66999052179242813, 0.93056815579702629};
        constexpr double weight[] = {0.17392742256872693, 0.32607257743127307, 0.32607257743127307,
                                     0.17392742256872693};
        double at[4], out[4];
        for (int i = 0; i < 4; ++i) at[i] = x + node[i] * d;
        evaluate<4>(table_, 1, panel, at, out);
        double sum = 0.0;
        for (int i = 0; i < 4; ++i) sum += weight[i] * out[i];
        return sign_ * sum * d;
    }

    double raw(int panel, double x) const {
        double out[1];
        evaluate<1>(table_, 0, panel, &x, out);
        return sign_ * out[0];
    }

    // From the end of the panel that is nearer to zero.
    double value_in(int panel, double x) const {
        const double edge = table_.edges[panel < zero_ ? panel + 1 : panel], d = x - edge;
        if (d == 0.0) return base_[panel];
        if (at_base_[panel] != 0.0 && std::fabs(d) < near_by * length(panel))
            return base_[panel] + by_slope(panel, edge, d);
        return base_[panel] + (raw(panel, x) - at_base_[panel]);
    }

    double over_panel(int panel) const {
        const double a = table_.edges[panel], b = table_.edges[panel + 1], rise = raw(panel, b) - raw(panel, a);
        if (std::fabs(raw(panel, a)) < 8.0 * std::fabs(rise)) return rise;
        const GaussLegendre& rule = GaussLegendre::rule();
        double x[cell_nodes], out[cell_nodes], sum = 0.0;
        for (int i = 0; i < cell_nodes; ++i) x[i] = a + 0.5 * (b - a) * (1.0 + rule.x[i]);
        evaluate<cell_nodes>(table_, 1, panel, x, out);
        for (int i = 0; i < cell_nodes; ++i) sum += rule.w[i] * out[i];
        return sign_ * 0.5 * (b - a) * sum;
    }

    double jump_at_edge(double edge) const {
        for (int k = 0; k < table_.kink_count; ++k) {
            if (table_.kinks[k] == edge) return sign_ * table_.jumps[k];
        }
        return 0.0;
    }

    // base: values, less that at zero and more `level`, at the inner end of every panel; at_base: those of the series.
    void level_from(double level) {
        base_.reset(static_cast<std::size_t>(table_.panels));
        at_base_.reset(static_cast<std::size_t>(table_.panels));
        zero_ = panel_of(table_, 0.0);
        double at = level;
        for (int p = zero_; p < table_.panels; ++p) {
            base_[p] = at;
            at_base_[p] = raw(p, table_.edges[p]);
            at += over_panel(p) + jump_at_edge(table_.edges[p + 1]);
        }
        at = level;
        for (int p = zero_ - 1; p >= 0; --p) {
            at -= jump_at_edge(table_.edges[p + 1]);
            base_[p] = at;
            at_base_[p] = raw(p, table_.edges[p + 1]);
            at -= over_panel(p);
        }
    }

    double first_guess(double x, double way, double sign, double amount, double most) const {
        double out[1];
        evaluate<1>(table_, 2, panel_toward(x, way), &x, out);
        const double steep = sign * way * slope(x, way), root = steep * steep + 2.0 * sign * sign_ * out[0] * amount;
        const double guess = root > 0.0 ? 2.0 * amount / (steep + std::sqrt(root)) : most;
        return guess > 0.0 && guess < most ? guess : 0.5 * most;
    }

    // ---- Turning points ---------------------------------------------------------------------------------------------

    // Ends of pieces from left to right: the ends of the range, where phi' changes its sign, and jumps.
    bool find_turns() {
        turns_.reset(most_pieces + 1);
        fixed_.reset(most_pieces + 1);
        turn_count_ = 0;
        if (!add_turn(low_, true)) return false;
        double last = 0.0, last_sign = 0.0;
        for (int p = panel_of(table_, low_); p < table_.panels && table_.edges[p] < high_; ++p) {
            const double a = std::fmax(table_.edges[p], low_), b = std::fmin(table_.edges[p + 1], high_);
            if (a == table_.edges[p] && a > low_ && jump_at_edge(a) != 0.0) {
                if (!add_turn(a, true)) return false;
                last_sign = 0.0;
            }
            for (int i = 0; i < samples; ++i) {
                const double x = a + (b - a) * 0.5 * (1.0 - std::cos(pi * (i + 0.5) / samples));
                const double s = slope(x, 1.0), sign = s > 0.0 ? 1.0 : s < 0.0 ? -1.0 : 0.0;
                if (sign == 0.0) continue;
                if (last_sign == -sign && !add_turn(where_slope_turns(last, x, last_sign), false)) return false;
                last = x;
                last_sign = sign;
            }
        }
        return add_turn(high_, true);
    }

    double where_slope_turns(double low, double high, double sign) const {
        for (int step = 0; step < 200; ++step) {
            const double middle = low < 0.0 && high > 0.0 ? 0.0 : 0.5 * (low + high);
            if (!(middle > low && middle < high)) break;
            const double s = slope(middle, 1.0) * sign;
            if (s == 0.0) return middle;
            (s > 0.0 ? low : high) = middle;
        }
        return high;
    }

    bool add_turn(double x, bool fixed) {
        if (turn_count_ > most_pieces) return false;
        turns_[turn_count_] = x;
        fixed_[turn_count_++] = fixed;
        return true;
    }

    double rise_between(int turn) const { return value(turns_[turn + 1], -1.0) - value(turns_[turn], 1.0); }

    // Whether what is between two turning points is rounding in phi', as where phi is flat to all its digits.
    bool is_noise(int turn) const {
        const double a = turns_[turn], b = turns_[turn + 1];
        const int panel = panel_of(table_, 0.5 * (a + b));
        return std::fabs(rise_between(turn)) <= 1e-12 * table_.largest[1][panel] * (b - a);
    }

    void remove_turn(int turn) {
        for (int i = turn; i + 1 < turn_count_; ++i) {
            turns_[i] = turns_[i + 1];
            fixed_[i] = fixed_[i + 1];
        }
        --turn_count_;
    }

    bool make_pieces() {
        for (int turn = 0; turn + 1 < turn_count_; ++turn) {
            const bool first = fixed_[turn], second = fixed_[turn + 1];
            if ((first && second) || !is_noise(turn)) continue;
            if (!second) remove_turn(turn + 1);
            if (!first) remove_turn(turn);
            turn = turn > 1 ? turn - 2 : -1;
        }
        count_ = turn_count_ - 1;
        pieces_.reset(static_cast<std::size_t>(count_));
        for (int p = 0; p < count_; ++p) {
            const double a = turns_[p], b = turns_[p + 1], at_a = value(a, 1.0), at_b = value(b, -1.0);
            pieces_[p] = at_b >= at_a ? Piece{a, b, at_a, at_b, a, b, 1.0} : Piece{a, b, at_b, at_a, b, a, -1.0};
        }
        return true;
    }

    TableView table_{};
    double sign_ = 1.0, low_ = 0.0, high_ = 0.0;
    int zero_ = 0;
    Array<double> base_, at_base_, turns_;
    Array<bool> fixed_;
    int turn_count_ = 0, count_ = 0;
    Array<Piece> pieces_;
};

// The intervals of {phi <= t} in units of sqrt(q), in order, and the pieces on which their ends move with t.
struct Level {
    enum State : unsigned char { above, across, below };  // how a piece lies to t
    static constexpr double infinite = 1e3;
    static constexpr int nowhere = -1;  // an end that does not move: at infinity, or at a jump

    Array<State> state;
    Array<double> x, moved;  // of pieces across: where, and how far from the level before
    int count = 0;
    Array<double> low, high;
    Array<int> low_piece, high_piece;

    void fit(const Pieces& pieces) {
        const std::size_t n = static_cast<std::size_t>(pieces.count()) + 1;
        state.reset(n);
        x.reset(n);
        moved.reset(n);
        low.reset(n);
        high.reset(n);
        low_piece.reset(n);
        high_piece.reset(n);
    }

    // The intervals from the states and places of the pieces.
    void assemble(const Pieces& pieces, double root) {
        count = 0;
        double end = 0.0;
        bool open = false;
        for (int p = 0; p < pieces.count(); ++p) {
            const Pieces::Piece& piece = pieces[p];
            if (state[p] == above) {
                open = false;
                continue;
            }
            const bool moves = state[p] == across, rises = piece.way > 0.0;
            const double a = moves && !rises ? x[p] : piece.left, b = moves && rises ? x[p] : piece.right;
            if (!(open && a == end)) {
                low[count] = p == 0 && a == piece.left ? -infinite : a / root;
                low_piece[count++] = moves && !rises ? p : nowhere;
            }
            high[count - 1] = p + 1 == pieces.count() && b == piece.right ? infinite : b / root;
            high_piece[count - 1] = moves && rises ? p : nowhere;
            open = b == piece.right;
            end = b;
        }
    }

    double mass() const {
        double sum = 0.0;
        for (int i = 0; i < count; ++i) sum += between(low[i], high[i]);
        return sum;
    }

    double mass_outside() const {
        double sum = 0.0, from = -infinite;
        for (int i = 0; i < count; ++i) {
            sum += between(from, low[i]);
            from = high[i];
        }
        return sum + between(from, infinite);
    }

    static double between(double a, double b) {
        if (!(b > a)) return 0.0;
        return a > 0.0 ? normal_cdf(-a) - normal_cdf(-b) : normal_cdf(b) - normal_cdf(a);
    }
};

// The trapezoidal rule after t = 1 / (1 + exp(-pi sinh xi)): right for whatever singularities at the ends of an
// interval, and nested: every second node is the rule of twice the step.
struct DoubleExponential {
    static constexpr int levels = 5, most = 2 * 416 + 1;
    static constexpr double reach = 3.25;
    int count;
    double left[most], right[most], weight[most];  // of the unit interval: distances from its ends

    static const DoubleExponential& rule(int level);

private:
    struct Rules;
    void fill(int level) {
        const int half = 26 << level;  // reach / (1 / 8)
        count = 2 * half + 1;
        for (int i = 0; i < count; ++i) {
            const double xi = reach * (i - half) / half, bent = pi * std::sinh(xi);
            left[i] = 1.0 / (1.0 + std::exp(-bent));
            right[i] = 1.0 / (1.0 + std::exp(bent));
            weight[i] = pi * std::cosh(xi) * left[i] * right[i] * (reach / half);
        }
    }
};

struct DoubleExponential::Rules {
    DoubleExponential of[levels];
    Rules() {
        for (int level = 0; level < levels; ++level) of[level].fill(level);
    }
};

inline const DoubleExponential& DoubleExponential::rule(int level) {
    static const Rules rules;
    return rules.of[level];
}

// A phi, or a mixture of them, at one variance: breaks in t, and levels between them.
class LevelSets {
public:
    LevelSets(const TableMixture& mixture, double q) : q_(q), root_(std::sqrt(q)), count_(mixture.count) {
        parts_.reset(static_cast<std::size_t>(count_));
        const double sign = mixture.largest ? 1.0 : -1.0;
        for (int c = 0; c < count_ && good_; ++c) {
            const TableView& table = mixture.shares[c].table;
            Part& part = parts_[c];
            part.weight = mixture.shares[c].weight;
            const double at_zero = sign * value_at_zero(table);
            if (c == 0) origin_ = at_zero;
            double low, high;
            find_range(table, low, high);
            good_ = part.pieces.cut(table, sign, at_zero - origin_, low, high);
            jumps_ = jumps_ || jumps_somewhere(table);
        }
        if (good_) find_breaks();
        for (int c = 0; c < count_ && good_; ++c) cross_breaks(parts_[c]);
    }

    bool good() const { return good_; }
    bool jumps() const { return jumps_; }
    double origin() const { return origin_; }  // t is counted from here
    double q() const { return q_; }
    double root() const { return root_; }
    int parts() const { return count_; }
    double weight(int c) const { return parts_[c].weight; }
    const Pieces& pieces(int c) const { return parts_[c].pieces; }

    int intervals() const { return break_count_ - 1; }
    double begin(int interval) const { return breaks_[interval]; }
    double width(int interval) const { return breaks_[interval + 1] - breaks_[interval]; }
    double span() const { return break_count_ > 0 ? breaks_[break_count_ - 1] - breaks_[0] : 0.0; }

    // The level at the distances `left` and `right` from the ends of an interval.
    void place(int c, int interval, double left, double right, Level& level) const {
        const Part& part = parts_[c];
        for (int p = 0; p < part.pieces.count(); ++p) {
            level.state[p] = state_of(part.pieces[p], interval);
            if (level.state[p] == Level::across) level.x[p] = place_on(part, p, interval, left, right);
            level.moved[p] = 0.0;
        }
        level.assemble(part.pieces, root_);
    }

    // The level `rise` above `from`: pieces that are across both say how far they moved.
    void place_after(int c, const Level& from, double rise, int interval, double left, double right,
                     Level& level) const {
        const Part& part = parts_[c];
        for (int p = 0; p < part.pieces.count(); ++p) {
            const Pieces::Piece& piece = part.pieces[p];
            level.state[p] = state_of(piece, interval);
            level.moved[p] = 0.0;
            if (level.state[p] != Level::across) continue;
            if (from.state[p] == Level::across) {
                level.moved[p] =
                    part.pieces.travel(from.x[p], piece.way, 1.0, rise, std::fabs(piece.at_most - from.x[p]));
                level.x[p] = from.x[p] + piece.way * level.moved[p];
            } else {
                level.x[p] = place_on(part, p, interval, left, right);
            }
        }
        level.assemble(part.pieces, root_);
    }

    void fit(Array<Level>& levels) const {
        levels.reset(static_cast<std::size_t>(count_));
        for (int c = 0; c < count_; ++c) levels[c].fit(parts_[c].pieces);
    }

private:
    struct Part {
        Pieces pieces;
        double weight = 1.0;
        Array<double> crossing;  // [piece][break]: where a piece has the value of a break
    };
    static constexpr int most_breaks = 1024;
    static constexpr double normal_reach = 9.3;

    static double value_at_zero(const TableView& table) {
        double x[1] = {0.0}, out[1];
        evaluate<1>(table, 0, panel_of(table, 0.0), x, out);
        return out[0];
    }

    void find_range(const TableView& table, double& low, double& high) const {
        const Range counts =
            range_of(table, 0, root_).joined(range_of(table, 1, root_)).joined({-normal_reach, normal_reach});
        low = root_ * counts.low;
        high = root_ * counts.high;
        low = std::fmax(low, table.edges[0]);
        high = std::fmin(high, table.edges[table.panels]);
    }

    void find_breaks() {
        breaks_.reset(most_breaks + 2);
        break_count_ = 0;
        insert_sorted(breaks_.data(), break_count_, 0.0);
        for (int c = 0; c < count_ && good_; ++c) {
            const Pieces& pieces = parts_[c].pieces;
            const TableView& table = pieces.table();
            for (int p = 0; p < pieces.count(); ++p) {
                add_break(pieces[p].least);
                add_break(pieces[p].most);
            }
            for (int k = 0; k < table.kink_count; ++k) {
                if (!(table.kinks[k] > pieces.low() && table.kinks[k] < pieces.high())) continue;
                add_break(pieces.value(table.kinks[k], -1.0));
                add_break(pieces.value(table.kinks[k], 1.0));
            }
        }
        const double all = span();
        for (int b = 0; b < break_count_; ++b) {
            if (std::fabs(breaks_[b]) <= 1e-15 * all) breaks_[b] = 0.0;  // where the integrands have another form
        }
        int kept = 1;
        for (int b = 1; b < break_count_; ++b) {
            if (breaks_[b] - breaks_[kept - 1] > 1e-15 * all) breaks_[kept++] = breaks_[b];
        }
        break_count_ = kept;
    }

    void add_break(double t) {
        for (int b = 0; b < break_count_; ++b) {
            if (breaks_[b] == t) return;
        }
        if (break_count_ > most_breaks) {
            good_ = false;
            return;
        }
        insert_sorted(breaks_.data(), break_count_, t);
    }

    Level::State state_of(const Pieces::Piece& piece, int interval) const {
        const double middle = 0.5 * (breaks_[interval] + breaks_[interval + 1]);
        return piece.most <= middle ? Level::below : piece.least >= middle ? Level::above : Level::across;
    }

    void cross_breaks(Part& part) {
        const std::size_t breaks = static_cast<std::size_t>(break_count_);
        part.crossing.reset(static_cast<std::size_t>(part.pieces.count()) * breaks);
        for (int p = 0; p < part.pieces.count(); ++p) {
            const Pieces::Piece& piece = part.pieces[p];
            const double near = 2e-15 * span(), all = std::fabs(piece.at_most - piece.at_least);
            for (int b = 0; b < break_count_; ++b) {
                const double up = breaks_[b] - piece.least, down = piece.most - breaks_[b];
                double& x = part.crossing[static_cast<std::size_t>(p) * breaks + static_cast<std::size_t>(b)];
                x = up <= near ? piece.at_least
                    : down <= near
                        ? piece.at_most
                        : piece.at_least + piece.way * part.pieces.travel(piece.at_least, piece.way, 1.0, up, all);
            }
        }
    }

    double place_on(const Part& part, int p, int interval, double left, double right) const {
        const Pieces::Piece& piece = part.pieces[p];
        const double* const crossing = &part.crossing[p * break_count_ + interval];
        const double a = crossing[0], b = crossing[1], most = std::fabs(b - a);
        if (left <= right) return a + piece.way * part.pieces.travel(a, piece.way, 1.0, left, most);
        return b - piece.way * part.pieces.travel(b, -piece.way, -1.0, right, most);
    }

    double q_, root_;
    int count_;
    Array<Part> parts_;
    Array<double> breaks_;
    int break_count_ = 0;
    double origin_ = 0.0;
    bool good_ = true, jumps_ = false;
};

}  // namespace igb::inline IGB_ISA
