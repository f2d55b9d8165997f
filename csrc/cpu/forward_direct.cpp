// Forward with every weight drawn: y = W x + b for all inputs at once. W is a function of (seed, network, layer, row,
// column), made block by block as the product needs it and never stored: a layer of any width costs the memory of its
// activations. Inputs go through in chunks against the same weights, all as differences from the first input (see
// activate.h), so their statistics merge over the chunks, and over pieces that come one by one.
//
// A layer has two phases: the linear part of all tiles, which gives norms over all nodes, and then what these are
// needed for, tile by tile: norm, nonlinearity, pool and statistics.
//
// Time per weight (100 inputs, float32, one AVX-512 core): normal 0.9 ns, product 2.6 ns.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "core/contrast.h"
#include "cpu/blas.h"
#include "cpu/direct.h"
#include "cpu/in_order.h"
#include "cpu/kernels.h"

namespace igb {

namespace {

// The sums of one member's rows of a tile.
template <class T>
void sum_member(Size n, Size columns, const T* y, Size ld, ColumnSums& to) {
    for (Size a = 0; a < columns; ++a) {
        const T* const column = y + a * ld;
        double square = 0.0, cross = 0.0, sum = 0.0;
#pragma omp simd reduction(+ : square, cross, sum)
        for (Size i = 0; i < n; ++i) {
            const double d = static_cast<double>(column[i]);
            square += d * d;
            cross += d * static_cast<double>(y[i]);
            sum += d;
        }
        to.squares[at(a)] += square;
        to.with_origin[at(a)] += cross;
        to.sums[at(a)] += sum;
    }
}

// y (n x columns) = [y +] factor W x for the rows [row, row + n) of W, drawn block by block into `scratch`.
template <class T>
void multiply_rows(const DirectWeights& weights, double factor, Size row, Size n, const BlockedMatrix<T>& x,
                   Size columns, bool add, T* y, Size ld, T* scratch, Monitor& monitor) {
    for (Size b = 0; b < x.blocks.tiles() && !monitor.stopped(); ++b) {
        const Size k = x.blocks.nodes(b);
        for (Size i = 0; i < n; ++i)
            fill_weights(weights.law, weights.id, static_cast<std::uint32_t>(row + i), x.blocks.begin(b), k,
                         scratch + i * x.ld());
        blas::gemm(blas::Trans::yes, blas::Trans::no, at(n), at(columns), at(k), static_cast<T>(factor * weights.scale),
                   scratch, at(x.ld()), x.block(0, b), at(x.ld()), add || b > 0 ? T{1} : T{0}, y, at(ld));
        monitor.advance(1.0);
    }
}

template <class T>
void scale_into(const T* from, T factor, Size n, T* to) {
    for (Size i = 0; i < n; ++i) to[i] = factor * from[i];
}

// The distribution of 1 - c over the pairs of the chunk's inputs, without cancellation:
//     1 - c_ab = (|y_a - y_b|^2 - (|y_a| - |y_b|)^2) / (2 |y_a| |y_b|),
//     |y_a| - |y_b| = (2 y_0.(d_a - d_b) + |d_a|^2 - |d_b|^2) / (|y_a| + |y_b|)
// pairs: d_a . d_b, lower triangle, in units of the differences; norms: |y_a|, in units of the origin.
void count_pairs(const ColumnSums& sums, double ratio, const double* pairs, const std::vector<double>& norms,
                 Size first_column, Histogram& histogram) {
    const Size columns = static_cast<Size>(norms.size());
    const auto with_origin = [&](Size a) { return a == 0 ? 0.0 : ratio * sums.with_origin[at(a)]; };
    const auto product = [&](Size a, Size b) { return b == 0 ? 0.0 : ratio * ratio * pairs[b * columns + a]; };
    for (Size b = first_column; b < columns; ++b) {
        for (Size a = b + 1; a < columns; ++a) {
            const double aa = product(a, a), bb = product(b, b), n_a = norms[at(a)], n_b = norms[at(b)];
            if (n_a == 0.0 || n_b == 0.0) continue;
            const double longer = (2.0 * (with_origin(a) - with_origin(b)) + aa - bb) / (n_a + n_b);
            const double apart = aa + bb - 2.0 * product(a, b);
            histogram.add(std::max(apart - longer * longer, 0.0) / (2.0 * n_a * n_b));
        }
    }
}

void merge_counts(Histogram& histogram, std::map<std::uint16_t, std::int64_t>& to) {
    std::vector<HistogramEntry> entries;
    histogram.write(0, 0, entries);
    for (const HistogramEntry& entry : entries) to[entry.bin] += entry.count;
}

// The inputs that are on their way: columns [first_column, columns) count, and are inputs [first, ...) of the piece.
struct Chunk {
    const InputsView& piece;
    InputRange range;
    Size first_column, first;

    Size columns() const { return range.columns; }
    Size counted() const { return range.columns - first_column; }
};

template <class T>
class DirectEngine {
public:
    // inputs: how many there will be, or any_number.
    DirectEngine(const ForwardRequest& request, Size inputs)
        : request_(request), nonlinearity_(request_), plan_(request_, inputs, sizeof(T)) {
        for (int w = 0; w < plan_.workers; ++w) scratch_.emplace_back(request_, nonlinearity_, plan_);
    }

    const ForwardRequest& request() const { return request_; }
    Size group() const { return plan_.group; }

    // Sets what the monitor is to expect of all networks on a piece, which is then ready to be seen.
    void begin(const InputsView& piece, Monitor& monitor) {
        monitor_ = &monitor;
        const Size first = plan_.blocks(request_.features).tiles(), others = plan_.blocks(plan_.layout.pools).tiles();
        const Size tiles = plan_.pools.tiles(), members = plan_.layout.members, depth = request_.depth;
        Size products = tiles * members * (first + (depth - 1) * others) + plan_.outputs.tiles() * others;
        if (request_.loss != Loss::none)
            products += tiles * (plan_.blocks(request_.outputs()).tiles() + (depth - 1) * members * others);
        const Size news = std::max<Size>(1, piece.count - (taken_ == 0 ? 1 : 0));
        const Size chunks = (news + plan_.chunk - 1) / plan_.chunk;
        monitor.expect(static_cast<double>(products) * static_cast<double>(chunks * request_.networks));
    }

    // Networks [first, first + count) on a piece. Where layers are not kept, their estimates are written at once.
    void see(Size first, Size count, const InputsView& piece, NetworkRecord* records, ForwardResult* result) {
        states_.resize(at(count));
        first_ = first;
        result_ = result;
        for (Size g = 0; g < count; ++g) {
            states_[at(g)].network = request_.first_network + static_cast<std::uint32_t>(first + g);
            states_[at(g)].record = records + g;
        }
        Size begin = taken_ == 0 ? 1 : 0;
        do {  // also for a first input that comes alone
            const InputRange range{begin, std::min(plan_.chunk, piece.count - begin) + 1};
            const bool with_origin = taken_ == 0 && begin == 1;
            see_chunk({piece, range, with_origin ? 0 : 1, with_origin ? 0 : begin});
            begin += plan_.chunk;
        } while (begin < piece.count && !monitor_->stopped());
    }

    // All networks have seen the piece.
    void end(const InputsView& piece) {
        if (taken_ == 0 && piece.f32 != nullptr) origin_.assign(piece.f32, piece.f32 + request_.features);
        if (taken_ == 0 && piece.f64 != nullptr) origin_.assign(piece.f64, piece.f64 + request_.features);
        taken_ += piece.count;
    }

    Size taken() const { return taken_; }

    void prepare(NetworkRecord& record) const {
        record.layers.resize(plan_.keeps_layers ? at(request_.depth) : 1);
        for (LayerRecord& layer : record.layers) layer.clear(request_);
    }

    // What is left to write of networks [first, first + count), once they have seen all inputs.
    void write(Size first, Size count, NetworkRecord* records, ForwardResult& result) const {
        parallel_for(at(count), plan_.workers, [&](std::size_t g, int) {
            const Size network = first + static_cast<Size>(g);
            const NetworkRecord& record = records[g];
            std::copy(record.guess.begin(), record.guess.end(), result.guess.begin() + network * result.inputs);
            std::copy(record.labels.begin(), record.labels.end(), result.labels.begin() + network * result.inputs);
            for (Size l = 1; plan_.keeps_layers && l <= request_.depth; ++l)
                write_layer(record.layers[at(l - 1)], network * request_.depth + l - 1, result);
        });
        for (Size g = 0; g < count; ++g) {
            result.beyond_table |= records[g].beyond_table;
            for (Size l = 0; request_.distributions && l < request_.depth; ++l)
                write_counts(records[g].layers[at(l)], static_cast<std::int32_t>(first + g),
                             static_cast<std::int32_t>(l), result);
        }
    }

private:
    using State = DirectState<T>;
    using Scratch = DirectScratch<T>;

    bool stopped() const { return monitor_->stopped(); }

    void see_chunk(const Chunk& chunk) {
        load(chunk);
        for (Size layer = 1; layer <= request_.depth && !stopped(); ++layer) {
            for (State& state : states_) begin_layer(state, layer, chunk);
            linear_part(layer, chunk);
            if (stopped()) return;
            parallel_for(states_.size(), request_.distributions ? plan_.workers : 1,
                         [&](std::size_t g, int worker) { norms(states_[g], layer, chunk, scratch_[at(worker)]); });
            nonlinear_part(layer, chunk);
            parallel_for(states_.size(), plan_.keeps_layers ? 1 : plan_.workers,
                         [&](std::size_t g, int) { end_layer(g, layer); });
        }
        if (!stopped()) head(chunk);
        if (!stopped() && request_.loss != Loss::none)
            backward_direct(request_, plan_, nonlinearity_, chunk.columns(), chunk.first_column, states_, scratch_,
                            *monitor_);
    }

    void load(const Chunk& chunk) {
        for (State& state : states_) {
            state.units = {};
            state.layers.resize(request_.loss != Loss::none ? at(request_.depth) : 1);
            state.x.shape(plan_.blocks(request_.features), 1, chunk.columns());
        }
        const std::size_t tiles = at(plan_.features.tiles());
        parallel_for(states_.size() * tiles, plan_.workers, [&](std::size_t index, int) {
            const Size begin = plan_.features.begin(static_cast<Size>(index % tiles));
            const Size n = plan_.features.nodes(static_cast<Size>(index % tiles));
            State& state = states_[index / tiles];
            load_inputs(request_, chunk.piece, state.network, chunk.range, taken_,
                        origin_.empty() ? nullptr : origin_.data(), begin, n, state.x.rows_from(0, begin),
                        state.x.ld());
        });
    }

    void begin_layer(State& state, Size layer, const Chunk& chunk) {
        if (layer > 1) state.units_before = state.layer(layer - 1).units;
        LayerInFlight<T>& now = state.layer(layer);
        now.units = state.units;
        now.y.shape(plan_.pools.tiles(), plan_.tile_rows(), chunk.columns());
        state.sums.clear(chunk.columns());
        if (request_.distributions) state.pairs.assign(at(chunk.columns() * chunk.columns()), 0.0);
    }

    // y = [y +] factor (W x + b), and its sums over the nodes.
    void linear_part(Size layer, const Chunk& chunk) {
        if (request_.weights == WeightLaw::orthogonal)
            for_networks(states_.size(), plan_.workers, [&](std::size_t g) {
                State& state = states_[g];
                apply_orthogonal(DirectWeights(request_, state.network, layer), false, state.x, chunk.columns(),
                                 state.whole, plan_.workers, *monitor_);
            });
        if (stopped()) return;
        for_tiles_in_order(
            states_.size(), at(plan_.pools.tiles()), plan_.workers,
            [&](std::size_t g, std::size_t t, int worker) {
                linear_tile(states_[g], layer, static_cast<Size>(t), chunk, scratch_[at(worker)]);
            },
            [&](std::size_t g, std::size_t, int worker) {
                states_[g].sums.add(scratch_[at(worker)].sums);
                const AlignedVector<T>& pairs = scratch_[at(worker)].pairs;
                for (std::size_t p = 0; p < states_[g].pairs.size(); ++p)
                    states_[g].pairs[p] += static_cast<double>(pairs[p]);
            });
    }

    void linear_tile(State& state, Size layer, Size tile, const Chunk& chunk, Scratch& s) {
        const DirectWeights weights(request_, state.network, layer);
        const TileShape shape = plan_.shape(tile, chunk.columns());
        LayerInFlight<T>& now = state.layer(layer);
        T* const y = now.y.tile(tile);
        const bool adds = request_.residual > 0.0 && layer > 1;
        const double factor = adds ? std::sqrt(request_.residual) : 1.0;
        if (adds) copy_in_units(state.layer(layer - 1).y.tile(tile), state.units_before, now.units, chunk.columns(), y);
        s.sums.clear(chunk.columns());
        for (Size member = 0; member < shape.members; ++member) {
            const Size row = plan_.layout.node(member, plan_.pools.begin(tile));
            T* const to = y + member * shape.member;
            if (weights.orthogonal()) {
                take_rows(state, weights, factor, row, shape, adds, to);
            } else {
                multiply_rows(weights, factor, row, shape.nodes, state.x, chunk.columns(), adds, to, shape.ld,
                              s.weights.data(), *monitor_);
            }
        }
        if (stopped()) return;
        add_bias(request_, plan_.layout, state.network, layer, plan_.pools.begin(tile), now.units.origin / factor,
                 shape, y, s.tile.bias.data());
        for (Size member = 0; member < shape.members; ++member) {
            const T* const rows = y + member * shape.member;
            sum_member(shape.nodes, shape.inputs, rows, shape.ld, s.sums);
            if (request_.distributions)
                blas::syrk_tn(at(shape.inputs), at(shape.nodes), T{1}, rows, at(shape.ld), member > 0 ? T{1} : T{0},
                              s.pairs.data(), at(shape.inputs));
        }
    }

    // The tile of the layer before in the units of this one.
    void copy_in_units(const T* from, const TileUnits& before, const TileUnits& now, Size columns, T* to) const {
        const Size rows = plan_.tile_rows();
        scale_into(from, static_cast<T>(before.origin / now.origin), rows, to);
        scale_into(from + rows, static_cast<T>(before.difference / now.difference), (columns - 1) * rows, to + rows);
    }

    void take_rows(State& state, const DirectWeights& weights, double factor, Size row, const TileShape& shape,
                   bool add, T* y) {
        const T scale = static_cast<T>(factor * weights.scale);
        for (Size a = 0; a < shape.inputs; ++a) {
            const T* const from = state.whole.data() + a * weights.order() + row;
            T* const to = y + a * shape.ld;
            for (Size i = 0; i < shape.nodes; ++i) to[i] = add ? to[i] + scale * from[i] : scale * from[i];
        }
        monitor_->advance(static_cast<double>(state.x.blocks.tiles()));
    }

    // What needs all nodes: lengths of the y_a, units and norm of what comes next.
    void norms(State& state, Size layer, const Chunk& chunk, Scratch& s) {
        LayerInFlight<T>& now = state.layer(layer);
        LayerRecord& record = state.record->layer(layer);
        const ColumnSums& sums = state.sums;
        const double ratio = now.units.difference / now.units.origin, width = static_cast<double>(request_.width);
        std::vector<double> lengths(at(chunk.columns()));
        double differences = 0.0;
        state.weights.assign(at(chunk.columns()), 0.0);
        for (Size a = 0; a < chunk.columns(); ++a) {
            const double cross = a == 0 ? 0.0 : ratio * sums.with_origin[at(a)];
            const double square = a == 0 ? 0.0 : ratio * ratio * sums.squares[at(a)];
            const double length2 = squared_length<T>(sums.squares[0], cross, square);
            lengths[at(a)] = std::sqrt(length2);
            if (a > 0) differences += sums.squares[at(a)];
            if (a < chunk.first_column) continue;
            const double q = now.units.origin * now.units.origin * length2 / width;
            record.q_sum += q;
            if (request_.distributions) s.histogram.add(q);
            if (length2 == 0.0) continue;
            ++record.directions;
            state.weights[0] += 1.0 / lengths[at(a)];
            if (a > 0) state.weights[at(a)] = ratio / lengths[at(a)];
        }
        if (request_.distributions) {
            merge_counts(s.histogram, record.q_counts);
            count_pairs(sums, ratio, state.pairs.data(), lengths, chunk.first_column, s.histogram);
            merge_counts(s.histogram, record.c_counts);
        }
        const double news = static_cast<double>(std::max<Size>(1, chunk.columns() - 1));
        now.out = units_near<T>(now.units, sums.squares[0] / width, differences / (width * news));
        if (request_.layernorm)
            now.norm =
                layer_norm<T>(request_.width, now.units, sums.sums, sums.with_origin.data(), sums.squares.data());
        record.inputs += chunk.counted();
        record.units = now.units;
        record.digits_kept &= keeps_digits<T>(now.units);
    }

    void nonlinear_part(Size layer, const Chunk& chunk) {
        for (State& state : states_) state.x.shape(plan_.blocks(plan_.layout.pools), 1, chunk.columns());
        for_tiles_in_order(
            states_.size(), at(plan_.pools.tiles()), plan_.workers,
            [&](std::size_t g, std::size_t t, int worker) {
                nonlinear_tile(states_[g], layer, static_cast<Size>(t), chunk, scratch_[at(worker)]);
            },
            [&](std::size_t g, std::size_t, int worker) {
                states_[g].record->beyond_table |= scratch_[at(worker)].tile.norms.beyond_table;
            });
    }

    void nonlinear_tile(State& state, Size layer, Size tile, const Chunk& chunk, Scratch& s) {
        const TileShape shape = plan_.shape(tile, chunk.columns());
        LayerInFlight<T>& now = state.layer(layer);
        const Size begin = plan_.pools.begin(tile);
        T* const y = now.y.tile(tile);
        std::copy(y, y + shape.ld * shape.inputs, s.tile.tile.begin());
        apply_nonlinearity(nonlinearity_, shape, request_.layernorm ? &now.norm : nullptr, now.units, now.out, false,
                           s.tile);
        for (Size a = 0; a < shape.inputs; ++a) {
            const T* const x = s.tile.tile.data() + a * shape.ld;
            std::copy(x, x + shape.nodes, state.x.rows_from(0, begin) + a * state.x.ld());
        }
        record_nodes(*state.record, layer, now.units, begin, shape, chunk, s.tile);
        LayerRecord& record = state.record->layer(layer);
        for (Size member = 0; member < shape.members; ++member)
            add_directions(state.weights, shape, y + member * shape.member,
                           record.direction.data() + plan_.layout.node(member, begin));
    }

    void record_nodes(NetworkRecord& network, Size layer, const TileUnits& units, Size begin, const TileShape& shape,
                      const Chunk& chunk, const TileScratch<T>& s) const {
        LayerRecord& record = network.layer(layer);
        const double unit = units.difference;
        const bool with_origin = chunk.first_column == 0;  // counts the first input, as a difference of zero
        const double count = static_cast<double>(chunk.counted());
        for (Size member = 0; member < shape.members; ++member) {
            for (Size i = 0; i < shape.nodes; ++i) {
                const std::size_t row = at(member * shape.member + i), node = at(plan_.layout.node(member, begin + i));
                const double mean = s.sum[row] / count;
                const double m2 = std::max(s.sum2[row] - s.sum[row] * mean, 0.0);
                record.differences[node].merge({count, unit * mean, unit * unit * m2});
                if (with_origin) record.origin[node] = units.origin * s.origin[row];
            }
        }
        for (Size i = 0; i < shape.nodes; ++i)
            record.slope2[at(begin + i)] += s.slope2[at(i)] + (with_origin ? s.origin_slope2[at(i)] : 0.0);
    }

    static void add_directions(const std::vector<double>& weights, const TileShape& shape, const T* y, double* to) {
        for (Size a = 0; a < shape.inputs; ++a) {
            const double weight = weights[at(a)];
            const T* const column = y + a * shape.ld;
            for (Size i = 0; i < shape.nodes; ++i) to[i] += weight * static_cast<double>(column[i]);
        }
    }

    void end_layer(std::size_t g, Size layer) {
        State& state = states_[g];
        state.units = state.layer(layer).out;
        if (plan_.keeps_layers) return;
        const Size network = first_ + static_cast<Size>(g);
        write_layer(state.record->layers[0], network * request_.depth + layer - 1, *result_);
        state.record->layers[0].clear(request_);
    }

    // The logits of the inputs that count, their classes and labels.
    void head(const Chunk& chunk) {
        const Size outputs = request_.outputs(), layer = request_.depth + 1;
        for (State& state : states_) state.outputs.resize(at(outputs * chunk.columns()));
        NodeLayout layout;
        layout.pools = layout.stride = outputs;
        const std::size_t tiles = at(plan_.outputs.tiles());
        parallel_for(states_.size() * tiles, plan_.workers, [&](std::size_t index, int worker) {
            State& state = states_[index / tiles];
            Scratch& s = scratch_[at(worker)];
            const Size tile = static_cast<Size>(index % tiles), begin = plan_.outputs.begin(tile);
            const TileShape shape{plan_.outputs.nodes(tile), chunk.columns(), outputs, 1, 0};
            T* const z = state.outputs.data() + begin;
            multiply_rows(DirectWeights(request_, state.network, layer), 1.0, begin, shape.nodes, state.x,
                          chunk.columns(), false, z, outputs, s.weights.data(), *monitor_);
            add_bias(request_, layout, state.network, layer, begin, state.units.origin, shape, z, s.tile.bias.data());
        });
        if (stopped()) return;
        parallel_for(states_.size(), plan_.workers, [&](std::size_t g, int) { classify(states_[g], chunk); });
    }

    void classify(State& state, const Chunk& chunk) const {
        const Size outputs = request_.outputs(), inputs = chunk.counted();
        const auto column = [&](Size a) { return state.outputs.data() + a * outputs; };
        state.logits.resize(at(inputs * outputs));
        for (Size n = 0; n < inputs; ++n) {
            const Size a = chunk.first_column + n;
            for (Size k = 0; k < outputs; ++k)
                state.logits[at(n * outputs + k)] =
                    state.units.origin * static_cast<double>(column(0)[k]) +
                    (a == 0 ? 0.0 : state.units.difference * static_cast<double>(column(a)[k]));
        }
        NetworkRecord& record = *state.record;
        record.guess.resize(record.guess.size() + at(inputs));
        guess_classes(inputs, outputs, state.logits.data(), record.guess.data() + record.guess.size() - inputs);
        if (request_.loss != Loss::cross_entropy) return;
        state.labels = labels_of(request_, state.network,
                                 chunk.piece.labels != nullptr ? chunk.piece.labels + chunk.first : nullptr,
                                 taken_ + chunk.first, inputs);
        record.labels.insert(record.labels.end(), state.labels.begin(), state.labels.end());
    }

    // ---- Results ----

    void write_layer(const LayerRecord& record, Size index, ForwardResult& result) const {
        LayerSums sums;
        sums.units = record.units;
        const double origin = record.units.origin, spread2 = record.units.difference * record.units.difference;
        const double inputs = static_cast<double>(record.inputs);
        double length2 = 0.0;
        for (std::size_t i = 0; i < at(request_.width); ++i) {
            const MeanVariance& d = record.differences[i];
            const double mu = record.origin[i] + d.mean;
            sums.nodes.add(mu / origin, d.variance() / spread2);
            length2 += record.direction[i] * record.direction[i];
            if (!request_.per_node) continue;
            result.mu[at(index * request_.width) + i] = mu;
            result.var[at(index * request_.width) + i] = d.variance();
        }
        for (const double slope2 : record.slope2) sums.chi.add(slope2 / inputs);
        sums.q_sum = record.q_sum / (origin * origin);
        sums.q_count = inputs;
        const double directions = static_cast<double>(record.directions);
        sums.c_sum = length2 - directions;  // |their sum|^2, less those with themselves, counts every pair twice
        sums.c_count = directions * (directions - 1.0);
        write_estimates(request_, record.inputs, sums, record.digits_kept, index, result);
        if (request_.loss == Loss::none) return;
        std::copy(record.gradient.begin(), record.gradient.end(), result.gradient.begin() + index * result.inputs);
        GradientNodes nodes;
        nodes.add(request_.width, record.gradient2.data());
        result.gradient_error[at(index)] =
            in_units(nodes.error(static_cast<double>(request_.width)) / inputs, record.gradient_exponent);
    }

    void write_counts(const LayerRecord& record, std::int32_t network, std::int32_t layer,
                      ForwardResult& result) const {
        LayerHistograms histograms;
        for (const MeanVariance& d : record.differences) histograms.var.add(d.variance());
        for (std::size_t i = 0; i < record.origin.size(); ++i)
            histograms.mu.add(record.origin[i] + record.differences[i].mean);
        histograms.write(network, layer, result);
        for (const auto& [bin, count] : record.q_counts) result.q_counts.push_back({network, layer, bin, count});
        for (const auto& [bin, count] : record.c_counts) result.c_counts.push_back({network, layer, bin, count});
    }

    const ForwardRequest request_;
    const Nonlinearity nonlinearity_;
    const DirectPlan plan_;
    std::vector<DirectScratch<T>> scratch_;
    std::vector<DirectState<T>> states_;
    std::vector<double> origin_;  // of inputs that come in pieces: the features of the very first one
    Size taken_ = 0;              // inputs of earlier pieces
    Size first_ = 0;              // network of states_[0]
    Monitor* monitor_ = nullptr;
    ForwardResult* result_ = nullptr;
};

void require_two_inputs(Size inputs) {
    if (inputs < 2) throw std::invalid_argument("inputs must be at least two in all, got " + std::to_string(inputs));
}

template <class T>
class Pieces final : public DirectStream {
public:
    explicit Pieces(const ForwardRequest& request)
        : networks_(request.networks), engine_(request, any_number), records_(at(networks_)) {
        for (NetworkRecord& record : records_) engine_.prepare(record);
    }

    void take(const InputsView& piece, Monitor& monitor) override {
        if (piece.count == 0) return;
        engine_.begin(piece, monitor);
        for (Size first = 0; first < networks_ && !monitor.stopped(); first += engine_.group())
            engine_.see(first, std::min(engine_.group(), networks_ - first), piece, &records_[at(first)], nullptr);
        engine_.end(piece);
    }

    void finish(ForwardResult& result) override {
        require_two_inputs(engine_.taken());
        result.resize(engine_.request(), engine_.taken());
        engine_.write(0, networks_, records_.data(), result);
    }

private:
    const Size networks_;
    DirectEngine<T> engine_;
    std::vector<NetworkRecord> records_;
};

}  // namespace

template <class T>
void forward_direct(const ForwardRequest& request, const InputsView& inputs, ForwardResult& result, Monitor& monitor) {
    require_two_inputs(inputs.count);
    result.resize(request, inputs.count);
    DirectEngine<T> engine(request, inputs.count);
    engine.begin(inputs, monitor);
    for (Size first = 0; first < request.networks; first += engine.group()) {
        std::vector<NetworkRecord> records(at(std::min(engine.group(), request.networks - first)));
        const Size count = static_cast<Size>(records.size());
        for (NetworkRecord& record : records) engine.prepare(record);
        engine.see(first, count, inputs, records.data(), &result);
        if (monitor.stopped()) return;
        engine.write(first, count, records.data(), result);
    }
}

std::unique_ptr<DirectStream> make_direct_stream(const ForwardRequest& request, bool single) {
    if (single) return std::make_unique<Pieces<float>>(request);
    return std::make_unique<Pieces<double>>(request);
}

template void forward_direct<float>(const ForwardRequest&, const InputsView&, ForwardResult&, Monitor&);
template void forward_direct<double>(const ForwardRequest&, const InputsView&, ForwardResult&, Monitor&);

}  // namespace igb
