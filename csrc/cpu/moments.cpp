// The array loops of moments.h.
#include "cpu/moments.h"

#include <algorithm>

#include "cpu/parallel.h"

namespace igb {

namespace {

// point(i) for every i below count, in stretches that are short to the eye and long to a thread.
template <class Point>
void for_each_point(std::int64_t count, Monitor& monitor, Point&& point) {
    constexpr std::int64_t stretch = 128;
    monitor.expect(static_cast<double>(count));
    parallel_for(static_cast<std::size_t>((count + stretch - 1) / stretch), [&](std::size_t index, int) {
        if (monitor.stopped()) return;
        const std::int64_t first = static_cast<std::int64_t>(index) * stretch, last = std::min(count, first + stretch);
        for (std::int64_t i = first; i < last; ++i) point(i);
        monitor.advance(static_cast<double>(last - first));
    });
}

}  // namespace

void pair_moments(const Activation& activation, int derivative, std::int64_t count, const double* q_aa,
                  const double* q_bb, const double* c, double* out, Monitor& monitor) {
    const Kernels& use = kernels();
    for_each_point(count, monitor,
                   [&](std::int64_t i) { out[i] = use.pair_moment(activation, derivative, q_aa[i], q_bb[i], c[i]); });
}

void single_moments(const Activation& activation, std::int64_t count, const double* q, SingleMoments* out,
                    Monitor& monitor) {
    const Kernels& use = kernels();
    for_each_point(count, monitor, [&](std::int64_t i) { out[i] = use.single_moments(activation, q[i]); });
}

void split_moments(const Activation& activation, std::int64_t count, const double* sigma_mu2, const double* sigma_y2,
                   SplitMoments* out, Monitor& monitor) {
    const Kernels& use = kernels();
    for_each_point(count, monitor,
                   [&](std::int64_t i) { out[i] = use.split_moments(activation, sigma_mu2[i], sigma_y2[i]); });
}

}  // namespace igb
