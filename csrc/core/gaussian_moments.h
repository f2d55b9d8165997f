// What the Gaussian expectations of a phi come to, and what mixtures of several phi and averages of several nodes make
// of them. E[P(u) P(v)] of an average P of k nodes is 1/k of the same for one node, and (1 - 1/k) E[phi(u)] E[phi(v)].
#pragma once

#include "core/config.h"

namespace igb {

// E over one Gaussian z of variance q: the moments that the mean-field recursions need.
struct SingleMoments {
    double mean;       // E[phi]
    double square;     // E[phi^2]
    double slope2;     // E[phi'^2]
    double square_dq;  // d E[phi^2] / d q
    double mean_dq;    // d E[phi] / d q
};

// The two halves of E[phi^2] for a node y = mu + e, mu ~ N(0, sigma_mu2), e ~ N(0, sigma_y2), each without
// cancellation: centre = E_mu[(E_e phi)^2] and spread = E_mu[Var_e phi]; centre + spread = E[phi^2].
struct SplitMoments {
    double centre;
    double spread;
};

}  // namespace igb

namespace igb::inline IGB_ISA {

// sum += weight * one: nodes draw their phi.
IGB_HD void add_share(SingleMoments& sum, double weight, const SingleMoments& one) {
    sum.mean += weight * one.mean;
    sum.square += weight * one.square;
    sum.slope2 += weight * one.slope2;
    sum.square_dq += weight * one.square_dq;
    sum.mean_dq += weight * one.mean_dq;
}

IGB_HD void add_share(SplitMoments& sum, double weight, const SplitMoments& one) {
    sum.centre += weight * one.centre;
    sum.spread += weight * one.spread;
}

// Of the average of `size` nodes; slopes are summed over them.
IGB_HD SingleMoments average_of(int size, const SingleMoments& node) {
    const double share = 1.0 / size, rest = 1.0 - share;
    return {node.mean, share * node.square + rest * node.mean * node.mean, share * node.slope2,
            share * node.square_dq + rest * 2.0 * node.mean * node.mean_dq, node.mean_dq};
}

IGB_HD SplitMoments average_of(int size, const SplitMoments& node, double mean) {
    const double share = 1.0 / size;
    return {share * node.centre + (1.0 - share) * mean * mean, share * node.spread};
}

// The means are zero where slopes are asked for.
IGB_HD double average_of(int size, double product, double mean_a, double mean_b) {
    const double share = 1.0 / size;
    return share * product + (1.0 - share) * mean_a * mean_b;
}

}  // namespace igb::inline IGB_ISA
