// Gaussian expectations of any phi, of one node or the average of several, by a Worker: twin of cpu/moments.h.
#pragma once

#include "core/closed_forms.h"
#include "core/gaussian_moments.h"
#include "cuda/expectations.h"
#include "cuda/table_moments.h"
#include "cuda/tanh_moments.h"
#include "cuda/team.h"

namespace igb::cuda {

// f(closed form) of an activation that has one.
template <class F>
IGB_DEVICE auto with_closed_form(const Activation& activation, F&& f) {
    if (activation.kind == ActivationKind::erf) return f(ErfMoments{});
    const double slope = activation.kind == ActivationKind::linear ? 1.0
                         : activation.kind == ActivationKind::relu ? 0.0
                                                                   : activation.parameter;
    return f(PiecewiseLinear{slope});
}

// Twin of igb::Expectations for one node or an average of several.
template <class Worker>
class Expectations {
public:
    IGB_DEVICE Expectations(const Worker& worker, const TheoryPhi& phi) : worker_(worker), phi_(phi) {}

    IGB_DEVICE SingleMoments single(double q) const {
        SingleMoments sum{0.0, 0.0, 0.0, 0.0, 0.0};
        for (int i = 0; i < phi_.count; ++i) add_share(sum, phi_.shares[i].weight, single_of(phi_.shares[i], q));
        return phi_.average > 0 ? average_of(phi_.average, sum) : sum;
    }

    IGB_DEVICE SplitMoments split(double sigma_mu2, double sigma_y2) const {
        SplitMoments sum{0.0, 0.0};
        for (int i = 0; i < phi_.count; ++i)
            add_share(sum, phi_.shares[i].weight, split_of(phi_.shares[i], sigma_mu2, sigma_y2));
        return phi_.average > 0 ? average_of(phi_.average, sum, mean(sigma_mu2 + sigma_y2)) : sum;
    }

    IGB_DEVICE double pair(int derivative, double q_aa, double q_bb, double c) const {
        double sum = 0.0;
        for (int i = 0; i < phi_.count; ++i)
            sum += phi_.shares[i].weight * pair_of(phi_.shares[i], derivative, q_aa, q_bb, c);
        if (phi_.average == 0) return sum;
        if (derivative > 0) return average_of(phi_.average, sum, 0.0, 0.0);
        double means[2] = {0.0, 0.0};
        IGB_UNROLL_BY(1) for (int side = 0; side < 2; ++side) {
            const double found = mean(side == 0 ? q_aa : q_bb);
            (side == 0 ? means[0] : means[1]) = found;
        }
        return average_of(phi_.average, sum, means[0], means[1]);
    }

private:
    IGB_DEVICE double mean(double q) const {
        double sum = 0.0;
        for (int i = 0; i < phi_.count; ++i) sum += phi_.shares[i].weight * single_of(phi_.shares[i], q).mean;
        return sum;
    }

    IGB_DEVICE SingleMoments single_of(const TheoryShare& share, double q) const {
        if constexpr (Worker::takes_tables) {
            if (share.tabulated) return table_single(worker_, share, *phi_.rules, q);
        }
        if constexpr (Worker::is_team) {
            if (share.activation.kind == ActivationKind::tanh) return tanh_single(worker_, q);
        }
        return with_closed_form(share.activation, [&](const auto& of) { return of.single(q); });
    }

    IGB_DEVICE SplitMoments split_of(const TheoryShare& share, double sigma_mu2, double sigma_y2) const {
        if constexpr (Worker::takes_tables) {
            if (share.tabulated) return table_split(worker_, share, *phi_.rules, sigma_mu2, sigma_y2);
        }
        if constexpr (Worker::is_team) {
            if (share.activation.kind == ActivationKind::tanh) return tanh_split(worker_, sigma_mu2, sigma_y2);
        }
        return with_closed_form(share.activation, [&](const auto& of) { return of.split(sigma_mu2, sigma_y2); });
    }

    IGB_DEVICE double pair_of(const TheoryShare& share, int derivative, double q_aa, double q_bb, double c) const {
        if constexpr (Worker::takes_tables) {
            if (share.tabulated) return table_pair(worker_, share, *phi_.rules, derivative, q_aa, q_bb, c);
        }
        if constexpr (Worker::is_team) {
            if (share.activation.kind == ActivationKind::tanh) return tanh_pair(worker_, derivative, q_aa, q_bb, c);
        }
        return with_closed_form(share.activation, [&](const auto& of) { return of.pair(derivative, q_aa, q_bb, c); });
    }

    const Worker& worker_;
    const TheoryPhi& phi_;
};

}  // namespace igb::cuda
