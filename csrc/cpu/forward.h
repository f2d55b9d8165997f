// Random networks of finite width, forward and backward, and what is measured in each layer:
//     y^(1) = W x^(0) + b,   y^(l+1) = [y^(l) +] sqrt(a) (W x^(l) + b),   x^(l) = pool(phi(norm(y^(l)))),
// with a = 1 and without the bracket unless the network is residual. A head, one more linear layer of `classes` nodes
// (or one node for a read-out), reads x^(depth). Two engines, the same in law: forward_direct.cpp draws every weight,
// forward_gram.cpp draws the nodes from the exact conditional law of a layer given the one before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/activation_kind.h"
#include "core/stream.h"
#include "cpu/monitor.h"
#include "cpu/phi.h"

namespace igb {

enum class Loss : int { none, readout, cross_entropy };

struct ForwardRequest {
    Leaf phi;  // by a rule of its own, or as a table
    Pool pool;
    WeightLaw weights = WeightLaw::gaussian;
    double sigma_w2 = 1.0;
    double sigma_b2 = 0.0;
    double residual = 0.0;  // the branch ratio a; 0: a plain network
    bool layernorm = false;
    std::int64_t width = 1;  // a multiple of the pool's size
    std::int64_t depth = 1;
    std::int64_t features = 1;  // of one input; Gaussian inputs have features = width
    std::uint64_t seed = 0;
    std::uint32_t first_network = 0;
    std::int64_t networks = 1;
    Loss loss = Loss::none;
    std::int64_t classes = 10;   // of the head, whether or not there is a loss
    bool per_node = false;       // keep mu and var
    bool distributions = false;  // keep histograms
    std::int64_t tile = 0;       // nodes (of one member of each pool) worked on together, a multiple of 64; 0: chosen
    std::int64_t chunk = 0;      // direct: inputs that go through the network together; 0: chosen for the memory

    std::int64_t members() const { return pool.kind == PoolKind::none ? 1 : pool.size; }
    std::int64_t pools() const { return width / members(); }                                   // nodes of x^(l), l >= 1
    std::int64_t fan_in(std::int64_t layer) const { return layer == 1 ? features : pools(); }  // layer 1 .. depth + 1
    std::int64_t outputs() const { return loss == Loss::readout ? 1 : classes; }               // nodes of the head
};

// Inputs in number, (count, features) row-major, one of the two; or neither: standard Gaussian ones.
struct InputsView {
    std::int64_t count = 0;
    const float* f32 = nullptr;
    const double* f64 = nullptr;
    const std::int32_t* labels = nullptr;  // (count), 0 .. classes - 1; null: drawn at random
};

// Value of each estimate and its standard error over the nodes of that network: (network, layer), row-major.
struct Estimate {
    std::vector<double> value, error;
    void resize(std::size_t n) {
        value.resize(n);
        error.resize(n);
    }
};

// Counts of values by sign, exponent and four leading bits of the mantissa: the sixteen leading bits of a double. What
// is kept of it is the bins that are not empty.
struct HistogramEntry {
    std::int32_t network, layer;  // from 0
    std::uint16_t bin;            // the leading bits: lower edge of |value| is the double with these and zeros
    std::int64_t count;
};

struct ForwardResult {
    Estimate sigma_mu2, sigma_y2, gamma, q, c, chi;
    std::vector<double> mu, var;         // (network, layer, node), if asked for
    std::vector<std::int32_t> guess;     // (network, input): the class of the largest output
    std::vector<std::int32_t> labels;    // (network, input), with cross entropy
    std::vector<double> gradient;        // (network, layer, input): mean over nodes of (dLoss_a / dy_i(a))^2
    std::vector<double> gradient_error;  // (network, layer): of its mean over the inputs, over the nodes
    std::vector<HistogramEntry> mu_counts, var_counts, q_counts, c_counts;  // c_counts: of 1 - c
    std::int64_t inputs = 0;
    bool beyond_table = false;  // some |y| left the table of phi: the rest means nothing

    void resize(const ForwardRequest&, std::int64_t inputs);
};

// T = float or double is the arithmetic of the layers; sums are always double. Both return early, with the result
// unfinished, once the monitor says stop.

// All inputs at once. gaussian and orthogonal weights.
template <class T>
void forward_gram(const ForwardRequest&, const InputsView&, ForwardResult&, Monitor&);

// All networks, group by group, each on all inputs, chunk by chunk.
template <class T>
void forward_direct(const ForwardRequest&, const InputsView&, ForwardResult&, Monitor&);

// The same for inputs that come in pieces, as many as there are: all networks see a piece before the next one is asked
// for. The very first input is the origin of all differences (activate.h).
class DirectStream {
public:
    virtual ~DirectStream() = default;
    virtual void take(const InputsView& piece, Monitor&) = 0;
    virtual void finish(ForwardResult&) = 0;
};
std::unique_ptr<DirectStream> make_direct_stream(const ForwardRequest&, bool single);

// Peak memory in bytes that a run takes, results included.
double forward_gram_memory(const ForwardRequest&, std::int64_t inputs, std::size_t element_size);
double forward_direct_memory(const ForwardRequest&, std::int64_t inputs, std::size_t element_size);
double result_memory(const ForwardRequest&, std::int64_t inputs);

}  // namespace igb
