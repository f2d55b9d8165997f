// Backward through the networks of forward_direct.cpp: gradients delta_a = dLoss_a / dy_a of every input's own loss,
// from the head to the first layer,
//     delta^(l) = [delta^(l+1) +] sqrt(a) slopes . (W^T delta^(l+1)),
// where W is drawn again from its counters, block by block, and the slopes dx/dy (phi', the pool's share of each node
// and 1 / deviation of the norm) are found again from y.
//
// A norm over the nodes, z = (y - mean) / deviation, takes from t = dLoss / dz / deviation what is along the directions
// that it removes: dLoss / dy = t - mean(t) - z mean(t z).
#include <algorithm>
#include <cmath>

#include "cpu/blas.h"
#include "cpu/direct.h"
#include "cpu/in_order.h"
#include "cpu/kernels.h"

namespace igb {

namespace {

// m (n x columns) = factor W^T delta for the columns [begin, begin + n) of W, drawn block by block into `scratch`. Row
// r of member s of delta belongs to node s * rows + r (NodeLayout).
template <class T>
void multiply_columns(const DirectWeights& weights, double factor, Size begin, Size n, const BlockedMatrix<T>& delta,
                      Size columns, T* m, Size ld, T* scratch, Monitor& monitor) {
    for (Size b = 0; b < delta.members * delta.blocks.tiles() && !monitor.stopped(); ++b) {
        const Size member = b / delta.blocks.tiles(), block = b % delta.blocks.tiles();
        const Size row = member * delta.blocks.count + delta.blocks.begin(block), k = delta.blocks.nodes(block);
        for (Size r = 0; r < k; ++r)
            fill_weights(weights.law, weights.id, static_cast<std::uint32_t>(row + r), begin, n, scratch + r * ld);
        blas::gemm(blas::Trans::no, blas::Trans::no, at(n), at(columns), at(k), static_cast<T>(factor * weights.scale),
                   scratch, at(ld), delta.block(member, block), at(delta.ld()), b > 0 ? T{1} : T{0}, m, at(ld));
        monitor.advance(1.0);
    }
}

template <class T>
class DirectBackward {
public:
    DirectBackward(const ForwardRequest& request, const DirectPlan& plan, const Nonlinearity& nonlinearity,
                   Size columns, Size first_column, std::vector<DirectState<T>>& states,
                   std::vector<DirectScratch<T>>& scratch, Monitor& monitor)
        : request_(request), plan_(plan), nonlinearity_(nonlinearity), columns_(columns), first_column_(first_column),
          inputs_(columns - first_column), states_(states), scratch_(scratch), monitor_(monitor) {}

    void run() {
        for_states([&](State& state) { begin(state); });
        for (Size layer = request_.depth; layer >= 1; --layer) {
            for_states([&](State& state) { begin_layer(state); });
            if (layer < request_.depth && request_.weights == WeightLaw::orthogonal)
                for_networks(states_.size(), plan_.workers, [&](std::size_t g) {
                    State& state = states_[g];
                    apply_orthogonal(DirectWeights(request_, state.network, layer + 1), true, state.delta, inputs_,
                                     state.whole, plan_.workers, monitor_);
                });
            if (monitor_.stopped()) return;
            for_tiles([&](State& state, Size tile, Scratch& s) {
                through_nonlinearity(state, layer, tile, s);
                request_.layernorm ? sum_tile(state, layer, tile, s) : finish_tile(state, layer, tile, s);
            });
            if (request_.layernorm) {
                for (State& state : states_) {
                    std::swap(state.norm_sums, state.delta_sums);
                    state.delta_sums.clear(inputs_);
                }
                for_tiles([&](State& state, Size tile, Scratch& s) { finish_tile(state, layer, tile, s); });
            }
            if (monitor_.stopped()) return;
            for_states([&](State& state) { end_layer(state, layer); });
        }
    }

private:
    using State = DirectState<T>;
    using Scratch = DirectScratch<T>;

    template <class Body>
    void for_states(Body&& body) {
        parallel_for(states_.size(), plan_.workers, [&](std::size_t g, int) { body(states_[g]); });
    }

    // Also adds up the column sums that body leaves in the scratch.
    template <class Body>
    void for_tiles(Body&& body) {
        for_tiles_in_order(
            states_.size(), at(plan_.pools.tiles()), plan_.workers,
            [&](std::size_t g, std::size_t tile, int worker) {
                scratch_[at(worker)].sums.clear(inputs_);
                body(states_[g], static_cast<Size>(tile), scratch_[at(worker)]);
            },
            [&](std::size_t g, std::size_t, int worker) { states_[g].delta_sums.add(scratch_[at(worker)].sums); });
    }

    bool has_skip(Size layer) const { return request_.residual > 0.0 && layer < request_.depth; }

    void begin(State& state) const {
        const Size outputs = request_.outputs();
        AlignedVector<T> delta(at(outputs * inputs_));
        state.delta_units = loss_gradient(request_, inputs_, state.logits.data(), state.labels.data(), delta.data());
        state.scale.assign(at(inputs_), 1.0);
        state.delta.shape(plan_.blocks(outputs), 1, inputs_);
        for (Size b = 0; b < state.delta.blocks.tiles(); ++b)
            for (Size a = 0; a < inputs_; ++a) {
                const T* const from = delta.data() + a * outputs + state.delta.blocks.begin(b);
                std::copy(from, from + state.delta.blocks.nodes(b), state.delta.block(0, b) + a * state.delta.ld());
            }
    }

    void begin_layer(State& state) const {
        state.next_delta.shape(plan_.blocks(plan_.layout.pools), plan_.layout.members, inputs_);
        state.exponent = input_weights(state.delta_units, state.input_weights);
        state.node_squares.assign(at(request_.width), 0.0);
        state.delta_sums.clear(inputs_);
    }

    // t = slopes . (W^T delta), in next_delta.
    void through_nonlinearity(State& state, Size layer, Size tile, Scratch& s) {
        const TileShape shape = plan_.shape(tile, columns_);
        const Size begin = plan_.pools.begin(tile);
        LayerInFlight<T>& now = state.layer(layer);
        go_back(state, layer, begin, shape.nodes, s);
        if (monitor_.stopped()) return;
        const T* const y = now.y.tile(tile);
        std::copy(y, y + shape.ld * shape.inputs, s.tile.tile.begin());
        apply_nonlinearity(nonlinearity_, shape, request_.layernorm ? &now.norm : nullptr, now.units, now.out, true,
                           s.tile);
        for (Size member = 0; member < shape.members; ++member) {
            const T* const slopes = s.tile.slopes.data() + member * shape.member + first_column_ * shape.ld;
            multiply_tiles(shape.nodes, inputs_, slopes, shape.ld, s.product.data(), plan_.tile,
                           state.next_delta.rows_from(member, begin), state.next_delta.ld());
        }
    }

    // s.product = factor W^T delta for the pools [begin, begin + n) of a layer, in units that suit delta.
    void go_back(State& state, Size layer, Size begin, Size n, Scratch& s) {
        const DirectWeights weights(request_, state.network, layer + 1);
        const double factor = has_skip(layer) ? std::sqrt(request_.residual) : 1.0;
        T* const m = s.product.data();
        if (weights.orthogonal()) {
            const T scale = static_cast<T>(factor * weights.scale);
            for (Size a = 0; a < inputs_; ++a)
                for (Size i = 0; i < n; ++i)
                    m[a * plan_.tile + i] = scale * state.whole[at(a * weights.order() + begin + i)];
            monitor_.advance(static_cast<double>(state.delta.members * state.delta.blocks.tiles()));
        } else {
            multiply_columns(weights, factor, begin, n, state.delta, inputs_, m, plan_.tile, s.weights.data(),
                             monitor_);
        }
        for (Size a = 0; a < inputs_; ++a) {
            const T scale = static_cast<T>(state.scale[at(a)]);
            for (Size i = 0; i < n; ++i) m[a * plan_.tile + i] *= scale;
        }
    }

    // body(z_i, i) for the nodes of one column of a member's rows y of a tile.
    template <class Body>
    void for_normed(const LayerNormMaps& norm, Size column, Size n, const T* y, Size ld, Body&& body) const {
        const ColumnMap &first = norm.maps[0], &map = norm.maps[at(column)];
        const double difference = column == 0 ? 0.0 : norm.units.difference;
        for (Size i = 0; i < n; ++i) {
            const double origin = static_cast<double>(y[i]);
            const double change =
                map.scale * static_cast<double>(y[column * ld + i]) + map.from_origin * origin + map.shift;
            body(norm.units.origin * (first.scale * origin + first.shift) + difference * change, i);
        }
    }

    // Sums of t and t z.
    void sum_tile(State& state, Size layer, Size tile, Scratch& s) const {
        const TileShape shape = plan_.shape(tile, columns_);
        LayerInFlight<T>& now = state.layer(layer);
        for (Size member = 0; member < shape.members; ++member) {
            const T* const rows = state.next_delta.rows_from(member, plan_.pools.begin(tile));
            const T* const y = now.y.tile(tile) + member * shape.member;
            for (Size a = 0; a < inputs_; ++a) {
                const T* const t = rows + a * state.next_delta.ld();
                for_normed(now.norm, first_column_ + a, shape.nodes, y, shape.ld, [&](double z, Size i) {
                    s.sums.sums[at(a)] += static_cast<double>(t[i]);
                    s.sums.with_origin[at(a)] += static_cast<double>(t[i]) * z;
                });
            }
        }
    }

    // What the norm takes away and what the skip connection adds, and the squares of what comes out.
    void finish_tile(State& state, Size layer, Size tile, Scratch& s) const {
        const TileShape shape = plan_.shape(tile, columns_);
        const Size begin = plan_.pools.begin(tile), ld = state.next_delta.ld();
        for (Size member = 0; member < shape.members; ++member) {
            T* const rows = state.next_delta.rows_from(member, begin);
            double* const node_squares = state.node_squares.data() + plan_.layout.node(member, begin);
            for (Size a = 0; a < inputs_; ++a) {
                T* const delta = rows + a * ld;
                if (request_.layernorm) take_norm_away(state, layer, tile, member, a, delta);
                if (has_skip(layer)) {
                    const T* const above = state.delta.rows_from(member, begin) + a * ld;
                    const T scale = static_cast<T>(state.scale[at(a)]);
                    for (Size i = 0; i < shape.nodes; ++i) delta[i] += scale * above[i];
                }
                s.sums.squares[at(a)] += sum_squares(shape.nodes, delta, state.input_weights[at(a)], node_squares);
            }
        }
    }

    void take_norm_away(State& state, Size layer, Size tile, Size member, Size a, T* delta) const {
        const TileShape shape = plan_.shape(tile, columns_);
        LayerInFlight<T>& now = state.layer(layer);
        const double width = static_cast<double>(request_.width);
        const double mean = state.norm_sums.sums[at(a)] / width, along = state.norm_sums.with_origin[at(a)] / width;
        for_normed(
            now.norm, first_column_ + a, shape.nodes, now.y.tile(tile) + member * shape.member, shape.ld,
            [&](double z, Size i) { delta[i] = static_cast<T>(static_cast<double>(delta[i]) - mean - z * along); });
    }

    static double sum_squares(Size n, const T* delta, double weight, double* node_squares) {
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (Size i = 0; i < n; ++i) {
            const double square = static_cast<double>(delta[i]) * static_cast<double>(delta[i]);
            sum += square;
            node_squares[i] += weight * square;
        }
        return sum;
    }

    void end_layer(State& state, Size layer) const {
        LayerRecord& record = state.record->layer(layer);
        const double* const squares = state.delta_sums.squares.data();
        ForwardResult here;
        here.inputs = inputs_;
        here.gradient.resize(at(inputs_));
        write_gradients(request_, 0, 1, 0, inputs_, state.delta_units, squares, here);
        merge_nodes(state, record);
        record.gradient.insert(record.gradient.end(), here.gradient.begin(), here.gradient.end());

        const std::vector<int> shifts = rescaling(inputs_, static_cast<double>(request_.width), squares);
        for (std::size_t a = 0; a < shifts.size(); ++a) {
            state.scale[a] = std::ldexp(1.0, -shifts[a]);
            state.delta_units.exponent[a] += shifts[a];
        }
        std::swap(state.delta, state.next_delta);
    }

    // node_squares are means over the inputs of this chunk, times 4^-exponent.
    void merge_nodes(const State& state, LayerRecord& record) const {
        const int former = record.gradient.empty() ? state.exponent : record.gradient_exponent;
        record.gradient_exponent = std::max(former, state.exponent);
        const double old = std::ldexp(1.0, 2 * (former - record.gradient_exponent));
        const double now = std::ldexp(static_cast<double>(inputs_), 2 * (state.exponent - record.gradient_exponent));
        for (std::size_t i = 0; i < record.gradient2.size(); ++i)
            record.gradient2[i] = old * record.gradient2[i] + now * state.node_squares[i];
    }

    const ForwardRequest& request_;
    const DirectPlan& plan_;
    const Nonlinearity& nonlinearity_;
    const Size columns_, first_column_, inputs_;
    std::vector<DirectState<T>>& states_;
    std::vector<DirectScratch<T>>& scratch_;
    Monitor& monitor_;
};

}  // namespace

template <class T>
void backward_direct(const ForwardRequest& request, const DirectPlan& plan, const Nonlinearity& nonlinearity,
                     Size columns, Size first_column, std::vector<DirectState<T>>& states,
                     std::vector<DirectScratch<T>>& scratch, Monitor& monitor) {
    DirectBackward<T>(request, plan, nonlinearity, columns, first_column, states, scratch, monitor).run();
}

template void backward_direct(const ForwardRequest&, const DirectPlan&, const Nonlinearity&, Size, Size,
                              std::vector<DirectState<float>>&, std::vector<DirectScratch<float>>&, Monitor&);
template void backward_direct(const ForwardRequest&, const DirectPlan&, const Nonlinearity&, Size, Size,
                              std::vector<DirectState<double>>&, std::vector<DirectScratch<double>>&, Monitor&);

}  // namespace igb
