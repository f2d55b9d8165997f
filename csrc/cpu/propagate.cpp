// The layer loop behind propagate (see propagate.h).
#include "cpu/propagate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/moments.h"

namespace igb {

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

constexpr double smallest = std::numeric_limits<double>::min();  // normal number: below it, digits are lost
constexpr double recovered = smallest * 1e32;                    // what is added to a lost number makes it good again

// The ratio of two non-negative numbers. x/0, two equal inputs, is a true infinity; what over- or underflows is nan.
double ratio(double numerator, double denominator) {
    const double r = numerator / denominator;
    const bool lost = !std::isfinite(r) || (numerator > 0.0 && r < smallest);
    return lost && denominator != 0.0 ? nan : r;
}

// A lost number counts as zero further on: the rest of the state does not feel it.
struct Kept {
    double value;
    bool lost = false;

    void settle() {
        lost = lost ? value < recovered : value != 0.0 && value < smallest;
        if (lost) value = 0.0;
    }
    double shown() const { return lost ? nan : value; }
};

void write(const Trajectory& out, std::int64_t row, const Kept& mu2, const Kept& y2, double chi) {
    const double q = mu2.value + y2.value;
    out.sigma_mu2[row] = mu2.shown();
    out.sigma_y2[row] = y2.shown();
    out.gamma[row] = mu2.lost || y2.lost ? nan : ratio(mu2.value, y2.value);
    out.q[row] = q == 0.0 && (mu2.lost || y2.lost) ? nan : q;
    out.c[row] = mu2.lost ? nan : ratio(mu2.value, out.q[row]);
    out.chi[row] = std::isfinite(chi) ? chi : nan;
}

void write_overflow(const Trajectory& out, std::int64_t row, std::int64_t depth) {
    for (double* column : {out.sigma_mu2, out.sigma_y2, out.gamma, out.q, out.c, out.chi}) {
        std::fill(column + row, column + depth, nan);
    }
}

}  // namespace

std::int64_t propagate(const PropagateRequest& request, const Trajectory& out, Monitor& monitor) {
    constexpr std::int64_t stretch = 4096;  // layers between two looks at the monitor: some milliseconds
    const bool quick = std::isinf(request.phi.q_max());
    Expectations of(request.phi, request.pool);
    monitor.expect(static_cast<double>(request.depth));
    const double gain = request.residual > 0.0 ? request.residual : 1.0;
    Kept mu2{request.sigma_mu2}, y2{request.sigma_y2};
    for (std::int64_t row = 0; row < request.depth; ++row) {
        if (!std::isfinite(mu2.value + y2.value)) {
            write_overflow(out, row, request.depth);
            return request.depth;
        }
        mu2.settle();
        y2.settle();
        const double q = mu2.value + y2.value;
        const double unit = request.layernorm && q > 0.0 ? 1.0 / q : 1.0;  // what phi sees is y sqrt(unit)
        if (q * unit > request.phi.q_max()) return row;
        const double factor = request.sigma_w2 * of.single(request.layernorm ? 1.0 : q).slope2 * unit;
        write(out, row, mu2, y2, request.residual > 0.0 ? 1.0 + gain * factor : factor);

        const SplitMoments next = of.split(mu2.value * unit, y2.value * unit);
        const double kept = request.residual > 0.0 ? 1.0 : 0.0;
        mu2.value = kept * mu2.value + gain * (request.sigma_w2 * next.centre + request.sigma_b2);
        y2.value = kept * y2.value + gain * (request.sigma_w2 * next.spread);
        if (!quick || (row + 1) % stretch == 0) monitor.advance(quick ? static_cast<double>(stretch) : 1.0);
        if (monitor.stopped()) return row + 1;
    }
    return request.depth;
}

}  // namespace igb
