// Gaussian expectations of whole arrays: the kernels of expectations.cpp, point by point on all threads.
#pragma once

#include <cstdint>

#include "core/activation_kind.h"
#include "cpu/kernels.h"
#include "cpu/monitor.h"

namespace igb {

// Each returns early, leaving some of `out` unset, if the monitor says stop.
void pair_moments(const Activation& activation, int derivative, std::int64_t count, const double* q_aa,
                  const double* q_bb, const double* c, double* out, Monitor& monitor);
void single_moments(const Activation& activation, std::int64_t count, const double* q, SingleMoments* out,
                    Monitor& monitor);
void split_moments(const Activation& activation, std::int64_t count, const double* sigma_mu2, const double* sigma_y2,
                   SplitMoments* out, Monitor& monitor);

}  // namespace igb
