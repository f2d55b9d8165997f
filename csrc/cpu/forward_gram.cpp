// Forward through the Gram matrix of the activations. Given x^(l-1) (width x inputs), the rows of W x^(l-1) are i.i.d.
// N(0, K) with K = sigma_w2 x^T x / width, exactly, since each W is used once. So a layer is drawn as
//     y = Z L^T + b,   L L^T = K,   Z (width x inputs) standard normal,
// tile of nodes by tile of nodes: the width never has to fit in memory, and N^2 weights become N * inputs normals.
//
// In the columns (first input, differences from it) the same L is found without cancellation; see activate.h.
//
// Time per node and input (100 inputs, float32, one AVX-512 core): normals 1.4 ns, L product 1.2 ns, the two
// symmetric products 1.7 ns each, activation with statistics about 1 ns.
#include <limits>

#include "core/stream.h"
#include "cpu/blas.h"
#include "cpu/covariance_factor.h"
#include "cpu/forward.h"
#include "cpu/in_order.h"
#include "cpu/kernels.h"
#include "cpu/layer.h"

namespace igb {

namespace {

// What is known of one network between two layers.
template <class T>
struct GramState {
    AlignedVector<double> products;  // x^T x of the last activations, lower triangle, in `units`
    AlignedVector<double> pairs;     // y^T y of the layer being drawn
    AlignedVector<double> scratch;
    AlignedVector<T> factor;  // L of the layer being drawn
    TileUnits units, next_units;
    LayerSums sums;

    explicit GramState(Size inputs)
        : products(at(inputs * inputs)), pairs(at(inputs * inputs)), scratch(at(inputs * inputs)),
          factor(at(inputs * inputs)) {}
};

template <class T>
class GramForward {
public:
    GramForward(const ForwardRequest& request, const ForwardResult& result, Monitor& monitor)
        : request_(request), result_(result), monitor_(monitor), inputs_(request.inputs),
          tile_(choose_tile(request, inputs_, sizeof(T))), workers_(max_workers()) {
        for (int w = 0; w < workers_; ++w) scratch_.emplace_back(tile_, inputs_);
    }

    void run() {
        const Tiling features{request_.features, tile_}, nodes{request_.width, tile_};
        const double layers = static_cast<double>(request_.depth * nodes.tiles() + features.tiles());
        monitor_.expect(layers * static_cast<double>(request_.networks));
        const double bytes = static_cast<double>(inputs_ * inputs_) * (3.0 * sizeof(double) + sizeof(T));
        const Size group = choose_group(request_, nodes.tiles(), workers_, bytes);
        std::vector<GramState<T>> states(at(group), GramState<T>(inputs_));
        for (Size first = 0; first < request_.networks; first += group) {
            states.resize(at(std::min(group, request_.networks - first)), GramState<T>(inputs_));
            run_group(first, states, features, nodes);
            if (monitor_.stopped()) return;
        }
    }

private:
    void run_group(Size first, std::vector<GramState<T>>& states, const Tiling& features, const Tiling& nodes) {
        take_inputs(first, states, features);
        for (Size layer = 1; layer <= request_.depth && !monitor_.stopped(); ++layer) {
            const Size fan_in = layer == 1 ? request_.features : request_.width;
            parallel_for(states.size(), workers_, [&](std::size_t g, int) { begin_layer(states[g], fan_in); });
            draw_layer(first, states, nodes, layer);
            parallel_for(states.size(), workers_, [&](std::size_t g, int) {
                end_layer(states[g], (first + static_cast<Size>(g)) * request_.depth + layer - 1);
            });
        }
    }

    std::uint32_t network(Size first, std::size_t g) const {
        return request_.first_network + static_cast<std::uint32_t>(first + static_cast<Size>(g));
    }

    void take_inputs(Size first, std::vector<GramState<T>>& states, const Tiling& features) {
        for (auto& state : states) {
            state.units = {};
            std::fill(state.products.begin(), state.products.end(), 0.0);
        }
        const InputRange all{1, inputs_};
        for_tiles_in_order(
            states.size(), at(features.tiles()), workers_,
            [&](std::size_t g, std::size_t t, int worker) {
                if (monitor_.stopped()) return;
                const Size tile = static_cast<Size>(t), n = features.nodes(tile);
                TileScratch<T>& s = scratch_[at(worker)];
                load_inputs(request_, network(first, g), all, features.begin(tile), n, s.tile.data(), tile_);
                pair_products(s.tile.data(), tile_, n, inputs_, s.pairs.data());
                monitor_.advance(1.0);
            },
            [&](std::size_t g, std::size_t, int worker) {
                add_pairs(inputs_, scratch_[at(worker)].pairs.data(), states[g].products.data());
            });
        for (auto& state : states) {
            TileNorms norms{state.products[0], 0.0};
            for (Size a = 1; a < inputs_; ++a) norms.difference += state.products[at(a * inputs_ + a)];
            state.sums.norms = norms;
        }
    }

    // From x^(l-1) to the law of y^(l).
    void begin_layer(GramState<T>& state, Size fan_in) const {
        const double gain = request_.sigma_w2 / static_cast<double>(fan_in);
        // Where it reorders the inputs they stay reordered: no estimate asks which is which, only the origin stays first.
        covariance_factor(inputs_, state.products.data(), gain, double{std::numeric_limits<T>::epsilon()},
                          state.scratch.data(), state.factor.data());
        state.next_units = units_after(state.units, state.sums.norms, fan_in, inputs_, request_);
        state.sums = {};
        state.sums.units = state.units;
        std::fill(state.products.begin(), state.products.end(), 0.0);
        std::fill(state.pairs.begin(), state.pairs.end(), 0.0);
    }

    void draw_layer(Size first, std::vector<GramState<T>>& states, const Tiling& nodes, Size layer) {
        for_tiles_in_order(
            states.size(), at(nodes.tiles()), workers_,
            [&](std::size_t g, std::size_t t, int worker) {
                if (monitor_.stopped()) return;
                draw_tile(states[g], network(first, g), first + static_cast<Size>(g), layer, nodes,
                          static_cast<Size>(t), scratch_[at(worker)]);
                monitor_.advance(1.0);
            },
            [&](std::size_t g, std::size_t, int worker) {
                TileScratch<T>& s = scratch_[at(worker)];
                add_pairs(inputs_, s.pairs.data(), states[g].pairs.data());
                add_pairs(inputs_, s.products.data(), states[g].products.data());
                states[g].sums.nodes.merge(s.nodes);
                states[g].sums.norms.origin += s.norms.origin;
                states[g].sums.norms.difference += s.norms.difference;
            });
    }

    void draw_tile(const GramState<T>& state, std::uint32_t network, Size row, Size layer, const Tiling& nodes,
                   Size tile, TileScratch<T>& s) const {
        const Size begin = nodes.begin(tile), n = nodes.nodes(tile);
        T* const y = s.tile.data();
        const StreamId id{request_.seed, network, static_cast<std::uint32_t>(layer),
                          static_cast<std::uint32_t>(Stream::gram)};
        for (Size a = 0; a < inputs_; ++a) fill_normals(id, static_cast<std::uint32_t>(a), begin, n, y + a * tile_);
        blas::trmm_right_lower_transposed(at(n), at(inputs_), T{1}, state.factor.data(), at(inputs_), y, at(tile_));
        add_bias(request_, network, layer, begin, n, state.units.origin, y, s.bias.data());
        pair_products(y, tile_, n, inputs_, s.pairs.data());
        s.norms = activate_tile(request_.activation, n, inputs_, y, tile_, state.units, state.next_units, s.moments());
        const Size node = ((row * request_.depth) + layer - 1) * request_.width + begin;
        s.nodes = sum_nodes(n, inputs_, state.units, s.moments(), result_.mu == nullptr ? nullptr : result_.mu + node,
                            result_.var == nullptr ? nullptr : result_.var + node);
        pair_products(y, tile_, n, inputs_, s.products.data());
    }

    void end_layer(GramState<T>& state, Size index) const {
        sum_pairs(state.pairs.data(), inputs_, request_.width, true, state.sums);
        write_estimates(request_, state.sums, keeps_digits<T>(state.units), index, result_);
        state.units = state.next_units;
    }

    const ForwardRequest& request_;
    const ForwardResult& result_;
    Monitor& monitor_;
    const Size inputs_, tile_;
    const int workers_;
    std::vector<TileScratch<T>> scratch_;
};

}  // namespace

template <class T>
void forward_gram(const ForwardRequest& request, const ForwardResult& result, Monitor& monitor) {
    GramForward<T>(request, result, monitor).run();
}

double forward_gram_memory(const ForwardRequest& request, std::size_t element_size) {
    const Size inputs = request.inputs, tile = choose_tile(request, inputs, element_size);
    const double square = static_cast<double>(inputs) * static_cast<double>(inputs);
    const double element = static_cast<double>(element_size);
    const double state = square * (3.0 * sizeof(double) + element);
    const int workers = max_workers();
    const Size group = choose_group(request, Tiling{request.width, tile}.tiles(), workers, state);
    const double scratch = 2.0 * square * element + static_cast<double>(inputs * tile) * element;
    return static_cast<double>(group) * state + workers * scratch;
}

template void forward_gram<float>(const ForwardRequest&, const ForwardResult&, Monitor&);
template void forward_gram<double>(const ForwardRequest&, const ForwardResult&, Monitor&);

}  // namespace igb
