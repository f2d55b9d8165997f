// Mixtures and averages of the kernels, and the array loops (see moments.h).
#include "cpu/moments.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "cpu/parallel.h"

namespace igb {

double Phi::q_max() const {
    double smallest = std::numeric_limits<double>::infinity();
    for (const Share& share : shares) {
        if (share.leaf.table) smallest = std::min(smallest, share.leaf.table->q_max);
    }
    return smallest;
}

namespace {

bool takes_extreme(const Pool& pool) {
    return pool.size > 1 && (pool.kind == PoolKind::max || pool.kind == PoolKind::min);
}

// max(phi(u_i)) = phi(max u_i) for a phi that rises, phi(min u_i) = phi(-max(-u_i)) for one that falls.
Leaf of_largest(const Leaf& leaf, PoolKind kind) {
    const bool rises = leaf.table->monotone > 0;
    return rises == (kind == PoolKind::max) ? leaf : Leaf{leaf.activation, leaf.table->mirror};
}

bool is_monotone(const Phi& phi) { return phi.shares.size() == 1 && phi.shares[0].leaf.table->monotone != 0; }

double known(double value) {
    if (std::isnan(value)) throw std::runtime_error("a max or min pool of this phi cannot be integrated to ten digits");
    return value;
}

SingleMoments single_of(const Leaf& leaf, int size, double q) {
    return leaf.table ? kernels().table_single(leaf.table->view(), size, q)
                      : kernels().single_moments(leaf.activation, q);
}

}  // namespace

Expectations::Expectations(const Phi& phi, const Pool& pool) : pool_(pool) {
    const bool extreme = takes_extreme(pool);
    for (const Phi::Share& share : phi.shares) {
        if (extreme && !share.leaf.table)
            throw std::invalid_argument("phi must be a table where the pool is max or min");
    }
    const bool by_levels = extreme && !is_monotone(phi);
    for (const Phi::Share& share : phi.shares) {
        if (by_levels) levels_.push_back({share.weight, share.leaf.table->view()});
        parts_.push_back({share.weight, extreme && !by_levels ? of_largest(share.leaf, pool.kind) : share.leaf, {}});
    }
}

TableMixture Expectations::mixture() const {
    return {levels_.data(), static_cast<int>(levels_.size()), pool_.kind == PoolKind::max};
}

int Expectations::extreme_size() const { return takes_extreme(pool_) ? pool_.size : 1; }

SingleMoments Expectations::single(double q) {
    if (!levels_.empty()) {
        const SingleMoments at = kernels().level_single(mixture(), pool_.size, q);
        known(at.mean);
        return at;
    }
    SingleMoments sum{0.0, 0.0, 0.0, 0.0, 0.0};
    for (const Part& part : parts_) {
        add_share(sum, part.weight, single_of(part.leaf, extreme_size(), q));
    }
    return pool_.kind == PoolKind::average ? average_of(pool_.size, sum) : sum;
}

SplitMoments Expectations::split(double sigma_mu2, double sigma_y2) {
    if (!levels_.empty()) {
        const SplitMoments at = kernels().level_split(mixture(), pool_.size, sigma_mu2, sigma_y2);
        known(at.spread);
        return at;
    }
    SplitMoments sum{0.0, 0.0};
    double mean = 0.0;
    for (Part& part : parts_) {
        add_share(sum, part.weight,
                  part.leaf.table
                      ? kernels().table_split(part.leaf.table->view(), extreme_size(), sigma_mu2, sigma_y2, part.cache)
                      : kernels().split_moments(part.leaf.activation, sigma_mu2, sigma_y2));
        if (pool_.kind == PoolKind::average) {
            mean += part.weight * single_of(part.leaf, 1, sigma_mu2 + sigma_y2).mean;
        }
    }
    return pool_.kind == PoolKind::average ? average_of(pool_.size, sum, mean) : sum;
}

// Derivatives are with respect to one node's y, summed over the pool: what the susceptibilities are made of.
double Expectations::pair(int derivative, double q_aa, double q_bb, double c) {
    if (!levels_.empty()) {
        if (derivative > 1) {
            throw std::invalid_argument(
                "derivative must be 0 or 1 where the pool is max or min and phi is not monotone");
        }
        return known(kernels().level_pair(mixture(), pool_.size, derivative, q_aa, q_bb, c));
    }
    double sum = 0.0, mean_a = 0.0, mean_b = 0.0;
    for (Part& part : parts_) {
        sum += part.weight * (part.leaf.table ? kernels().table_pair(part.leaf.table->view(), extreme_size(),
                                                                     derivative, q_aa, q_bb, c, part.cache)
                                              : kernels().pair_moment(part.leaf.activation, derivative, q_aa, q_bb, c));
        if (pool_.kind == PoolKind::average && derivative == 0) {
            mean_a += part.weight * single_of(part.leaf, 1, q_aa).mean;
            mean_b += part.weight * single_of(part.leaf, 1, q_bb).mean;
        }
    }
    return pool_.kind == PoolKind::average ? average_of(pool_.size, sum, mean_a, mean_b) : sum;
}

namespace {

// point(expectations, i) for every i below count, in stretches that are short to the eye and long to a thread.
template <class Point>
void for_each_point(const Phi& phi, const Pool& pool, std::int64_t count, Monitor& monitor, Point&& point) {
    const bool quick = std::isinf(phi.q_max());
    const std::int64_t stretch = quick ? 128 : 4;
    monitor.expect(static_cast<double>(count));
    const Expectations fresh(phi, pool);  // throws here, not on another thread
    parallel_for(static_cast<std::size_t>((count + stretch - 1) / stretch), [&](std::size_t index, int) {
        if (monitor.stopped()) return;
        const std::int64_t first = static_cast<std::int64_t>(index) * stretch, last = std::min(count, first + stretch);
        Expectations expectations = fresh;
        for (std::int64_t i = first; i < last; ++i) point(expectations, i);
        monitor.advance(static_cast<double>(last - first));
    });
}

}  // namespace

void pair_moments(const Phi& phi, const Pool& pool, int derivative, std::int64_t count, const double* q_aa,
                  const double* q_bb, const double* c, double* out, Monitor& monitor) {
    for_each_point(phi, pool, count, monitor,
                   [&](Expectations& of, std::int64_t i) { out[i] = of.pair(derivative, q_aa[i], q_bb[i], c[i]); });
}

void single_moments(const Phi& phi, const Pool& pool, std::int64_t count, const double* q, SingleMoments* out,
                    Monitor& monitor) {
    for_each_point(phi, pool, count, monitor, [&](Expectations& of, std::int64_t i) { out[i] = of.single(q[i]); });
}

void split_moments(const Phi& phi, const Pool& pool, std::int64_t count, const double* sigma_mu2,
                   const double* sigma_y2, SplitMoments* out, Monitor& monitor) {
    for_each_point(phi, pool, count, monitor,
                   [&](Expectations& of, std::int64_t i) { out[i] = of.split(sigma_mu2[i], sigma_y2[i]); });
}

}  // namespace igb
