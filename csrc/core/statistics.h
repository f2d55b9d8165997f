// Mergeable statistics. Two summaries of disjoint samples add up to the summary of their union, so tiles, chunks of
// inputs and threads can be summarised apart and put together in a fixed order.
#pragma once

#include "core/config.h"

namespace igb::inline IGB_ISA {

// Mean and variance by the update of Chan, Golub and LeVeque (1979), without cancellation.
struct MeanVariance {
    double count = 0.0;
    double mean = 0.0;
    double m2 = 0.0;  // sum of squared deviations from the mean

    IGB_HD void add(double value) { merge({1.0, value, 0.0}); }

    IGB_HD void merge(const MeanVariance& other) {
        if (other.count == 0.0) return;
        const double total = count + other.count;
        const double delta = other.mean - mean;
        mean += delta * (other.count / total);
        m2 += other.m2 + delta * delta * (count * (other.count / total));
        count = total;
    }

    IGB_HD double variance() const { return count > 1.0 ? m2 / (count - 1.0) : 0.0; }  // unbiased
};

// Sums over pools (nodes, where there is no pool) of the squared slope, averaged over the inputs.
struct SlopeSums {
    double count = 0.0, w = 0.0, w2 = 0.0;

    IGB_HD void add(double slope2) {
        count += 1.0;
        w += slope2;
        w2 += slope2 * slope2;
    }

    IGB_HD void merge(const SlopeSums& other) {
        count += other.count;
        w += other.w;
        w2 += other.w2;
    }
};

// Sums over nodes of what the estimators of one layer and their standard errors need: powers of the centre u and the
// variance v around it of each node, in units that keep both of order one.
struct NodeSums {
    double count = 0.0;
    double u = 0.0, u2 = 0.0, u3 = 0.0, u4 = 0.0;
    double v = 0.0, v2 = 0.0, uv = 0.0, u2v = 0.0;

    IGB_HD void add(double centre, double variance) {
        const double square = centre * centre;
        count += 1.0;
        u += centre;
        u2 += square;
        u3 += square * centre;
        u4 += square * square;
        v += variance;
        v2 += variance * variance;
        uv += centre * variance;
        u2v += square * variance;
    }

    IGB_HD void merge(const NodeSums& other) {
        count += other.count;
        u += other.u;
        u2 += other.u2;
        u3 += other.u3;
        u4 += other.u4;
        v += other.v;
        v2 += other.v2;
        uv += other.uv;
        u2v += other.u2v;
    }
};

}  // namespace igb::inline IGB_ISA
