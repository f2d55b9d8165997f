// Gaussian expectations (see expectations.h), by the workers of team.h. Twins: cpu/moments.cpp and what it calls.
#include "cuda/expectations.h"

#include "cuda/launch.h"
#include "cuda/moments.h"
#include "cuda/team.h"

namespace igb::cuda {
namespace {

// E[P^2], E[P'^2] and the like of y ~ N(0, q_i). Twin of igb::Expectations::single.
struct SingleJob {
    TheoryPhi phi;
    const double* q;
    SingleMoments* out;

    template <class Worker>
    IGB_DEVICE void operator()(const Worker& worker, std::int64_t i) const {
        const SingleMoments found = Expectations<Worker>(worker, phi).single(q[i]);
        if (worker.writes()) out[i] = found;
    }
};

// E_mu[(E_e P)^2] and E_mu[Var_e P] of y = mu + e. Twin of igb::Expectations::split.
struct SplitJob {
    TheoryPhi phi;
    const double *sigma_mu2, *sigma_y2;
    SplitMoments* out;

    template <class Worker>
    IGB_DEVICE void operator()(const Worker& worker, std::int64_t i) const {
        const SplitMoments found = Expectations<Worker>(worker, phi).split(sigma_mu2[i], sigma_y2[i]);
        if (worker.writes()) out[i] = found;
    }
};

// E[P^(m)(u) P^(m)(v)] of two Gaussians with variances q_aa and q_bb and correlation c. Twin of
// igb::Expectations::pair.
struct PairJob {
    TheoryPhi phi;
    int derivative;
    const double *q_aa, *q_bb, *c;
    double* out;

    template <class Worker>
    IGB_DEVICE void operator()(const Worker& worker, std::int64_t i) const {
        const double found = Expectations<Worker>(worker, phi).pair(derivative, q_aa[i], q_bb[i], c[i]);
        if (worker.writes()) out[i] = found;
    }
};

}  // namespace

void single_moments(GpuStream stream, const TheoryPhi& phi, std::int64_t count, const double* q, SingleMoments* out) {
    start(stream, SingleJob{phi, q, out}, count);
}

void split_moments(GpuStream stream, const TheoryPhi& phi, std::int64_t count, const double* sigma_mu2,
                   const double* sigma_y2, SplitMoments* out) {
    start(stream, SplitJob{phi, sigma_mu2, sigma_y2, out}, count);
}

void pair_moments(GpuStream stream, const TheoryPhi& phi, int derivative, std::int64_t count, const double* q_aa,
                  const double* q_bb, const double* c, double* out) {
    start(stream, PairJob{phi, derivative, q_aa, q_bb, c, out}, count);
}

}  // namespace igb::cuda
