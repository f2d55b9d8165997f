// Histograms that merge: a value is counted by the sixteen leading bits of its double, sign, exponent and four bits of
// the mantissa, so bins are 3 to 6 % wide at any scale and the same for every layer, network and run.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "cpu/forward.h"

namespace igb {

class Histogram {
public:
    static std::uint16_t bin(double value) {
        std::uint64_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        return static_cast<std::uint16_t>(bits >> 48);
    }
    void add(double value, std::int64_t count = 1) {
        if (counts_.empty()) counts_.assign(std::size_t{1} << 16, 0);
        counts_[bin(value)] += count;
    }
    // The bins that are not empty, in increasing order of the bin; then all are.
    void write(std::int64_t network, std::int64_t layer, std::vector<HistogramEntry>& to) {
        for (std::size_t bin = 0; bin < counts_.size(); ++bin) {
            if (counts_[bin] == 0) continue;
            to.push_back({static_cast<std::int32_t>(network), static_cast<std::int32_t>(layer),
                          static_cast<std::uint16_t>(bin), counts_[bin]});
            counts_[bin] = 0;
        }
    }

private:
    std::vector<std::int64_t> counts_;
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
