// The covariance of n given inputs in an infinitely wide network, layer by layer, in variables that do not cancel:
//
//     q_a = E[y_a^2],  and for every pair  K_ab = E[y_a y_b]  and  D_ab = E[(y_a - y_b)^2] / 2 = (q_a + q_b) / 2 - K_ab
//
//     q_a' = sigma_w2 E[P(y_a)^2] + sigma_b2,  K_ab' = sigma_w2 E[P(y_a) P(y_b)] + sigma_b2,
//     D_ab' = sigma_w2 E[(P(y_a) - P(y_b))^2] / 2
//
// The q_a are held as differences from a reference input, so that D keeps its digits when all inputs become one. Means
// over pairs of K and D are sigma_mu2 and sigma_y2: what simulate estimates from the same inputs.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "cpu/aligned.h"
#include "cpu/covariance_rows.h"
#include "cpu/monitor.h"
#include "cpu/phi.h"

namespace igb {

struct CovarianceRequest {
    Pool pool;
    double sigma_w2, sigma_b2;
    double residual;  // a in y' = y + sqrt(a) (W P(y) + b); 0 for y' = W P(y) + b
    bool layernorm;   // phi acts on y / sqrt(q)
    std::int64_t inputs, depth;
};

// How one component of phi is integrated: the view of its kind, or, for what is integrated pair by pair, none.
struct PairRoute {
    enum class Kind { line, erf, series, curve, direct };
    Kind kind;
    double weight;
    PiecewiseLinearView line;
    PairSeriesView series;  // of erf: the features alone
    CurveView curve;
};

// What takes the pairs to the next layer: the sum of the routes, then the map. Lives until the next step is asked for.
struct PairStep {
    InputView in, next;
    PairMap map;
    bool needs_angles;  // some route is a curve, to be made once the angles are known
};

// Over all pairs of the layer reached, and of what led there (PairSink).
struct PairTotals {
    PairSums sums;
    double steep = 0.0, rounding = 0.0;
};

// The layers as each input sees them, without the pairs: whoever holds those takes the steps that it is told to take.
class CovarianceLayers {
public:
    explicit CovarianceLayers(const CovarianceRequest& request);
    ~CovarianceLayers();

    // Layer 1, y = W x + b, of E[x_a . x_a] / features and their differences from that of the reference.
    static Size middle_of(const std::vector<double>& variance);  // the reference: an input of median variance
    PairStep first_step(Size reference, double variance, const std::vector<double>& changes);

    // The way to `layer`: use(phi), then steps, each of which ends before the next; none where there are no more, be it
    // that largest_seen() > phi.q_max(), or that a variance left the range of double, where all that follows is nan.
    void use(const Phi& phi);
    std::optional<PairStep> next_step(std::int64_t layer);
    void make_curves(double low,
                     double high);  // if the step needs it: between the smallest angle above 0 and the largest
    std::vector<PairRoute> routes() const;
    // What the routes of kind direct add to the product and spread of every pair a < b, number a * inputs + b of K and
    // T. Returns steep and rounding.
    PairTotals integrate_pairs(const double* covariance, const double* distance, double* product, double* spread,
                               Monitor& monitor);
    void end_step(const PairTotals& totals);
    std::int64_t done() const;  // how many layers have their columns

    double largest_seen() const;        // variance of what phi sees in the layer to come
    double variance(Size input) const;  // of the layer reached; nan where it overflowed
    bool out_of_range() const { return out_of_range_; }

    // One number for every layer; a value that overflowed or lost its digits is nan.
    struct Columns {
        std::vector<double> sigma_mu2, sigma_y2, gamma, q, c, chi;
    };
    const Columns& columns() const { return columns_; }

protected:
    struct Inputs;   // what is known of each input
    struct Moments;  // what phi makes of each input
    class Route;     // how a component of phi is integrated

    CovarianceRequest request_;
    std::int64_t padded_, layer_ = 1;
    std::vector<std::unique_ptr<Route>> routes_;

private:
    std::unique_ptr<Inputs> inputs_, next_;
    std::unique_ptr<Moments> moments_;
    PairStep step_{};
    double distance_sum_ = 0.0;  // over pairs
    double lost_ = 0.0;          // relative error of that sum, at most
    double q_max_ = 0.0;         // of the phi in use
    bool prepared_ = false, layernorm_settled_ = false, underflown_ = false, out_of_range_ = false;
    Columns columns_;

    bool prepare();
    bool move_inputs();
    void record(const Inputs& in, const PairSums& sums);
    void record_chi();
};

// The pairs too, on the CPU.
class CovarianceMap : public CovarianceLayers {
public:
    explicit CovarianceMap(const CovarianceRequest& request);

    // Layer 1 from the n x n matrix of x_a . x_b / features, or from the inputs x themselves, n x features.
    void start_from_covariance(const double* covariance);
    void start_from_inputs(const double* x, std::int64_t features, Monitor& monitor);

    // On to layer `layer`, whose columns are then written. Stops early before a layer with largest_seen() >
    // phi.q_max(), or if the monitor says so. Returns how many layers have their columns.
    std::int64_t advance(const Phi& phi, std::int64_t layer, Monitor& monitor);

    void covariance(double* n_by_n) const;  // of the layer reached; nan where it overflowed

    static double memory(std::int64_t inputs);  // bytes, about, without the caller's arrays

private:
    AlignedVector<double> covariance_, distance_;  // of PairRows, one after the other

    Size offset(Size first) const;
    PairRows rows(Size first);
    void start(const std::vector<double>& variance, const std::vector<double>& changes, Size middle);
    void find_angles(const InputView& in);
    template <class Add>
    bool take(const PairStep& step, Add&& add, Monitor& monitor);
};

}  // namespace igb
