// What the mean-field functions integrate: P = phi of one node, or of a pool of nodes.
#pragma once

#include <memory>
#include <vector>

#include "core/activation_kind.h"
#include "core/pool_kind.h"
#include "cpu/table.h"

namespace igb {

// phi by a rule of its own or, with a table, as data.
struct Leaf {
    Activation activation{ActivationKind::linear};
    std::shared_ptr<const Table> table;
};

// Each node draws its phi: leaf i with probability weight i. An ordinary phi is one leaf of weight 1.
struct Phi {
    struct Share {
        double weight;
        Leaf leaf;
    };
    std::vector<Share> shares;

    double q_max() const;
};

}  // namespace igb
