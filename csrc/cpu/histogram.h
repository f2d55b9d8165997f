// Histograms that merge, of the bins of core/histogram_bin.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/histogram_bin.h"
#include "cpu/forward.h"

namespace igb {

class Histogram {
public:
    void add(double value, std::int64_t count = 1) {
        if (counts_.empty()) counts_.assign(histogram_bins, 0);
        const std::uint16_t where = histogram_bin(value);
        if (counts_[where] == 0) occupied_.push_back(where);
        counts_[where] += count;
    }
    // The bins that are not empty, in increasing order of the bin; then all are.
    void write(std::int64_t network, std::int64_t layer, std::vector<HistogramEntry>& to) {
        std::sort(occupied_.begin(), occupied_.end());
        for (const std::uint16_t where : occupied_) {
            to.push_back({static_cast<std::int32_t>(network), static_cast<std::int32_t>(layer), where, counts_[where]});
            counts_[where] = 0;
        }
        occupied_.clear();
    }

private:
    std::vector<std::int64_t> counts_;
    std::vector<std::uint16_t> occupied_;
};

// Of one layer: node centres and variances, q_aa over the inputs, 1 - c over pairs of inputs.
struct LayerHistograms {
    Histogram mu, var, q, c;

    void write(std::int64_t network, std::int64_t layer, ForwardResult& to) {
        mu.write(network, layer, to.mu_counts);
        var.write(network, layer, to.var_counts);
        q.write(network, layer, to.q_counts);
        c.write(network, layer, to.c_counts);
    }
};

}  // namespace igb
