// Mergeable statistics: any split of a sample gives the summary of the whole, without cancellation.
#include "core/statistics.h"

#include <cmath>

#include "check.h"

namespace {

using igb::MeanVariance;

bool close(double value, double reference, double tolerance) {
    return std::abs(value - reference) <= tolerance * std::abs(reference);
}

void check_any_split() {
    const double values[] = {3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0};
    for (int split = 0; split <= 8; ++split) {
        MeanVariance left, right;
        for (int i = 0; i < 8; ++i) (i < split ? left : right).add(values[i]);
        left.merge(right);
        CHECK(left.count == 8.0);
        CHECK(close(left.mean, 31.0 / 8.0, 1e-15));
        CHECK(close(left.variance(), (173.0 - 31.0 * 31.0 / 8.0) / 7.0, 1e-14));
    }
}

void check_large_offset() {
    MeanVariance statistics;
    for (int i = 0; i < 1000; ++i) statistics.add(1e9 + (i % 2));
    CHECK(close(statistics.variance(), 250.0 / 999.0, 1e-6));  // a sum of squares would have no digit of it
}

void check_node_sums() {
    igb::NodeSums left, right, whole;
    left.add(1.0, 2.0);
    right.add(-2.0, 0.5);
    right.add(3.0, 1.5);
    whole.add(1.0, 2.0);
    whole.add(-2.0, 0.5);
    whole.add(3.0, 1.5);
    left.merge(right);
    CHECK(left.count == 3.0 && left.u == 2.0 && left.u2 == 14.0 && left.u3 == 20.0 && left.u4 == 98.0);
    CHECK(left.v == 4.0 && left.v2 == 6.5 && left.uv == 5.5 && left.u2v == 17.5);
    CHECK(left.u4 == whole.u4 && left.u2v == whole.u2v);
}

void check_slope_sums() {
    igb::SlopeSums left, right;
    left.add(3.0);
    right.add(1.0);
    right.add(0.0);
    left.merge(right);
    CHECK(left.count == 3.0 && left.w == 4.0 && left.w2 == 10.0);
}

}  // namespace

int main() {
    check_any_split();
    check_large_offset();
    check_node_sums();
    check_slope_sums();
    return summary();
}
