// Forward through the Gram matrix of the activations. Given x^(l-1) (nodes x inputs), the rows of W x^(l-1) are i.i.d.
// N(0, K) with K = sigma_w2 x^T x / fan_in, exactly, since each W is used once. So a layer is drawn as
//     y = Z L^T + b,   L L^T = K,   Z (width x inputs) standard normal,
// tile of nodes by tile of nodes: the width never has to fit in memory, and N^2 weights become N * inputs normals. For
// orthogonal W, Z is sqrt(order) times a frame drawn uniformly: normals made orthonormal, which takes their products
// first. What a residual network adds is the layer below, node by node; it is held.
//
// In the columns (first input, differences from it) the same L is found without cancellation; see activate.h.
//
// Time per node and input (100 inputs, float32, one AVX-512 core): normals 1.4 ns, L product 1.2 ns, the two
// symmetric products 1.7 ns each, activation with statistics about 1 ns.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/contrast.h"
#include "cpu/blas.h"
#include "cpu/gram.h"
#include "cpu/in_order.h"
#include "cpu/kernels.h"

namespace igb {

namespace {

// The lower triangle of A^T A, over all members of the pools of a tile.
template <class T>
void pair_products(const TileShape& shape, Size members, Size columns, const T* tile, T* out) {
    for (Size s = 0; s < members; ++s)
        blas::syrk_tn(at(columns), at(shape.nodes), T{1}, tile + s * shape.member, at(shape.ld), s > 0 ? T{1} : T{0},
                      out, at(columns));
}

// q_aa over the inputs and c over their pairs, from y^T y.
template <class T>
void sum_pairs(const std::vector<double>& products, Size inputs, Size width, LayerSums& sums,
               LayerHistograms* histograms) {
    const double ratio = sums.units.difference / sums.units.origin, n = static_cast<double>(width);
    const double unit2 = sums.units.origin * sums.units.origin, scale = ratio * ratio / n;
    std::vector<InputLength> lengths(at(inputs));
    const double origin = products[0] / n;
    double directions = 0.0;
    for (Size a = 0; a < inputs; ++a) {
        const double cross = a == 0 ? 0.0 : ratio * products[at(a)] / n;
        const double square = a == 0 ? 0.0 : scale * products[at(a * inputs + a)];
        const InputLength& length = lengths[at(a)] = input_length<T>(origin, cross, square);
        directions += length.norm == 0.0 ? 0.0 : 1.0;
        sums.q_sum += length.norm;
        if (histograms != nullptr) histograms->q.add(unit2 * length.norm);
    }
    sums.q_count = static_cast<double>(inputs);
    for (Size b = 0; b < inputs; ++b) {
        const InputLength& of_b = lengths[at(b)];
        double row = 0.0;
        for (Size a = b + 1; a < inputs; ++a) {
            const InputLength& of_a = lengths[at(a)];
            const double product = b == 0 ? 0.0 : scale * products[at(b * inputs + a)];
            row += along(origin, of_a, of_b, product);
            if (histograms != nullptr && of_a.inverse != 0.0 && of_b.inverse != 0.0)
                histograms->c.add(contrast(of_a, of_b, product));
        }
        sums.c_sum += row * of_b.inverse;
    }
    sums.c_count = 0.5 * directions * (directions - 1.0);
}

template <class T>
class GramForward {
public:
    explicit GramForward(GramRun<T>& run) : run_(run), request_(run.request), inputs_(run.inputs) {}

    void all() {
        const Tiling features{request_.features, run_.tile};
        const double passes = 1.0 + (run_.orthogonal ? 1.0 : 0.0) + (request_.layernorm ? 1.0 : 0.0) +
                              (run_.back ? (run_.held ? 2.0 : 1.0) : 0.0);
        const double layers = passes * static_cast<double>(request_.depth * run_.pools.tiles());
        run_.monitor.expect((layers + static_cast<double>(features.tiles())) * static_cast<double>(request_.networks));
        const Size group = choose_group(request_, inputs_, run_.pools.tiles(), run_.workers, state_bytes(run_));
        std::vector<GramState<T>> states(at(group));
        for (Size first = 0; first < request_.networks && !run_.monitor.stopped(); first += group) {
            states.resize(at(std::min(group, request_.networks - first)));
            take_inputs(first, states, features);
            for (Size layer = 1; layer <= request_.depth && !run_.monitor.stopped() && !run_.result.beyond_table;
                 ++layer)
                run_layer(first, states, layer);
            if (run_.monitor.stopped() || run_.result.beyond_table) return;
            parallel_for(states.size(), run_.workers,
                         [&](std::size_t g, int) { draw_head(states[g], first + static_cast<Size>(g)); });
            if (run_.back) backward_gram(run_, first, states);
        }
    }

    static double state_bytes(const GramRun<T>& run) {
        return state_bytes(run.request, run.inputs, run.tile, run.back, run.held, run.orthogonal);
    }

    static double state_bytes(const ForwardRequest& request, Size inputs, Size tile, bool back, bool held,
                              bool orthogonal) {
        const double square = static_cast<double>(inputs) * static_cast<double>(inputs);
        const double layers = back ? static_cast<double>(request.depth) : 1.0;
        const double each =
            square * (sizeof(double) * (1.0 + (back ? 1.0 : 0.0) + (orthogonal ? 2.0 : 0.0)) + sizeof(T));
        const double nodes = static_cast<double>(Tiling{request.pools(), tile}.tiles() * tile * request.members());
        const double kept =
            held ? nodes * static_cast<double>(inputs) * sizeof(T) * (layers + (back ? 2.0 : 0.0)) : 0.0;
        const double head = static_cast<double>(request.outputs() * inputs) * (3.0 * sizeof(T) + 5.0 * sizeof(double));
        const double bins = request.distributions ? 4.0 * 65536.0 * sizeof(std::int64_t) : 0.0;
        return layers * each + kept + head + bins + square * sizeof(double) * (back ? 16.0 : 5.0);
    }

private:
    void take_inputs(Size first, std::vector<GramState<T>>& states, const Tiling& features) {
        for (auto& state : states) prepare(state);
        const InputRange all{1, inputs_};
        for_tiles_in_order(
            states.size(), at(features.tiles()), run_.workers,
            [&](std::size_t g, std::size_t t, int worker) {
                if (run_.monitor.stopped()) return;
                const Size n = features.nodes(static_cast<Size>(t)), begin = features.begin(static_cast<Size>(t));
                GramScratch<T>& w = run_.scratch[at(worker)];
                const TileShape shape{n, inputs_, run_.tile};
                load_inputs(request_, run_.view, run_.network(first + static_cast<Size>(g)), all, 0, nullptr, begin, n,
                            w.s.tile.data(), run_.tile);
                wide_products(shape, 1, w.s.tile, w);
                run_.monitor.advance(1.0);
            },
            [&](std::size_t g, std::size_t, int worker) {
                add_lower(inputs_, run_.scratch[at(worker)].wide_products.data(), states[g].products.data());
            });
        for (auto& state : states) {
            state.sums.norms = {state.products[0], 0.0};
            for (Size a = 1; a < inputs_; ++a) state.sums.norms.difference += state.products[at(a * inputs_ + a)];
        }
    }

    void prepare(GramState<T>& state) const {
        const std::size_t layers = run_.back ? at(request_.depth + 1) : 1;
        state.layers.resize(layers);
        state.held.resize(run_.held ? (run_.back ? at(request_.depth) : 1) : 0);
        for (auto& y : state.held) y.resize(at(run_.pools.tiles() * run_.ld() * inputs_));
        state.products.assign(at(inputs_ * inputs_), 0.0);
        state.pairs.assign(at(inputs_ * inputs_), 0.0);
        state.column_sums.assign(at(inputs_), 0.0);
        state.units = {};
        state.fine = true;
        state.y_origin = state.y_difference = 0.0;
    }

    void run_layer(Size first, std::vector<GramState<T>>& states, Size layer) {
        parallel_for(states.size(), run_.workers,
                     [&](std::size_t g, int) { begin_layer(states[g], state_layer(states[g], layer), layer); });
        if (run_.orthogonal) make_frames(first, states, layer);
        draw_layer(first, states, layer);
        if (request_.layernorm) {
            for (auto& state : states) find_norm(state, state_layer(state, layer));
            activate_held(first, states, layer);
        }
        if (run_.monitor.stopped()) return;
        parallel_for(states.size(), run_.workers, [&](std::size_t g, int) {
            end_layer(states[g], state_layer(states[g], layer), first + static_cast<Size>(g), layer);
        });
        for (auto& state : states) {
            run_.result.beyond_table |= state.sums.norms.beyond_table;
            if (request_.distributions)
                state.histograms.write(first + (&state - states.data()), layer - 1, run_.result);
        }
    }

    GramLayer<T>& state_layer(GramState<T>& state, Size layer) const { return state.layers[run_.slot(layer)]; }

    // From x^(l-1) to the law of y^(l).
    void begin_layer(GramState<T>& state, GramLayer<T>& now, Size layer) const {
        now.units = state.units;
        set_factor(state, now, layer);
        // Of what size y will be, in the units of x^(l-1): the units of x^(l), which is not far from it.
        const double bias2 = request_.sigma_b2 / now.units.origin / now.units.origin;
        double origin = run_.gain(layer) * state.sums.norms.origin + bias2;
        double difference = run_.gain(layer) * state.sums.norms.difference / static_cast<double>(inputs_ - 1);
        if (request_.residual > 0.0 && layer > 1) {
            const double ratio_o = state.y_units.origin / now.units.origin;
            const double ratio_d = state.y_units.difference / now.units.difference;
            origin = request_.residual * origin + ratio_o * ratio_o * state.y_origin;
            difference = request_.residual * difference + ratio_d * ratio_d * state.y_difference;
        }
        now.out = units_near<T>(now.units, origin, difference);
        if (run_.back) {
            const Size e = run_.fresh_columns(layer);
            now.fresh.assign(at(inputs_ * e), 0.0);
            now.fresh_squares.assign(run_.fresh_is_orthogonal(layer) ? at(e * e) : 0, 0.0);
        }
        state.sums = {};
        state.sums.units = now.units;
        std::fill(state.products.begin(), state.products.end(), 0.0);
        std::fill(state.pairs.begin(), state.pairs.end(), 0.0);
        std::fill(state.column_sums.begin(), state.column_sums.end(), 0.0);
    }

    // Products in single precision know what an input has of its own to some 1e-7 of its variance. Where that is
    // little, those of the next layer are summed in double, as those of the inputs are: what remains is the rounding
    // of x itself.
    void set_factor(GramState<T>& state, GramLayer<T>& now, Size layer) const {
        constexpr double rounding = double{std::numeric_limits<T>::epsilon()};
        const double accuracy =
            state.fine ? std::max(rounding * rounding, std::numeric_limits<double>::epsilon()) : rounding;
        covariance_factor(inputs_, state.products.data(), run_.gain(layer), accuracy,
                          std::min(inputs_, request_.fan_in(layer)), now.factor);
        state.fine = rounding > std::numeric_limits<double>::epsilon() && now.factor.smallest < 1e-3;
        now.draw.resize(now.factor.l.size());
        for (std::size_t i = 0; i < now.draw.size(); ++i) now.draw[i] = static_cast<T>(now.factor.l[i]);
    }

    // Products of the normals G over all rows of an orthogonal matrix, and from them the frame: sqrt(order) L C^-1.
    void make_frames(Size first, std::vector<GramState<T>>& states, Size layer) {
        const Size extra = run_.order(layer) - request_.width;  // rows of G that no node reads
        const Tiling beyond{extra, run_.tile};
        const Size tiles = run_.pools.tiles();
        std::vector<std::vector<double>> products(states.size(), std::vector<double>(at(inputs_ * inputs_), 0.0));
        for_tiles_in_order(
            states.size(), at(tiles + beyond.tiles()), run_.workers,
            [&](std::size_t g, std::size_t index, int worker) {
                if (run_.monitor.stopped()) return;
                GramScratch<T>& w = run_.scratch[at(worker)];
                const Size t = static_cast<Size>(index);
                const std::uint32_t network = run_.network(first + static_cast<Size>(g));
                if (t < tiles) {
                    run_.fill(network, layer, Stream::gram, t, inputs_, run_.layout.members, w.normals.data());
                    wide_products(run_.shape(t), run_.layout.members, w.normals, w);
                    run_.monitor.advance(1.0);
                } else {
                    const Size begin = run_.layout.members * run_.layout.stride + beyond.begin(t - tiles);
                    const TileShape shape{beyond.nodes(t - tiles), inputs_, run_.ld()};
                    const StreamId id = stream_of(request_, network, layer, Stream::gram);
                    for (Size a = 0; a < inputs_; ++a)
                        fill_normals(id, static_cast<std::uint32_t>(a), begin, shape.nodes,
                                     w.normals.data() + a * shape.ld);
                    wide_products(shape, 1, w.normals, w);
                }
            },
            [&](std::size_t g, std::size_t, int worker) {
                add_lower(inputs_, run_.scratch[at(worker)].wide_products.data(), products[g].data());
            });
        parallel_for(states.size(), run_.workers, [&](std::size_t g, int) {
            set_frame(state_layer(states[g], layer), products[g], static_cast<double>(run_.order(layer)));
        });
    }

    // Products in double, where directions that are small count: of inputs that are nearly the same, and of the normals
    // of orthogonal weights.
    void wide_products(const TileShape& shape, Size members, const AlignedVector<T>& tile, GramScratch<T>& w) const {
        w.wide.assign(tile.begin(), tile.begin() + shape.ld * inputs_);
        pair_products(shape, members, inputs_, w.wide.data(), w.wide_products.data());
    }

    void set_frame(GramLayer<T>& now, const std::vector<double>& products, double order) const {
        const Size r = now.factor.rank();
        const auto column = [&](Size k) { return now.factor.columns[at(k)]; };
        std::vector<double> kept(at(r * r), 0.0), l(at(r * inputs_));
        for (Size b = 0; b < r; ++b)
            for (Size a = b; a < r; ++a) kept[at(b * r + a)] = products[at(column(b) * inputs_ + column(a))];
        covariance_factor(r, kept.data(), 1.0, double{std::numeric_limits<double>::epsilon()}, now.frame);
        // draw^T = sqrt(order) C^-T L^T.
        for (Size a = 0; a < inputs_; ++a)
            for (Size k = 0; k < r; ++k)
                l[at(a * r + k)] = std::sqrt(order) * now.factor.l[at(column(k) * inputs_ + a)];
        blas::trsm_left_lower(blas::Trans::yes, at(r), at(inputs_), now.frame.l.data(), at(r), l.data(), at(r));
        // Normals that are dependent to the last digits, of as many inputs as nodes: no frame, and no number, comes of
        // them.
        const T elsewhere = now.frame.triangular ? T{0} : std::numeric_limits<T>::quiet_NaN();
        std::fill(now.draw.begin(), now.draw.end(), elsewhere);
        for (Size a = 0; a < inputs_; ++a)
            for (Size k = 0; k < r; ++k) now.draw[at(column(k) * inputs_ + a)] = static_cast<T>(l[at(a * r + k)]);
    }

    void draw_layer(Size first, std::vector<GramState<T>>& states, Size layer) {
        for_tiles_in_order(
            states.size(), at(run_.pools.tiles()), run_.workers,
            [&](std::size_t g, std::size_t t, int worker) {
                if (run_.monitor.stopped()) return;
                draw_tile(states[g], first + static_cast<Size>(g), layer, static_cast<Size>(t),
                          run_.scratch[at(worker)]);
                run_.monitor.advance(1.0);
            },
            [&](std::size_t g, std::size_t t, int worker) {
                if (run_.monitor.stopped()) return;
                GramScratch<T>& w = run_.scratch[at(worker)];
                add_lower(inputs_, w.pairs.data(), states[g].pairs.data());
                if (request_.layernorm) {
                    for (Size a = 0; a < inputs_; ++a) states[g].column_sums[at(a)] += w.column_sums[at(a)];
                } else {
                    commit_activations(states[g], first + static_cast<Size>(g), layer, static_cast<Size>(t), w);
                }
            });
    }

    void draw_tile(GramState<T>& state, Size row, Size layer, Size t, GramScratch<T>& w) {
        const GramLayer<T>& now = state_layer(state, layer);
        const TileShape shape = run_.shape(t);
        run_.draw(now, row, layer, t, false, w);
        T* const y = w.s.tile.data();
        if (request_.residual > 0.0 && layer > 1) add_layer_below(state, now, layer, t, y);
        pair_products(shape, shape.members, inputs_, y, w.pairs.data());
        if (run_.held)
            std::memcpy(run_.held_tile(state.held[run_.slot(layer)], t), y, at(run_.ld() * inputs_) * sizeof(T));
        if (request_.layernorm) {
            std::fill(w.column_sums.begin(), w.column_sums.end(), 0.0);
            for (Size s = 0; s < shape.members; ++s)
                add_column_sums(shape.nodes, inputs_, y + s * shape.member, shape.ld, w.column_sums.data());
        } else {
            activate(state.fine, now, row, layer, t, w);
        }
    }

    // y^(l+1) = y^(l) + sqrt(a) (W x^(l) + b), in the units of x^(l).
    void add_layer_below(GramState<T>& state, const GramLayer<T>& now, Size layer, Size t, T* y) const {
        const T* const below = run_.held_tile(state.held[run_.slot(layer - 1)], t);
        const T root = static_cast<T>(std::sqrt(request_.residual));
        const T to_origin = static_cast<T>(state.y_units.origin / now.units.origin);
        const T to_difference = static_cast<T>(state.y_units.difference / now.units.difference);
        for (Size a = 0; a < inputs_; ++a) {
            const T scale = a == 0 ? to_origin : to_difference;
            for (Size i = a * run_.ld(); i < (a + 1) * run_.ld(); ++i) y[i] = scale * below[i] + root * y[i];
        }
    }

    // x of a tile whose y is in s.tile, and what the next layer and the way back want to know of it.
    void activate(bool fine, const GramLayer<T>& now, Size row, Size layer, Size t, GramScratch<T>& w) {
        const TileShape shape = run_.shape(t);
        apply_nonlinearity(run_.nonlinearity, shape, request_.layernorm ? &now.norm : nullptr, now.units, now.out,
                           false, w.s);
        if (fine) {
            wide_products(shape, 1, w.s.tile, w);
        } else {
            pair_products(shape, 1, inputs_, w.s.tile.data(), w.products.data());
        }
        if (!run_.back) return;
        const Size e = run_.fresh_columns(layer);
        const bool all_rows = run_.fresh_is_orthogonal(layer);
        run_.fill(run_.network(row), layer, Stream::fresh, t, e, all_rows ? shape.members : 1, w.normals.data());
        blas::gemm(blas::Trans::yes, blas::Trans::no, at(inputs_), at(e), at(shape.nodes), T{1}, w.s.tile.data(),
                   at(shape.ld), w.normals.data(), at(shape.ld), T{0}, w.fresh.data(), at(inputs_));
        if (all_rows) pair_products(shape, shape.members, e, w.normals.data(), w.fresh_squares.data());
    }

    void commit_activations(GramState<T>& state, Size row, Size layer, Size t, GramScratch<T>& w) {
        GramLayer<T>& now = state_layer(state, layer);
        const Size node = (row * request_.depth + layer - 1) * request_.width;
        sum_tile_nodes(run_.layout, run_.pools.begin(t), run_.shape(t), now.units, w.s,
                       request_.per_node ? run_.result.mu.data() + node : nullptr,
                       request_.per_node ? run_.result.var.data() + node : nullptr,
                       request_.distributions ? &state.histograms : nullptr);
        if (state.fine) {
            add_lower(inputs_, w.wide_products.data(), state.products.data());
        } else {
            add_lower(inputs_, w.products.data(), state.products.data());
        }
        state.sums.nodes.merge(w.s.nodes);
        state.sums.chi.merge(w.s.chi);
        state.sums.norms.origin += w.s.norms.origin;
        state.sums.norms.difference += w.s.norms.difference;
        state.sums.norms.beyond_table |= w.s.norms.beyond_table;
        if (!run_.back) return;
        add_all(w.fresh, now.fresh);
        if (run_.fresh_is_orthogonal(layer))
            add_lower(run_.fresh_columns(layer), w.fresh_squares.data(), now.fresh_squares.data());
    }

    void find_norm(GramState<T>& state, GramLayer<T>& now) const {
        std::vector<double> squares(at(inputs_));
        for (Size a = 0; a < inputs_; ++a) squares[at(a)] = state.pairs[at(a * inputs_ + a)];
        now.norm = layer_norm<T>(request_.width, now.units, state.column_sums, state.pairs.data(), squares.data());
        now.out = now.norm.units;
    }

    void activate_held(Size first, std::vector<GramState<T>>& states, Size layer) {
        for_tiles_in_order(
            states.size(), at(run_.pools.tiles()), run_.workers,
            [&](std::size_t g, std::size_t index, int worker) {
                if (run_.monitor.stopped()) return;
                GramScratch<T>& w = run_.scratch[at(worker)];
                const Size t = static_cast<Size>(index);
                std::memcpy(w.s.tile.data(), run_.held_tile(states[g].held[run_.slot(layer)], t),
                            at(run_.ld() * inputs_) * sizeof(T));
                activate(states[g].fine, state_layer(states[g], layer), first + static_cast<Size>(g), layer, t, w);
                run_.monitor.advance(1.0);
            },
            [&](std::size_t g, std::size_t t, int worker) {
                if (run_.monitor.stopped()) return;
                commit_activations(states[g], first + static_cast<Size>(g), layer, static_cast<Size>(t),
                                   run_.scratch[at(worker)]);
            });
    }

    void end_layer(GramState<T>& state, const GramLayer<T>& now, Size row, Size layer) const {
        sum_pairs<T>(state.pairs, inputs_, request_.width, state.sums,
                     request_.distributions ? &state.histograms : nullptr);
        write_estimates(request_, inputs_, state.sums, keeps_digits<T>(now.units), row * request_.depth + layer - 1,
                        run_.result);
        if (request_.residual > 0.0) {
            const double n = static_cast<double>(request_.width), others = static_cast<double>(inputs_ - 1);
            state.y_units = now.units;
            state.y_origin = state.pairs[0] / n;
            state.y_difference = 0.0;
            for (Size a = 1; a < inputs_; ++a) state.y_difference += state.pairs[at(a * inputs_ + a)] / n / others;
        }
        state.units = now.out;
    }

    // One more layer of few nodes: the outputs.
    void draw_head(GramState<T>& state, Size row) const {
        const Size layer = request_.depth + 1, outputs = request_.outputs();
        GramLayer<T>& now = state_layer(state, layer);
        now.units = state.units;
        set_factor(state, now, layer);
        AlignedVector<T> y(at(outputs * inputs_)), bias(at(outputs));
        state.head_normals.resize(y.size());
        const StreamId id = stream_of(request_, run_.network(row), layer, Stream::gram);
        for (Size a = 0; a < inputs_; ++a)
            fill_normals(id, static_cast<std::uint32_t>(a), 0, outputs, state.head_normals.data() + a * outputs);
        blas::gemm(blas::Trans::no, blas::Trans::yes, at(outputs), at(inputs_), at(inputs_), T{1},
                   state.head_normals.data(), at(outputs), now.draw.data(), at(inputs_), T{0}, y.data(), at(outputs));
        add_bias(request_, NodeLayout{}, run_.network(row), layer, 0, now.units.origin, TileShape{outputs, 1, outputs},
                 y.data(), bias.data());
        state.logits.resize(y.size());
        for (Size a = 0; a < inputs_; ++a) {
            for (Size k = 0; k < outputs; ++k) {
                const double change = a == 0 ? 0.0 : now.units.difference * static_cast<double>(y[at(a * outputs + k)]);
                state.logits[at(a * outputs + k)] = now.units.origin * static_cast<double>(y[at(k)]) + change;
            }
        }
        guess_classes(inputs_, outputs, state.logits.data(), run_.result.guess.data() + row * inputs_);
        if (request_.loss != Loss::cross_entropy) return;
        state.labels = labels_of(request_, run_.network(row), run_.view.labels, 0, inputs_);
        std::copy(state.labels.begin(), state.labels.end(), run_.result.labels.data() + row * inputs_);
    }

    GramRun<T>& run_;
    const ForwardRequest& request_;
    const Size inputs_;
};

bool holds_layers(const ForwardRequest& request) { return request.residual > 0.0 || request.layernorm; }

// A tile with room for everything that the way back needs stays in the second-level cache.
Size tile_of(const ForwardRequest& request, Size inputs, std::size_t element_size) {
    return choose_tile(request, request.loss == Loss::none ? inputs : inputs + std::max(inputs, request.outputs()),
                       element_size);
}

template <class T>
double scratch_bytes(const ForwardRequest& request, Size inputs, Size tile) {
    const bool back = request.loss != Loss::none;
    const double n = static_cast<double>(inputs);
    const double columns = back ? std::max(n, static_cast<double>(request.outputs())) : n;
    const double rows = static_cast<double>(tile * request.members());
    const double wide = (rows + n) * n * sizeof(double);
    return (rows * columns * (back ? 6.0 : 2.0) + n * columns * (back ? 5.0 : 2.0)) * sizeof(T) + wide;
}

}  // namespace

template <class T>
GramRun<T>::GramRun(const ForwardRequest& r, const InputsView& v, ForwardResult& into, Monitor& m)
    : request(r), view(v), result(into), monitor(m), inputs(v.count), tile(tile_of(r, v.count, sizeof(T))), layout(r),
      pools{r.pools(), tile}, nonlinearity(r), back(r.loss != Loss::none), held(holds_layers(r)),
      orthogonal(r.weights == WeightLaw::orthogonal), workers(max_workers()), scratch(at(workers)) {
    const Size columns = std::max(inputs, back ? request.outputs() : Size{0});
    const std::size_t square = at(columns * inputs);
    for (GramScratch<T>& w : scratch) {
        w.s = TileScratch<T>(request, nonlinearity, tile, inputs, back);
        w.normals.resize(at(ld() * columns));
        w.column_sums.resize(at(inputs));
        w.wide_products.resize(at(inputs * inputs));
        for (AlignedVector<T>* matrix : {&w.pairs, &w.products}) matrix->resize(at(inputs * inputs));
        if (!back) continue;
        w.s.tile.resize(at(ld() * (inputs + columns)));
        w.back.resize(at(ld() * inputs));
        for (AlignedVector<T>* matrix : {&w.fresh, &w.fresh_squares, &w.squares, &w.from_above}) matrix->resize(square);
        for (std::vector<double>* sums : {&w.sum, &w.sum_z}) sums->resize(at(inputs));
        w.node_squares.resize(at(ld()));
    }
}

template <class T>
void GramRun<T>::fill(std::uint32_t network_, Size layer, Stream stream, Size t, Size columns, Size members,
                      T* to) const {
    const StreamId id = stream_of(request, network_, layer, stream);
    const Size begin = pools.begin(t), n = pools.nodes(t);
    for (Size s = 0; s < members; ++s)
        for (Size a = 0; a < columns; ++a)
            fill_normals(id, static_cast<std::uint32_t>(a), layout.column(s, begin), n, to + s * tile + a * ld());
}

template <class T>
void GramRun<T>::draw(const GramLayer<T>& now, Size row, Size layer, Size t, bool keep_normals,
                      GramScratch<T>& w) const {
    const TileShape s = shape(t);
    T* const y = w.s.tile.data();
    const bool in_place = now.factor.triangular && !keep_normals;
    T* const z = in_place ? y : w.normals.data();
    fill(network(row), layer, Stream::gram, t, inputs, s.members, z);
    if (now.factor.triangular && keep_normals) std::memcpy(y, z, at(ld() * inputs) * sizeof(T));
    for (Size k = 0; k < s.members; ++k) {
        const Size from = k * s.member;
        if (now.factor.triangular) {
            blas::trmm_right_lower_transposed(at(s.nodes), at(inputs), T{1}, now.draw.data(), at(inputs), y + from,
                                              at(s.ld));
        } else {
            blas::gemm(blas::Trans::no, blas::Trans::yes, at(s.nodes), at(inputs), at(inputs), T{1}, z + from, at(s.ld),
                       now.draw.data(), at(inputs), T{0}, y + from, at(s.ld));
        }
    }
    add_bias(request, layout, network(row), layer, pools.begin(t), now.units.origin, s, y, w.s.bias.data());
}

template <class T>
void forward_gram(const ForwardRequest& request, const InputsView& view, ForwardResult& result, Monitor& monitor) {
    result.resize(request, view.count);
    GramRun<T> run(request, view, result, monitor);
    GramForward<T>(run).all();
}

double forward_gram_memory(const ForwardRequest& request, std::int64_t inputs, std::size_t element_size) {
    const Size tile = tile_of(request, inputs, element_size);
    const bool single = element_size == sizeof(float), back = request.loss != Loss::none;
    const bool held = holds_layers(request), orthogonal = request.weights == WeightLaw::orthogonal;
    const double state = single ? GramForward<float>::state_bytes(request, inputs, tile, back, held, orthogonal)
                                : GramForward<double>::state_bytes(request, inputs, tile, back, held, orthogonal);
    const int workers = max_workers();
    const Size group = choose_group(request, inputs, Tiling{request.pools(), tile}.tiles(), workers, state);
    const double scratch =
        single ? scratch_bytes<float>(request, inputs, tile) : scratch_bytes<double>(request, inputs, tile);
    return static_cast<double>(group) * state + workers * scratch + result_memory(request, inputs);
}

template struct GramRun<float>;
template struct GramRun<double>;
template void forward_gram<float>(const ForwardRequest&, const InputsView&, ForwardResult&, Monitor&);
template void forward_gram<double>(const ForwardRequest&, const InputsView&, ForwardResult&, Monitor&);

}  // namespace igb
