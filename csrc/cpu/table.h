// A function phi of one variable as data: Chebyshev series of phi, phi' and phi'' on panels short enough for 16 terms.
// Every activation without rules of its own, be it built in or a caller's, reaches the compiled core in this form.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/tabulated.h"

namespace igb {

struct Table {
    struct Series {
        std::vector<double> coefficients, largest;
        std::vector<std::uint8_t> by_x;
    };

    std::vector<double> edges;
    Series series[3];
    std::vector<double> kinks, jumps;
    int parity = 0;
    bool one_sign = false;
    int monotone = 0;                     // 1 nowhere falling, -1 nowhere rising, 0 neither
    double q_max = 0.0;                   // largest variance for which nothing outside the edges counts
    std::shared_ptr<const Table> mirror;  // phi(-x), where phi is monotone

    std::size_t panels() const { return edges.size() - 1; }
    TableView view() const;
    void finish();  // `largest`, `one_sign` and `mirror` from the rest
};

}  // namespace igb
