// The layers of covariance_map.h. What is done for every pair is in covariance_rows.cpp, and for a GPU in
// cuda/covariance_map.cu; here is what is done for every input, and the choice of how a component of phi is integrated:
//     closed forms     linear, relu, leaky_relu, erf
//     Hermite series   everything analytic, as long as the series converges
//     one curve        the rest, where all inputs have one variance or phi(k x) = k phi(x): a function of c alone
//     pair by pair     where they have not
#include "cpu/covariance_map.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/covariance_pairs.h"
#include "cpu/adaptive_curve.h"
#include "cpu/hermite_rule.h"
#include "cpu/kernels.h"
#include "cpu/moments.h"
#include "cpu/parallel.h"

namespace igb {

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double smallest = std::numeric_limits<double>::min();
constexpr double epsilon = std::numeric_limits<double>::epsilon();
constexpr double allowed_loss = 1e-9;  // relative error beyond which sigma_y2 counts as lost

const CovarianceKernels& pairs() { return *kernels().covariance; }

// body(first input, worker) for every block of inputs.
template <class Body>
void for_blocks(Size padded, Body&& body) {
    parallel_for(at(padded / pair_block),
                 [&](std::size_t index, int worker) { body(Size(index) * pair_block, worker); });
}

// ---- phi at quadrature nodes ----------------------------------------------------------------------------------------

void values(const Leaf& leaf, Size count, const double* x, double* out) {
    if (!leaf.table) return pairs().values(leaf.activation, count, x, out);
    const double low = leaf.table->edges.front(), high = leaf.table->edges.back();
    std::vector<double> within(x, x + count);
    for (double& y : within) y = std::clamp(y, low, high);
    kernels().table_values(leaf.table->view(), 0, count, within.data(), out);
}

// phi(m + d) - phi(m). Of a table, over less than `short_step` (over which phi is close to a polynomial), as the
// integral of phi' by a Gauss-Legendre rule of four nodes, which does not cancel.
void changes(const Leaf& leaf, Size count, const double* m, const double* d, double short_step, double* out) {
    if (!leaf.table) return pairs().changes(leaf.activation, count, m, d, out);
    constexpr double node[4] = {0.069431844202973714, 0.33000947820757187, 0.66999052179242813, 0.93056815579702629};
    constexpr double weight[4] = {0.17392742256872693, 0.32607257743127307, 0.32607257743127307, 0.17392742256872693};
    const TableView table = leaf.table->view();
    const double low = leaf.table->edges.front(), high = leaf.table->edges.back();
    for (Size i = 0; i < count; ++i) {
        const double start = std::clamp(m[i], low, high), end = std::clamp(m[i] + d[i], low, high);
        if (d[i] == 0.0) {
            out[i] = 0.0;
        } else if (std::fabs(d[i]) < short_step) {
            double x[4], slope[4];
            for (int k = 0; k < 4; ++k) x[k] = std::clamp(m[i] + node[k] * d[i], low, high);
            kernels().table_values(table, 1, 4, x, slope);
            out[i] = d[i] * (weight[0] * (slope[0] + slope[3]) + weight[1] * (slope[1] + slope[2]));
        } else {
            double ends[2] = {start, end}, phi[2];
            kernels().table_values(table, 0, 2, ends, phi);
            out[i] = phi[1] - phi[0];
        }
    }
}

// phi(k x) = k phi(x) for k > 0
bool is_homogeneous(const Leaf& leaf) {
    if (!leaf.table) return leaf.activation.kind != ActivationKind::tanh && leaf.activation.kind != ActivationKind::erf;
    const auto is_zero = [](double x) { return x == 0.0; };
    const double zero = 0.0;
    double at_zero;
    kernels().table_values(leaf.table->view(), 0, 1, &zero, &at_zero);
    const Table& table = *leaf.table;
    return at_zero == 0.0 && std::all_of(table.kinks.begin(), table.kinks.end(), is_zero) &&
           std::all_of(table.jumps.begin(), table.jumps.end(), is_zero) &&
           std::all_of(table.series[2].coefficients.begin(), table.series[2].coefficients.end(), is_zero);
}

int parity_of(const Leaf& leaf) { return leaf.table ? leaf.table->parity : -1; }  // of those without: tanh and erf

}  // namespace

// ---- Inputs ---------------------------------------------------------------------------------------------------------

struct CovarianceLayers::Inputs {
    Size count, padded;
    Size reference = 0;  // the index of the input from which differences are taken: one of median variance
    bool layernorm;
    double q_reference = 0.0;
    AlignedVector<double> change;  // q_a - q_reference
    AlignedVector<double> q, root_change, inverse_root, seen, seen_change;

    Inputs(Size n, Size n_padded, bool normalised) : count(n), padded(n_padded), layernorm(normalised) {
        for (auto* array : {&change, &q, &root_change, &inverse_root, &seen, &seen_change})
            array->assign(at(padded), 0.0);
    }

    // All the rest from q_reference and change. The filling repeats the reference.
    void set() {
        const double root_reference = std::sqrt(q_reference);
        for (Size a = 0; a < padded; ++a) {
            if (a >= count) change[at(a)] = 0.0;
            const double d = change[at(a)];
            q[at(a)] = std::max(q_reference + d, 0.0);
            const double root = std::sqrt(q[at(a)]), sum = root + root_reference;
            const double difference = sum > 0.0 ? d / sum : 0.0;
            root_change[at(a)] = std::fabs(difference) > 1e-160 ? difference : 0.0;  // its square is what counts
            inverse_root[at(a)] = root > 0.0 ? 1.0 / root : 0.0;
            seen[at(a)] = layernorm ? 1.0 : root;
            seen_change[at(a)] = layernorm ? 0.0 : root_change[at(a)];
        }
    }

    double seen_reference() const { return layernorm ? 1.0 : std::sqrt(q_reference); }
    double seen_variance(Size a) const { return layernorm ? 1.0 : q[at(a)]; }
    double largest() const { return *std::max_element(q.begin(), q.begin() + count); }
    double mean() const {
        return q_reference + std::accumulate(change.begin(), change.begin() + count, 0.0) / static_cast<double>(count);
    }
    InputView view() const {
        return {count, padded, q.data(), root_change.data(), inverse_root.data(), seen.data(), seen_change.data()};
    }
};

// ---- What phi makes of each input -----------------------------------------------------------------------------------

struct CovarianceLayers::Moments {
    double square_reference = 0.0;            // E[phi_r^2]
    AlignedVector<double> square_change;      // E[phi_a^2] - E[phi_r^2]
    AlignedVector<double> mean, mean_change;  // E[phi_a], E[phi_a] - E[phi_r]
    AlignedVector<double> slope2;             // E[phi'_a^2]

    explicit Moments(Size padded) {
        for (auto* array : {&square_change, &mean, &mean_change, &slope2}) array->assign(at(padded), 0.0);
    }

    void clear() {
        square_reference = 0.0;
        for (auto* array : {&square_change, &mean, &mean_change, &slope2}) std::fill(array->begin(), array->end(), 0.0);
    }

    void add(Size a, double weight, double square, double m, double m_change, double slope) {
        square_change[at(a)] += weight * square;
        mean[at(a)] += weight * m;
        mean_change[at(a)] += weight * m_change;
        slope2[at(a)] += weight * slope;
    }
};

// ---- Routes ---------------------------------------------------------------------------------------------------------

class CovarianceLayers::Route {
public:
    // A pool of extremes, of any phi.
    Route(const Phi& phi, const Pool& extremes)
        : weight_(1.0), exact_(phi, extremes), can_expand_(false),
          homogeneous_(std::all_of(phi.shares.begin(), phi.shares.end(),
                                   [](const Phi::Share& share) { return is_homogeneous(share.leaf); })) {}

    // One component of phi.
    Route(double weight, const Leaf& leaf) : weight_(weight), leaf_(leaf), exact_(Phi{{{1.0, leaf}}}, Pool{}) {
        if (!leaf.table) {
            switch (leaf.activation.kind) {
                case ActivationKind::linear: set_line(1.0); break;
                case ActivationKind::relu: set_line(0.0); break;
                case ActivationKind::leaky_relu: set_line(leaf.activation.parameter); break;
                case ActivationKind::erf: kind_ = Kind::erf; break;
                case ActivationKind::tanh: kind_ = Kind::series; break;
            }
        } else {
            can_expand_ = leaf.table->kinks.empty();
            homogeneous_ = is_homogeneous(leaf);
        }
    }

    // Adds to the moments of all inputs, and makes ready for add().
    void prepare(const Inputs& in, Moments& moments) {
        if (kind_ == Kind::line) return prepare_line(in, moments);
        if (can_expand_) kind_ = leaf_.table || kind_ != Kind::erf ? Kind::series : Kind::erf;
        if (kind_ == Kind::erf || (can_expand_ && fits(in))) return prepare_nodes(in, moments);
        const bool one_variance = std::all_of(in.seen_change.begin(), in.seen_change.begin() + in.count,
                                              [&](double change) { return change == in.seen_change.front(); });
        kind_ = homogeneous_ || one_variance ? Kind::curve : Kind::direct;
        prepare_direct(in, moments);
    }

    bool needs_curve() const { return kind_ == Kind::curve; }

    // Ready for the pairs whose angles lie from `low` to `high`; pair by pair if there is no curve to be had.
    void make_curve(double low, double high) {
        const auto evaluate = [&](int count, const double* angle, AdaptiveCurve::Values* out) {
            parallel_for(at(count), [&](std::size_t i, int worker) {
                const double half = std::sin(0.5 * angle[i]), s = 2.0 * half * half;
                const SplitMoments found = split_at(of_worker_[at(worker)], std::cos(angle[i]), s);
                out[i] = {found.centre, found.spread / s};
            });
        };
        if (low > high) return;  // all inputs are one
        for (const double tolerance : {3e-14, 1e-12, 1e-10}) {
            if (curve_.build(low * (1.0 - 1e-12), high * (1.0 + 1e-12), tolerance, evaluate)) return;
        }
        kind_ = Kind::direct;
    }

    // phi(-x) = -phi(x)
    bool is_odd() const {
        return kind_ == Kind::line ? line_.bend2 == 0.0
                                   : (kind_ == Kind::erf || kind_ == Kind::series) && parity_of(leaf_) < 0;
    }

    PairRoute view() const {
        return {kind_, weight_, line_, series_view(), kind_ == Kind::curve ? curve_view() : CurveView{}};
    }

    void add(const InputView& in, bool mirrored, const PairRows& rows, PairSink& sink, int worker,
             const Monitor& monitor) {
        switch (kind_) {
            case Kind::line: return pairs().add_piecewise_linear(in, line_, weight_, mirrored, rows, sink);
            case Kind::erf: return pairs().add_erf(in, series_view(), weight_, mirrored, rows, sink);
            case Kind::series: return pairs().add_series(in, series_view(), weight_, mirrored, rows, sink);
            case Kind::curve: return add_curve(in, rows, sink);
            case Kind::direct: return add_direct(in, rows, sink, worker, monitor);
        }
    }

private:
    using Kind = PairRoute::Kind;

    double weight_;
    Leaf leaf_;
    Expectations exact_;
    Kind kind_ = Kind::series;
    bool can_expand_ = true, homogeneous_ = false;
    PiecewiseLinearView line_{};

    // Series, and the features of erf.
    int level_ = 0, used_ = 0;
    AlignedVector<double> series_, feature_, feature_matrix_;
    int features_ = 0;
    double feature_scale2_ = 0.0;

    // Pair by pair, and the curve at variance unit_.
    std::vector<Expectations> of_worker_;
    std::vector<double> square_;
    AdaptiveCurve curve_;  // E[phi_a phi_b] and E[(phi_a - phi_b)^2] / (2 s), by the angle
    double unit_ = 1.0;
    SingleMoments at_unit_{};

    void set_line(double a) {
        kind_ = Kind::line;
        line_ = {0.25 * (1.0 + a) * (1.0 + a), 0.25 * (1.0 - a) * (1.0 - a)};
    }

    PairSeriesView series_view() const {
        return {parity_of(leaf_), used_,           Size{used_} * pair_block, series_.data(),
                features_,        feature_.data(), feature_scale2_};
    }

    CurveView curve_view() const { return curve_.view(unit_, at_unit_.square); }

    const HermiteRule& rule() const { return HermiteRule::of(parity_of(leaf_), level_); }

    void prepare_line(const Inputs& in, Moments& moments) {
        const double square = line_.slope2 + line_.bend2, mean = 2.0 * normal_peak * std::sqrt(line_.bend2);
        const double sign =
            leaf_.activation.kind == ActivationKind::leaky_relu && leaf_.activation.parameter > 1.0 ? -1.0 : 1.0;
        const double reference = in.seen_reference();
        moments.square_reference += weight_ * square * reference * reference;
        for (Size a = 0; a < in.padded; ++a) {
            const double variance_change = in.layernorm ? 0.0 : in.change[at(a)];
            moments.add(a, weight_, square * variance_change, sign * mean * in.seen[at(a)],
                        sign * mean * in.seen_change[at(a)], square);
        }
    }

    // phi at the nodes of the rule, for one block of inputs: at the reference, and the changes from there.
    struct NodeValues {
        AlignedVector<double> reference, m, d, change, value;  // [node], the others [node][pair_block]

        explicit NodeValues(const HermiteRule& rule) : reference(at(rule.nodes)) {
            for (auto* array : {&m, &d, &change, &value}) array->resize(at(Size{rule.nodes} * pair_block));
        }
    };

    void evaluate(const HermiteRule& rule, double seen_reference, const double* seen_change,
                  NodeValues& at_nodes) const {
        const Size all = Size{rule.nodes} * pair_block;
        for (Size k = 0; k < rule.nodes; ++k) at_nodes.m[at(k)] = seen_reference * rule.z[at(k)];
        values(leaf_, rule.nodes, at_nodes.m.data(), at_nodes.reference.data());
        for (Size k = 0; k < rule.nodes; ++k) {
            for (Size j = 0; j < pair_block; ++j) {
                at_nodes.d[at(k * pair_block + j)] = seen_change[j] * rule.z[at(k)];
            }
        }
        for (Size k = rule.nodes - 1; k >= 0; --k) {
            std::fill_n(at_nodes.m.begin() + k * pair_block, pair_block, seen_reference * rule.z[at(k)]);
        }
        // The rule resolves phi, so that a quarter of its step is short.
        const double step = 0.25 * seen_reference * (rule.z[1] - rule.z[0]);
        changes(leaf_, all, at_nodes.m.data(), at_nodes.d.data(), step, at_nodes.change.data());
        for (Size k = 0; k < rule.nodes; ++k) {
            for (Size j = 0; j < pair_block; ++j) {
                const std::size_t i = at(k * pair_block + j);
                at_nodes.value[i] = at_nodes.reference[at(k)] + at_nodes.change[i];
            }
        }
    }

    // The inputs of smallest and largest variance say which rule, and how many of its terms, will do for all.
    bool fits(const Inputs& in) {
        const auto [low, high] = std::minmax_element(in.seen_change.begin(), in.seen_change.begin() + in.count);
        const Size extreme[2] = {low - in.seen_change.begin(), high - in.seen_change.begin()};
        double seen_change[pair_block] = {*low, *high};
        SingleMoments exact[2];
        for (int i = 0; i < 2; ++i) exact[i] = exact_.single(in.seen_variance(extreme[i]));
        if (level_ > 0 && used_ < rule().terms / 4) --level_;
        for (; level_ < HermiteRule::levels; ++level_) {
            NodeValues nodes(rule());
            evaluate(rule(), in.seen_reference(), seen_change, nodes);
            AlignedVector<double> f(at(Size{rule().terms} * pair_block));
            pairs().combine(rule().terms, rule().nodes, rule().matrix.data(), nodes.value.data(), f.data());
            used_ = 1;
            bool good = true;
            for (int i = 0; good && i < 2; ++i) {
                good = represents(exact[i], in.seen_variance(extreme[i]), nodes.value.data() + i, f.data() + i);
            }
            if (good) return true;
        }
        level_ = 0;
        return false;
    }

    // Whether rule and series give E[phi^2] and E[phi'^2] of one lane, and the terms needed have been counted.
    bool represents(const SingleMoments& exact, double variance, const double* value, const double* f) {
        constexpr double tolerance = 1e-13, rest = 1e-15;
        double square = 0.0, slope = 0.0;
        for (Size k = 0; k < rule().nodes; ++k) {
            square += rule().weight[at(k)] * value[k * pair_block] * value[k * pair_block];
        }
        const auto part = [&](int n) { return rule().order(n) * f[Size{n} * pair_block] * f[Size{n} * pair_block]; };
        for (int n = rule().terms - 1; n >= 0; --n) slope += part(n);
        if (std::fabs(square - exact.square) > tolerance * exact.square) return false;
        if (std::fabs(slope - variance * exact.slope2) > tolerance * variance * exact.slope2) return false;
        double tail = 0.0;
        int n = rule().terms;
        while (n > 1 && tail + part(n - 1) <= rest * slope) tail += part(--n);
        used_ = std::max(used_, n);
        return n <= rule().terms - rule().terms / 16;
    }

    // erf: a rule that has E[phi^2].
    void find_rule(const Inputs& in) {
        const auto high = std::max_element(in.seen_change.begin(), in.seen_change.begin() + in.count);
        double seen_change[pair_block] = {*high};
        const double exact = exact_.single(in.seen_variance(high - in.seen_change.begin())).square;
        for (level_ = 0; level_ + 1 < HermiteRule::levels; ++level_) {
            NodeValues nodes(rule());
            evaluate(rule(), in.seen_reference(), seen_change, nodes);
            double square = 0.0;
            for (Size k = 0; k < rule().nodes; ++k) {
                square += rule().weight[at(k)] * nodes.value[at(k * pair_block)] * nodes.value[at(k * pair_block)];
            }
            if (std::fabs(square - exact) <= 1e-14 * exact) return;
        }
    }

    void prepare_nodes(const Inputs& in, Moments& moments) {
        if (kind_ == Kind::erf) {
            find_rule(in);
            used_ = 0;
        }
        const HermiteRule& nodes_of = rule();
        make_features(in);
        series_.resize(at(Size{used_} * in.padded));
        feature_.resize(at(Size{std::max(features_, 1)} * in.padded));
        const int parity = parity_of(leaf_);
        {
            NodeValues reference(nodes_of);
            const double none[pair_block] = {};
            evaluate(nodes_of, in.seen_reference(), none, reference);
            double square = 0.0;
            for (Size k = 0; k < nodes_of.nodes; ++k) {
                square += nodes_of.weight[at(k)] * reference.reference[at(k)] * reference.reference[at(k)];
            }
            moments.square_reference += weight_ * square;
        }
        for_blocks(in.padded, [&](Size first, int) {
            NodeValues nodes(nodes_of);
            evaluate(nodes_of, in.seen_reference(), in.seen_change.data() + first, nodes);
            double* const f = series_.data() + first * used_;
            pairs().combine(used_, nodes_of.nodes, nodes_of.matrix.data(), nodes.value.data(), f);
            pairs().combine(features_, nodes_of.nodes, feature_matrix_.data(), nodes.change.data(),
                            feature_.data() + first * features_);
            for (Size j = 0; j < pair_block; ++j) {
                double square = 0.0, mean = 0.0, mean_change = 0.0, slope = 0.0;
                for (Size k = 0; k < nodes_of.nodes; ++k) {
                    const double w = nodes_of.weight[at(k)], change = nodes.change[at(k * pair_block + j)];
                    const double value = nodes.value[at(k * pair_block + j)];
                    square += w * change * (value + nodes.reference[at(k)]);
                    mean += w * value;
                    mean_change += w * change;
                }
                const Size a = first + j;
                const double variance = in.seen_variance(a);
                if (kind_ == Kind::erf || variance == 0.0) {
                    slope = kernels().single_moments(leaf_.activation, variance).slope2;
                } else {
                    for (int n = used_ - 1; n >= 0; --n)
                        slope += nodes_of.order(n) * f[n * pair_block + j] * f[n * pair_block + j];
                    slope /= variance;
                }
                moments.add(a, weight_, square, parity < 0 ? 0.0 : mean, parity < 0 ? 0.0 : mean_change, slope);
            }
        });
    }

    // phi at the inputs lies on a curve, with the variance as its parameter: an orthonormal basis of what the curve
    // spans, by Gram-Schmidt on samples of it, the longest first.
    void make_features(const Inputs& in) {
        constexpr int samples = 4 * pair_block;
        const HermiteRule& nodes_of = rule();
        const auto [low, high] = std::minmax_element(in.seen_change.begin(), in.seen_change.begin() + in.count);
        const double scale = std::max(-*low, *high);
        features_ = 0;
        feature_scale2_ = scale * scale;
        if (scale == 0.0) return;
        const Size nodes = nodes_of.nodes;
        std::vector<std::vector<double>> curve;
        NodeValues values_at(nodes_of);
        for (int block = 0; block < samples; block += pair_block) {
            double seen_change[pair_block];
            for (int j = 0; j < pair_block; ++j) {
                seen_change[j] =
                    0.5 * (*low + *high) + 0.5 * (*high - *low) * std::cos(pi * (block + j) / (samples - 1));
            }
            evaluate(nodes_of, in.seen_reference(), seen_change, values_at);
            for (Size j = 0; j < pair_block; ++j) {
                std::vector<double> sample(at(nodes));
                for (Size k = 0; k < nodes; ++k) {
                    sample[at(k)] =
                        std::sqrt(nodes_of.weight[at(k)]) * (values_at.change[at(k * pair_block + j)] / scale);
                }
                curve.push_back(std::move(sample));
            }
        }
        std::vector<std::vector<double>> basis;
        double largest = 0.0;
        while (basis.size() < curve.size()) {
            std::vector<double> longest = *std::max_element(
                curve.begin(), curve.end(), [](const auto& v, const auto& w) { return dot(v, v) < dot(w, w); });
            largest = std::max(largest, std::sqrt(dot(longest, longest)));
            for (const auto& direction : basis) take_out(direction, longest);  // again, for what rounding has left
            const double length = std::sqrt(dot(longest, longest));
            if (length <= 1e-13 * largest) break;
            for (double& x : longest) x /= length;
            for (auto& v : curve) take_out(longest, v);
            basis.push_back(std::move(longest));
        }
        features_ = static_cast<int>(basis.size());
        feature_matrix_.clear();
        for (const auto& direction : basis) {
            for (Size k = 0; k < nodes; ++k) {
                feature_matrix_.push_back(direction[at(k)] * (std::sqrt(nodes_of.weight[at(k)]) / scale));
            }
        }
    }

    static double dot(const std::vector<double>& v, const std::vector<double>& w) {
        return std::inner_product(v.begin(), v.end(), w.begin(), 0.0);
    }

    // The part of v along a unit vector.
    static void take_out(const std::vector<double>& direction, std::vector<double>& v) {
        const double along = dot(v, direction);
        for (std::size_t k = 0; k < v.size(); ++k) v[k] -= along * direction[k];
    }

    void prepare_direct(const Inputs& in, Moments& moments) {
        of_worker_.assign(at(max_workers()), exact_);
        square_.resize(at(in.padded));
        const double reference = in.seen_reference() * in.seen_reference();
        unit_ = homogeneous_ ? 1.0 : in.seen_variance(0);
        at_unit_ = exact_.single(unit_);
        const SingleMoments of_reference = exact_.single(reference);
        moments.square_reference += weight_ * (homogeneous_ ? at_unit_.square * reference : of_reference.square);
        for_blocks(in.padded, [&](Size first, int worker) {
            for (Size a = first; a < first + pair_block; ++a) {
                const double seen = in.seen[at(a)], seen_change = in.seen_change[at(a)];
                if (homogeneous_) {
                    const double change = in.layernorm ? 0.0 : in.change[at(a)];
                    square_[at(a)] = at_unit_.square * seen * seen;
                    moments.add(a, weight_, at_unit_.square * change, at_unit_.mean * seen, at_unit_.mean * seen_change,
                                at_unit_.slope2);
                    continue;
                }
                const SingleMoments here =
                    seen_change == 0.0 ? of_reference : of_worker_[at(worker)].single(in.seen_variance(a));
                square_[at(a)] = here.square;
                moments.add(a, weight_, here.square - of_reference.square, here.mean, here.mean - of_reference.mean,
                            here.slope2);
            }
        });
    }

    // At one variance.
    SplitMoments split_at(Expectations& exact, double c, double s) const {
        if (c >= 0.0) return exact.split(unit_ * c, unit_ * s);
        const double centre = exact.pair(0, unit_, unit_, c);
        return {centre, at_unit_.square - centre};
    }

    void add_curve(const InputView& in, const PairRows& rows, PairSink& sink) const {
        const Size columns = in.padded - rows.first;
        const CurveView curve = curve_view();
        for (Size a = rows.first; a < std::min(rows.first + pair_block, in.count); ++a) {
            for (Size b = a + 1; b < in.count; ++b) {
                const Size i = (a - rows.first) * columns + b - rows.first;
                const Correlation at_pair = correlation_of(in, a, b, rows.covariance[i], rows.distance[i]);
                const PairTerm term = curve_term(in, a, b, at_pair, curve, weight_);
                sink.product[i] += term.product;
                sink.spread[i] += term.spread;
                sink.steep += term.steep;
            }
        }
    }

    // Where the variances are equal, the spread without cancellation; else E[phi_a^2] / 2 + E[phi_b^2] / 2 - product.
    void add_direct(const InputView& in, const PairRows& rows, PairSink& sink, int worker, const Monitor& monitor) {
        Expectations& exact = of_worker_[at(worker)];
        const Size columns = in.padded - rows.first;
        for (Size a = rows.first; a < std::min(rows.first + pair_block, in.count); ++a) {
            for (Size b = a + 1; b < in.count; ++b) {
                if (monitor.stopped()) return;
                const Size i = (a - rows.first) * columns + b - rows.first;
                const Correlation at_pair = correlation_of(in, a, b, rows.covariance[i], rows.distance[i]);
                const double q_a = in.seen[a] * in.seen[a], q_b = in.seen[b] * in.seen[b];
                SplitMoments found;
                if (in.seen_change[a] == in.seen_change[b] && at_pair.c >= 0.0) {
                    found = exact.split(q_a * at_pair.c, q_a * at_pair.s);
                } else {
                    const double half_sum = 0.5 * (square_[at(a)] + square_[at(b)]);
                    found.centre = exact.pair(0, q_a, q_b, at_pair.c);
                    found.spread = std::max(half_sum - found.centre, 0.0);
                    sink.rounding += weight_ * half_sum;
                }
                sink.steep += weight_ * found.spread;
                sink.product[i] += weight_ * found.centre;
                sink.spread[i] += weight_ * found.spread;
            }
        }
    }
};

// ---- Layers ---------------------------------------------------------------------------------------------------------

CovarianceLayers::CovarianceLayers(const CovarianceRequest& request)
    : request_(request), padded_((request.inputs + pair_block - 1) / pair_block * pair_block) {
    inputs_ = std::make_unique<Inputs>(request.inputs, padded_, request.layernorm);
    next_ = std::make_unique<Inputs>(request.inputs, padded_, request.layernorm);
    moments_ = std::make_unique<Moments>(padded_);
    for (auto* column :
         {&columns_.sigma_mu2, &columns_.sigma_y2, &columns_.gamma, &columns_.q, &columns_.c, &columns_.chi}) {
        column->assign(at(request.depth), nan);
    }
}

CovarianceLayers::~CovarianceLayers() = default;

double CovarianceLayers::largest_seen() const { return request_.layernorm ? 1.0 : inputs_->largest(); }

double CovarianceLayers::variance(Size input) const { return out_of_range_ ? nan : inputs_->q[at(input)]; }

std::int64_t CovarianceLayers::done() const {
    if (out_of_range_) return request_.depth;
    return prepared_ ? layer_ : layer_ - 1;
}

Size CovarianceLayers::middle_of(const std::vector<double>& variance) {
    std::vector<Size> order(variance.size());
    std::iota(order.begin(), order.end(), Size{0});
    const auto middle = order.begin() + static_cast<std::ptrdiff_t>(order.size() / 2);
    std::nth_element(order.begin(), middle, order.end(), [&](Size a, Size b) {
        return variance[at(a)] != variance[at(b)] ? variance[at(a)] < variance[at(b)] : a < b;
    });
    return *middle;
}

PairStep CovarianceLayers::first_step(Size reference, double variance, const std::vector<double>& changes) {
    inputs_->reference = reference;
    inputs_->q_reference = request_.sigma_w2 * variance + request_.sigma_b2;
    for (Size a = 0; a < request_.inputs; ++a) inputs_->change[at(a)] = request_.sigma_w2 * changes[at(a)];
    inputs_->set();
    lost_ = epsilon;
    const PairMap map{request_.sigma_w2,           0.0, 0.0, request_.sigma_b2, true, moments_->mean.data(),
                      moments_->mean_change.data()};
    step_ = {inputs_->view(), inputs_->view(), map, false};
    return step_;
}

void CovarianceLayers::use(const Phi& phi) {
    routes_.clear();
    layernorm_settled_ = prepared_ = false;
    q_max_ = phi.q_max();
    const Pool& pool = request_.pool;
    if (pool.size > 1 && pool.kind != PoolKind::average) {
        routes_.push_back(std::make_unique<Route>(phi, pool));
        return;
    }
    for (const Phi::Share& share : phi.shares) routes_.push_back(std::make_unique<Route>(share.weight, share.leaf));
}

std::optional<PairStep> CovarianceLayers::next_step(std::int64_t layer) {
    if (out_of_range_ || !prepare() || layer_ >= layer || !move_inputs()) return std::nullopt;
    const bool residual = request_.residual > 0.0, average = request_.pool.kind == PoolKind::average;
    const double branch = residual ? request_.residual : 1.0, share = average ? 1.0 / request_.pool.size : 1.0;
    const double gain = branch * request_.sigma_w2, bias = branch * request_.sigma_b2;
    const bool mirrored =
        std::all_of(routes_.begin(), routes_.end(), [](const auto& route) { return route->is_odd(); });
    const bool curves =
        std::any_of(routes_.begin(), routes_.end(), [](const auto& route) { return route->needs_curve(); });
    const PairMap map{
        residual ? 1.0 : 0.0,        gain * share, gain * (1.0 - share), bias, mirrored, moments_->mean.data(),
        moments_->mean_change.data()};
    step_ = {inputs_->view(), next_->view(), map, curves};
    return step_;
}

// What phi makes of the inputs of this layer; false if its expectations do not reach so far.
bool CovarianceLayers::prepare() {
    if (prepared_) return true;
    if (largest_seen() > q_max_) return false;
    if (!layernorm_settled_) {  // else phi sees the same as in the layer before
        moments_->clear();
        for (const auto& route : routes_) route->prepare(*inputs_, *moments_);
        layernorm_settled_ = request_.layernorm;
    }
    prepared_ = true;
    record_chi();
    return true;
}

// next_ from inputs_; false if it leaves the range of double.
bool CovarianceLayers::move_inputs() {
    const bool residual = request_.residual > 0.0, average = request_.pool.kind == PoolKind::average;
    const double branch = residual ? request_.residual : 1.0, carry = residual ? 1.0 : 0.0;
    const double share = average ? 1.0 / request_.pool.size : 1.0, rest = 1.0 - share;
    const double gain = branch * request_.sigma_w2, bias = branch * request_.sigma_b2;
    const Moments& phi = *moments_;
    const double mean = phi.mean[at(inputs_->reference)];

    Inputs& next = *next_;
    next.reference = inputs_->reference;
    next.q_reference = carry * inputs_->q_reference + gain * (share * phi.square_reference + rest * mean * mean) + bias;
    for (std::size_t a = 0; a < at(padded_); ++a) {
        next.change[a] = carry * inputs_->change[a] +
                         gain * (share * phi.square_change[a] + rest * phi.mean_change[a] * (phi.mean[a] + mean));
    }
    next.set();
    ++layer_;
    prepared_ = false;
    const double largest = next.largest();
    out_of_range_ = !std::isfinite(largest) || (largest < smallest && largest > 0.0);
    return !out_of_range_;
}

void CovarianceLayers::make_curves(double low, double high) {
    for (const auto& route : routes_) {
        if (route->needs_curve()) route->make_curve(low, high);
    }
}

std::vector<PairRoute> CovarianceLayers::routes() const {
    std::vector<PairRoute> views;
    for (const auto& route : routes_) views.push_back(route->view());
    return views;
}

PairTotals CovarianceLayers::integrate_pairs(const double* covariance, const double* distance, double* product,
                                             double* spread, Monitor& monitor) {
    const Size n = request_.inputs, all = pair_block * padded_;
    std::vector<PairTotals> parts(at(padded_ / pair_block));
    monitor.expect(static_cast<double>(parts.size()));
    parallel_for(parts.size(), [&](std::size_t index, int worker) {
        const Size first = Size(index) * pair_block, columns = padded_ - first;
        std::vector<double> numbers(at(4 * all));
        double *const k = numbers.data(), *const t = k + all, *const to_product = t + all, *const to = to_product + all;
        const auto for_pairs = [&](auto&& body) {
            for (Size a = first; a < std::min(first + pair_block, n); ++a) {
                for (Size b = a + 1; b < n; ++b) body((a - first) * columns + b - first, a * n + b);
            }
        };
        for_pairs([&](Size here, Size there) {
            k[here] = covariance[there];
            t[here] = distance[there];
        });
        PairSink sink{to_product, to};
        for (const auto& route : routes_) {
            if (route->view().kind != PairRoute::Kind::direct) continue;
            route->add(step_.in, step_.map.mirrored, {first, k, t}, sink, worker, monitor);
        }
        for_pairs([&](Size here, Size there) {
            product[there] += to_product[here];
            spread[there] += to[here];
        });
        parts[index] = {{}, sink.steep, sink.rounding};
        monitor.advance(1.0);
    });
    PairTotals total;
    for (const PairTotals& part : parts) {
        total.steep += part.steep;
        total.rounding += part.rounding;
    }
    return total;
}

void CovarianceLayers::end_step(const PairTotals& totals) {
    if (layer_ == 1) return record(*inputs_, totals.sums);
    const double relative = lost_ + 4.0 * epsilon;
    const double error = relative * step_.map.carry * distance_sum_ +
                         step_.map.gain * (relative * totals.steep + 4.0 * epsilon * totals.rounding);
    if (lost_ <= allowed_loss) lost_ = error > 0.0 ? error / totals.sums.distance : 0.0;  // or stays lost
    record(*next_, totals.sums);
    std::swap(inputs_, next_);
}

void CovarianceLayers::record(const Inputs& in, const PairSums& sums) {
    const std::size_t row = at(layer_ - 1);
    const double n = static_cast<double>(in.count), each = 2.0 / (n * (n - 1.0));
    const double mu2 = sums.covariance * each, y2 = sums.distance * each;
    const auto in_range = [](double x) { return std::isfinite(x) && (x == 0.0 || std::fabs(x) >= smallest); };
    // A zero may be one in truth: phi may take two inputs to the same.
    const bool was_small = distance_sum_ > 0.0 && distance_sum_ < 1e60 * smallest;
    if (y2 < smallest && (y2 > 0.0 || was_small)) underflown_ = true;
    distance_sum_ = sums.distance;
    const bool lost = underflown_ || lost_ > allowed_loss || !in_range(y2);
    columns_.sigma_mu2[row] = in_range(mu2) ? mu2 : nan;
    columns_.sigma_y2[row] = lost ? nan : y2;
    const double gamma = mu2 / y2;
    columns_.gamma[row] = lost || !in_range(mu2) || !(in_range(gamma) || y2 == 0.0) ? nan : gamma;
    columns_.q[row] = in.mean();
    columns_.c[row] = sums.correlation * each;
}

void CovarianceLayers::record_chi() {
    const bool residual = request_.residual > 0.0;
    const double share = request_.pool.kind == PoolKind::average ? 1.0 / request_.pool.size : 1.0;
    const double gain = request_.sigma_w2 * share * (residual ? request_.residual : 1.0);
    double sum = 0.0;
    for (Size a = 0; a < request_.inputs; ++a) {
        sum += moments_->slope2[at(a)] / (request_.layernorm ? inputs_->q[at(a)] : 1.0);
    }
    const double chi = (residual ? 1.0 : 0.0) + gain * (sum / static_cast<double>(request_.inputs));
    columns_.chi[at(layer_ - 1)] = std::isfinite(chi) ? chi : nan;
}

// ---- Pairs ----------------------------------------------------------------------------------------------------------

CovarianceMap::CovarianceMap(const CovarianceRequest& request) : CovarianceLayers(request) {
    covariance_.assign(at(offset(padded_)), 0.0);
    distance_.assign(at(offset(padded_)), 0.0);
}

// Where the rows from `first` on are: those above have padded, padded - 8, ... columns.
Size CovarianceMap::offset(Size first) const {
    const Size blocks = first / pair_block;
    return pair_block * (blocks * padded_ - pair_block * blocks * (blocks - 1) / 2);
}

PairRows CovarianceMap::rows(Size first) {
    return {first, covariance_.data() + offset(first), distance_.data() + offset(first)};
}

double CovarianceMap::memory(std::int64_t inputs) {
    const double n = static_cast<double>(inputs);
    return 8.0 * n * (n + 16.0) + 8.0 * n * (1000.0 + 64.0 * max_workers());
}

void CovarianceMap::start_from_covariance(const double* covariance) {
    const Size n = request_.inputs;
    const auto entry = [&](Size a, Size b) { return covariance[a * n + b]; };
    for_blocks(padded_, [&](Size first, int) {
        const PairRows to = rows(first);
        for (Size r = 0; r < pair_block; ++r) {
            for (Size i = 0; i < padded_ - first; ++i) {
                const Size a = std::min(first + r, n - 1), b = std::min(first + i, n - 1);
                const double k = a < b ? entry(a, b) : entry(b, a);
                to.covariance[r * (padded_ - first) + i] = k;
                to.distance[r * (padded_ - first) + i] = first_distance(entry(a, a), entry(b, b), k);
            }
        }
    });
    std::vector<double> variance(at(n)), changes(at(n));
    for (Size a = 0; a < n; ++a) variance[at(a)] = entry(a, a);
    const Size middle = middle_of(variance);
    for (Size a = 0; a < n; ++a) changes[at(a)] = variance[at(a)] - variance[at(middle)];
    start(variance, changes, middle);
}

void CovarianceMap::start_from_inputs(const double* x, std::int64_t features, Monitor& monitor) {
    const Size n = request_.inputs;
    const double scale = 1.0 / static_cast<double>(features);
    monitor.expect(static_cast<double>(offset(padded_)));
    for_blocks(padded_, [&](Size first, int) {
        if (monitor.stopped()) return;
        const PairRows to = rows(first);
        pairs().compare_inputs(x, n, features, to, padded_);
        const Size count = pair_block * (padded_ - first);
        for (Size i = 0; i < count; ++i) {
            to.covariance[i] *= scale;
            to.distance[i] *= scale;
        }
        monitor.advance(static_cast<double>(count));
    });
    std::vector<double> variance(at(n)), changes(at(n));
    const auto sum = [&](Size a, auto&& term) {
        double total = 0.0;
        for (Size k = 0; k < features; ++k) total += term(x[a * features + k], k);
        return total * scale;
    };
    for (Size a = 0; a < n; ++a) variance[at(a)] = sum(a, [](double y, Size) { return y * y; });
    const Size middle = middle_of(variance);
    const double* const centre = x + middle * features;
    for (Size a = 0; a < n; ++a)
        changes[at(a)] = sum(a, [&](double y, Size k) { return (y - centre[k]) * (y + centre[k]); });
    start(variance, changes, middle);
}

// covariance_ and distance_ hold what belongs to the inputs; changes are the differences of their variances.
void CovarianceMap::start(const std::vector<double>& variance, const std::vector<double>& changes, Size middle) {
    Monitor silent;
    take(first_step(middle, variance[at(middle)], changes), [](const PairRows&, PairSink&, int) {}, silent);
}

// K and D of the next layer, in place, and what its columns hold of them. add(rows, sink, worker) adds what phi makes
// of the pairs of this layer. False if the monitor says to stop.
template <class Add>
bool CovarianceMap::take(const PairStep& step, Add&& add, Monitor& monitor) {
    const int workers = max_workers();
    AlignedVector<double> scratch(at(Size{workers} * 2 * pair_block * padded_));
    std::vector<PairTotals> parts(at(padded_ / pair_block));
    parallel_for(parts.size(), workers, [&](std::size_t index, int worker) {
        if (monitor.stopped()) return;
        const PairRows here = rows(Size(index) * pair_block);
        const Size count = pair_block * (padded_ - here.first);
        double* const product = scratch.data() + Size{worker} * 2 * pair_block * padded_;
        PairSink sink{product, product + count};
        std::fill_n(product, 2 * count, 0.0);
        add(here, sink, worker);
        const PairSums sums = pairs().settle(step.in, step.next, step.map, sink, here);
        parts[index] = {sums, sink.steep, sink.rounding};
        monitor.advance(static_cast<double>(count));
    });
    if (monitor.stopped()) return false;
    PairTotals total;
    for (const PairTotals& part : parts) {
        total.sums.covariance += part.sums.covariance;
        total.sums.distance += part.sums.distance;
        total.sums.correlation += part.sums.correlation;
        total.steep += part.steep;
        total.rounding += part.rounding;
    }
    end_step(total);
    return true;
}

void CovarianceMap::find_angles(const InputView& in) {
    const std::size_t blocks = at(padded_ / pair_block);
    std::vector<double> low(blocks, 4.0), high(blocks, 0.0);
    for_blocks(padded_, [&](Size first, int) {
        const PairRows here = rows(first);
        const std::size_t block = at(first / pair_block);
        for (Size a = first; a < std::min(first + pair_block, in.count); ++a) {
            for (Size b = a + 1; b < in.count; ++b) {
                const Size i = (a - first) * (padded_ - first) + b - first;
                const Correlation found = correlation_of(in, a, b, here.covariance[i], here.distance[i]);
                const double angle = pair_angle(found);
                if (found.s > 0.0) low[block] = std::min(low[block], angle);
                high[block] = std::max(high[block], angle);
            }
        }
    });
    make_curves(*std::min_element(low.begin(), low.end()), *std::max_element(high.begin(), high.end()));
}

std::int64_t CovarianceMap::advance(const Phi& phi, std::int64_t layer, Monitor& monitor) {
    use(phi);
    monitor.expect(static_cast<double>(layer - layer_) * static_cast<double>(offset(padded_)));
    while (const std::optional<PairStep> step = next_step(layer)) {
        if (step->needs_angles) find_angles(step->in);
        const auto add = [&](const PairRows& here, PairSink& sink, int worker) {
            for (const auto& route : routes_) route->add(step->in, step->map.mirrored, here, sink, worker, monitor);
        };
        if (!take(*step, add, monitor)) break;
    }
    return std::min(done(), layer);
}

void CovarianceMap::covariance(double* out) const {
    const Size n = request_.inputs;
    for_blocks(padded_, [&](Size first, int) {
        const double* const from = covariance_.data() + offset(first);
        for (Size a = first; a < std::min(first + pair_block, n); ++a) {
            out[a * n + a] = variance(a);
            for (Size b = a + 1; b < n; ++b) {
                const double k = from[(a - first) * (padded_ - first) + b - first];
                out[a * n + b] = out[b * n + a] = out_of_range() ? nan : k;
            }
        }
    });
}

}  // namespace igb
