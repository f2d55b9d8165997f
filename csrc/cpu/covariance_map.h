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

class CovarianceMap {
public:
    explicit CovarianceMap(const CovarianceRequest& request);
    ~CovarianceMap();

    // Layer 1, y = W x + b: from the n x n matrix of x_a . x_b / features, or from the inputs x themselves, n x features.
    void start_from_covariance(const double* covariance);
    void start_from_inputs(const double* x, std::int64_t features, Monitor& monitor);

    // On to layer `layer`, whose columns are then written. Stops early before a layer with largest_seen() > phi.q_max(),
    // or if the monitor says so. Returns how many layers have their columns.
    std::int64_t advance(const Phi& phi, std::int64_t layer, Monitor& monitor);

    double largest_seen() const;            // variance of what phi sees in the layer to come
    void covariance(double* n_by_n) const;  // of the layer reached; nan where it overflowed

    // One number for every layer; a value that overflowed or lost its digits is nan.
    struct Columns {
        std::vector<double> sigma_mu2, sigma_y2, gamma, q, c, chi;
    };
    const Columns& columns() const { return columns_; }

    static double memory(std::int64_t inputs);  // bytes, about, without the caller's arrays

private:
    struct Inputs;   // what is known of each input
    struct Moments;  // what phi makes of each input
    class Route;     // how a component of phi is integrated

    CovarianceRequest request_;
    std::int64_t padded_, layer_ = 1;
    std::unique_ptr<Inputs> inputs_, next_;
    std::unique_ptr<Moments> moments_;
    std::vector<std::unique_ptr<Route>> routes_;
    AlignedVector<double> covariance_, distance_;  // of PairRows, one after the other
    double distance_sum_ = 0.0;                    // over pairs
    double lost_ = 0.0;                            // relative error of that sum, at most
    bool prepared_ = false, layernorm_settled_ = false, underflown_ = false, out_of_range_ = false;
    Columns columns_;

    Size offset(Size first) const;
    PairRows rows(Size first);
    void set_first_layer(Size index, double reference, const std::vector<double>& changes);
    void make_routes(const Phi& phi);
    bool prepare(const Phi& phi);
    void make_curves();
    void step(Monitor& monitor);
    template <class Add>
    void map_pairs(const Inputs& next, const PairMap& map, Add&& add, Monitor& monitor);
    void record(const Inputs& in, const PairSums& sums);
    void record_chi();
};

}  // namespace igb
