// Gaussian expectations of P, which is phi of one node or of a pool of nodes; u and v are two inputs' pre-activations.
// Mixtures and averages are put together here from the kernels of expectations.cpp and tabulated.cpp.
#pragma once

#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/monitor.h"
#include "cpu/phi.h"

namespace igb {

// One thread's view of (phi, pool). It remembers what it worked out for the last variances, so ask in order.
class Expectations {
public:
    // Throws std::invalid_argument if the pool cannot be taken of this phi; so do the others, with std::runtime_error,
    // where such a pool cannot be integrated to ten digits.
    Expectations(const Phi& phi, const Pool& pool);

    SingleMoments single(double q);
    SplitMoments split(double sigma_mu2, double sigma_y2);
    double pair(int derivative, double q_aa, double q_bb, double c);

private:
    struct Part {
        double weight;
        Leaf leaf;
        SeriesCache cache;
    };
    std::vector<Part> parts_;
    Pool pool_;
    std::vector<TableShare> levels_;  // by level_sets.h, where phi of the largest node is not the largest phi

    int extreme_size() const;
    TableMixture mixture() const;
};

// Whole arrays on all threads. Each returns early, leaving some of `out` unset, if the monitor says stop.
void pair_moments(const Phi& phi, const Pool& pool, int derivative, std::int64_t count, const double* q_aa,
                  const double* q_bb, const double* c, double* out, Monitor& monitor);
void single_moments(const Phi& phi, const Pool& pool, std::int64_t count, const double* q, SingleMoments* out,
                    Monitor& monitor);
void split_moments(const Phi& phi, const Pool& pool, std::int64_t count, const double* sigma_mu2,
                   const double* sigma_y2, SplitMoments* out, Monitor& monitor);

}  // namespace igb
