// Backward by the exact conditional law of the weights. Of W^(l+1) the forward pass has told W x, nothing else: with
// s^2 = sigma_w2 / fan_in, s^2 x^T x = L L^T and W x = Z L^T (x the activations of layer l, Z the normals of the next),
//     Q = s x L^-T  (orthonormal columns),   W = s Z Q^T + W' (1 - Q Q^T),   W' a fresh copy of W,
// so with delta = dLoss/dy^(l+1) (nodes x inputs, each column the gradient of that input's own loss)
//     W^T delta = s [Q (Z^T delta) + (1 - Q Q^T) E K] = x by_x + E by_fresh,   E standard normal, rows independent,
// where K^T K = delta^T delta. For orthogonal weights Z is sqrt(order) times a frame V, and W' takes what of delta is
// orthogonal to V to a frame orthogonal to Q: K = sqrt(order) C_E^-T C_S^T with C_S C_S^T = delta^T (1 - V V^T) delta
// and C_E C_E^T = E^T (1 - Q Q^T) E. Q^T E needs a sum over all nodes: the forward pass has taken it.
//
// x, its slopes, Z and E of a tile are made again from their counters, so that memory does not grow with the width.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "cpu/blas.h"
#include "cpu/gram.h"
#include "cpu/in_order.h"
#include "cpu/kernels.h"

namespace igb {

namespace {

using Matrix = std::vector<double>;  // column-major

// C (m x n) = A B or A^T B, all dense.
Matrix product(blas::Trans trans, Size m, Size n, Size k, const Matrix& a, const Matrix& b) {
    Matrix c(at(m * n), 0.0);
    const Size lda = trans == blas::Trans::no ? m : k;
    if (k > 0)
        blas::gemm(trans, blas::Trans::no, at(m), at(n), at(k), 1.0, a.data(), at(lda), b.data(), at(k), 0.0, c.data(),
                   at(m));
    return c;
}

Matrix rows_of(const Matrix& a, Size rows, Size columns, const std::vector<Size>& which) {
    const Size r = static_cast<Size>(which.size());
    Matrix kept(at(r * columns));
    for (Size j = 0; j < columns; ++j)
        for (Size i = 0; i < r; ++i) kept[at(j * r + i)] = a[at(j * rows + which[at(i)])];
    return kept;
}

// K with K^T K = the matrix whose lower triangle is given, its rows those of the factor's columns that are not zero.
Matrix root_of(Size n, const Matrix& squares, double accuracy, Size largest_rank) {
    CovarianceFactor factor;
    covariance_factor(n, squares.data(), 1.0, accuracy, largest_rank, factor);
    const Size r = factor.rank();
    Matrix k(at(r * n));
    for (Size a = 0; a < n; ++a)
        for (Size i = 0; i < r; ++i) k[at(a * r + i)] = factor.l[at(factor.columns[at(i)] * n + a)];
    return k;
}

Matrix leading_rows(const Matrix& a, Size rows, Size which) {
    std::vector<Size> first(at(which));
    for (Size i = 0; i < which; ++i) first[at(i)] = i;
    return rows_of(a, rows, rows > 0 ? static_cast<Size>(a.size()) / rows : 0, first);
}

// The Cholesky factor of as many leading rows and columns of a matrix of order `order` as are safely positive definite,
// but no more than `rows`.
CovarianceFactor leading_factor(Size rows, Size order, const Matrix& lower, double accuracy) {
    CovarianceFactor factor;
    for (Size n = rows; n > 0; n = std::min(n - 1, factor.rank())) {
        Matrix kept(at(n * n), 0.0);
        for (Size b = 0; b < n; ++b)
            for (Size a = b; a < n; ++a) kept[at(b * n + a)] = lower[at(b * order + a)];
        covariance_factor(n, kept.data(), 1.0, accuracy, factor);
        if (factor.triangular) return factor;
    }
    return {};
}

template <class T>
class GramBackward {
public:
    GramBackward(GramRun<T>& run, Size first, std::vector<GramState<T>>& states)
        : run_(run), request_(run.request), inputs_(run.inputs), first_(first), states_(states) {}

    void all() {
        parallel_for(states_.size(), run_.workers, [&](std::size_t g, int) { start(states_[g]); });
        for (Size layer = request_.depth; layer >= 1 && !run_.monitor.stopped(); --layer) {
            parallel_for(states_.size(), run_.workers, [&](std::size_t g, int) { begin_layer(states_[g], layer); });
            if (run_.held) {
                gather(layer);
                spread(layer);
            } else {
                go_through(layer);
            }
            if (run_.monitor.stopped()) return;
            parallel_for(states_.size(), run_.workers,
                         [&](std::size_t g, int) { end_layer(states_[g], first_ + static_cast<Size>(g), layer); });
        }
    }

private:
    static constexpr double accuracy = double{std::numeric_limits<T>::epsilon()};

    // From the loss to Z^T delta of the head. Its weights are Gaussian, and few: K is delta itself.
    void start(GramState<T>& state) const {
        const Size outputs = request_.outputs();
        AlignedVector<T> delta(at(outputs * inputs_));
        state.gradient_units = loss_gradient(request_, inputs_, state.logits.data(), state.labels.data(), delta.data());
        const Matrix z(state.head_normals.begin(), state.head_normals.end());
        state.fresh_part.assign(delta.begin(), delta.end());
        state.from_above = product(blas::Trans::yes, inputs_, inputs_, outputs, z, state.fresh_part);
        state.carry.assign(at(inputs_), T{1});
        if (!run_.held) return;
        state.delta.assign(at(run_.pools.tiles() * run_.ld() * inputs_), T{0});
        state.direct.resize(state.delta.size());
    }

    // What W^T delta is made of, from Z^T delta and K of the layer above.
    void begin_layer(GramState<T>& state, Size layer) const {
        const GramLayer<T>& now = state.layers[at(layer - 1)];
        const CovarianceFactor& factor = state.layers[at(layer)].factor;
        const Size e = run_.fresh_columns(layer), r = factor.rank();
        const double s = std::sqrt(run_.gain(layer + 1));
        const bool branch = request_.residual > 0.0 && layer < request_.depth;
        const double root = branch ? std::sqrt(request_.residual) : 1.0;

        std::vector<Size> pivots;
        for (const Size k : factor.columns) pivots.push_back(factor.pivots[at(k)]);
        Matrix l(at(r * r), 0.0);
        for (Size j = 0; j < r; ++j)
            for (Size i = j; i < r; ++i)
                l[at(j * r + i)] = factor.l[at(factor.columns[at(j)] * inputs_ + pivots[at(i)])];

        Matrix shadow = rows_of(now.fresh, inputs_, e, pivots);  // Q^T E = s L^-1 x^T E
        for (double& value : shadow) value *= s;
        blas::trsm_left_lower(blas::Trans::no, at(r), at(e), l.data(), at(r), shadow.data(), at(r));
        if (run_.fresh_is_orthogonal(layer)) {
            normals_to_frame(state, layer);
            set_orthogonal_part(state, layer, shadow, r);
        }

        // Z^T delta - Q^T E K, then s L^-T times it.
        Matrix known = rows_of(state.from_above, inputs_, inputs_, factor.columns);
        const Matrix twice = product(blas::Trans::no, r, inputs_, e, shadow, state.fresh_part);
        for (std::size_t i = 0; i < known.size(); ++i) known[i] -= twice[i];
        blas::trsm_left_lower(blas::Trans::yes, at(r), at(inputs_), l.data(), at(r), known.data(), at(r));
        state.by_x.assign(at(inputs_ * inputs_), T{0});
        for (Size a = 0; a < inputs_; ++a)
            for (Size k = 0; k < r; ++k)
                state.by_x[at(a * inputs_ + pivots[at(k)])] = static_cast<T>(root * s * s * known[at(a * r + k)]);
        state.by_fresh.resize(at(e * inputs_));
        for (std::size_t i = 0; i < state.by_fresh.size(); ++i)
            state.by_fresh[i] = static_cast<T>(root * s * state.fresh_part[i]);

        state.from_above.assign(at(inputs_ * inputs_), 0.0);
        state.squares.assign(at(inputs_ * inputs_), 0.0);
        state.sum.assign(at(inputs_), 0.0);
        state.sum_z.assign(at(inputs_), 0.0);
        state.nodes = {};
        input_weights(state.gradient_units, state.weights);
    }

    // Z^T delta = sqrt(order) C^-1 G^T delta, in the rows of L's columns.
    void normals_to_frame(GramState<T>& state, Size layer) const {
        const GramLayer<T>& above = state.layers[at(layer)];
        const std::vector<Size>& columns = above.factor.columns;
        const Size r = above.factor.rank();
        Matrix kept = rows_of(state.from_above, inputs_, inputs_, columns);
        blas::trsm_left_lower(blas::Trans::no, at(r), at(inputs_), above.frame.l.data(), at(r), kept.data(), at(r));
        const double root = std::sqrt(static_cast<double>(run_.order(layer + 1)));
        for (Size a = 0; a < inputs_; ++a)
            for (Size k = 0; k < r; ++k)
                state.from_above[at(a * inputs_ + columns[at(k)])] = root * kept[at(a * r + k)];
    }

    // K for orthogonal weights above, in as many rows as what is left of delta has directions; the other rows are zero.
    void set_orthogonal_part(GramState<T>& state, Size layer, const Matrix& shadow, Size r) const {
        const Size e = inputs_;
        const double order = static_cast<double>(run_.order(layer + 1));
        const CovarianceFactor& factor = state.layers[at(layer)].factor;
        const Matrix on_frame = rows_of(state.from_above, inputs_, inputs_, factor.columns);  // sqrt(order) V^T delta
        const Matrix seen = product(blas::Trans::yes, inputs_, inputs_, r, on_frame, on_frame);
        Matrix unseen = state.squares;
        for (std::size_t i = 0; i < unseen.size(); ++i) unseen[i] -= seen[i] / order;
        for (Size a = 0; a < inputs_; ++a) {
            double& square = unseen[at(a * inputs_ + a)];
            square = std::max(square, 0.0);
        }
        const Size room = std::min(inputs_, run_.order(layer + 1) - r);  // directions that neither frame has
        const Matrix k = root_of(inputs_, unseen, accuracy, room);
        const Size rows = static_cast<Size>(k.size()) / inputs_;
        const Matrix shadows = product(blas::Trans::yes, e, e, r, shadow, shadow);
        Matrix outside = state.layers[at(layer - 1)].fresh_squares;
        for (std::size_t i = 0; i < outside.size(); ++i) outside[i] -= shadows[i];
        const CovarianceFactor c = leading_factor(rows, e, outside, accuracy);
        const Size directions = c.rank();
        state.fresh_part.assign(at(e * inputs_), 0.0);
        if (directions == 0) return;
        Matrix part = leading_rows(k, rows, directions);
        for (double& value : part) value *= std::sqrt(order);
        blas::trsm_left_lower(blas::Trans::yes, at(directions), at(inputs_), c.l.data(), at(directions), part.data(),
                              at(directions));
        for (Size a = 0; a < inputs_; ++a)
            for (Size i = 0; i < directions; ++i) state.fresh_part[at(a * e + i)] = part[at(a * directions + i)];
    }

    // delta of a tile, in w.s.slopes: W^T delta by the slopes. The normals Z of the tile stay in w.normals if they are
    // drawn.
    void pull_back(const GramState<T>& state, Size row, Size layer, Size t, GramScratch<T>& w) const {
        const TileShape shape = run_.shape(t);
        const GramLayer<T>& now = state.layers[at(layer - 1)];
        const Size e = run_.fresh_columns(layer);
        T* const x = w.s.tile.data();
        apply_nonlinearity(run_.nonlinearity, shape, request_.layernorm ? &now.norm : nullptr, now.units, now.out, true,
                           w.s);
        run_.fill(run_.network(row), layer, Stream::fresh, t, e, 1, x + run_.ld() * inputs_);
        using blas::Trans;
        blas::gemm(Trans::no, Trans::no, at(shape.nodes), at(inputs_), at(inputs_), T{1}, x, at(shape.ld),
                   state.by_x.data(), at(inputs_), T{0}, w.back.data(), at(shape.ld));
        blas::gemm(Trans::no, Trans::no, at(shape.nodes), at(inputs_), at(e), T{1}, x + run_.ld() * inputs_,
                   at(shape.ld), state.by_fresh.data(), at(e), T{1}, w.back.data(), at(shape.ld));
        T* const delta = w.s.slopes.data();
        for (Size s = 0; s < shape.members; ++s) {
            const Size from = s * shape.member;
            multiply_tiles(shape.nodes, inputs_, delta + from, shape.ld, w.back.data(), shape.ld, delta + from,
                           shape.ld, state.weights.data(), w.node_squares.data() + from);
        }
    }

    // delta^T delta, Z^T delta and the nodes' squared gradients of a tile.
    void sum_up(const TileShape& shape, bool for_layer_below, const T* delta, GramScratch<T>& w) const {
        w.nodes = {};
        for (Size s = 0; s < shape.members; ++s) {
            const Size from = s * shape.member;
            const T keep = s > 0 ? T{1} : T{0};
            w.nodes.add(shape.nodes, w.node_squares.data() + from);
            blas::syrk_tn(at(inputs_), at(shape.nodes), T{1}, delta + from, at(shape.ld), keep, w.squares.data(),
                          at(inputs_));
            if (for_layer_below)
                blas::gemm(blas::Trans::yes, blas::Trans::no, at(inputs_), at(inputs_), at(shape.nodes), T{1},
                           w.normals.data() + from, at(shape.ld), delta + from, at(shape.ld), keep, w.from_above.data(),
                           at(inputs_));
        }
    }

    void commit(GramState<T>& state, bool for_layer_below, const GramScratch<T>& w) const {
        add_lower(inputs_, w.squares.data(), state.squares.data());
        if (for_layer_below) add_all(w.from_above, state.from_above);
        state.nodes.merge(w.nodes);
    }

    template <class Work, class Commit>
    void for_tiles(Work&& work, Commit&& commit_tile) {
        for_tiles_in_order(
            states_.size(), at(run_.pools.tiles()), run_.workers,
            [&](std::size_t g, std::size_t t, int worker) {
                if (run_.monitor.stopped()) return;
                work(states_[g], first_ + static_cast<Size>(g), static_cast<Size>(t), run_.scratch[at(worker)]);
            },
            [&](std::size_t g, std::size_t, int worker) {
                if (!run_.monitor.stopped()) commit_tile(states_[g], run_.scratch[at(worker)]);
            });
    }

    // A plain layer: every tile by itself, drawn again.
    void go_through(Size layer) {
        for_tiles(
            [&](GramState<T>& state, Size row, Size t, GramScratch<T>& w) {
                run_.draw(state.layers[at(layer - 1)], row, layer, t, true, w);
                pull_back(state, row, layer, t, w);
                sum_up(run_.shape(t), layer > 1, w.s.slopes.data(), w);
                run_.monitor.advance(1.0);
            },
            [&](GramState<T>& state, const GramScratch<T>& w) { commit(state, layer > 1, w); });
    }

    // A layer with a norm or a skip connection, first half: what goes back through phi, and its sums over the nodes.
    void gather(Size layer) {
        for_tiles(
            [&](GramState<T>& state, Size row, Size t, GramScratch<T>& w) {
                load_held(state, layer, t, w);
                pull_back(state, row, layer, t, w);
                std::memcpy(run_.held_tile(state.direct, t), w.s.slopes.data(), at(run_.ld() * inputs_) * sizeof(T));
                if (request_.layernorm) sum_with_z(state, layer, t, w);
                run_.monitor.advance(1.0);
            },
            [&](GramState<T>& state, const GramScratch<T>& w) {
                if (!request_.layernorm) return;
                for (Size a = 0; a < inputs_; ++a) {
                    state.sum[at(a)] += w.sum[at(a)];
                    state.sum_z[at(a)] += w.sum_z[at(a)];
                }
            });
    }

    void load_held(const GramState<T>& state, Size layer, Size t, GramScratch<T>& w) const {
        const AlignedVector<T>& y = state.held[at(layer - 1)];
        std::memcpy(w.s.tile.data(), y.data() + t * run_.ld() * inputs_, at(run_.ld() * inputs_) * sizeof(T));
    }

    // z of every input, by itself rather than as differences, in the tile.
    void load_normed(const GramState<T>& state, Size layer, Size t, GramScratch<T>& w) const {
        const TileShape shape = run_.shape(t);
        const LayerNormMaps& norm = state.layers[at(layer - 1)].norm;
        load_held(state, layer, t, w);
        T* const z = w.s.tile.data();
        for (Size s = 0; s < shape.members; ++s)
            map_tile(norm.maps.data(), shape.nodes, inputs_, z + s * shape.member, shape.ld);
        const T unit = static_cast<T>(norm.units.difference);
        for (Size a = 1; a < inputs_; ++a)
            for (Size i = 0; i < shape.ld; ++i) z[a * shape.ld + i] = z[i] + unit * z[a * shape.ld + i];
    }

    void sum_with_z(const GramState<T>& state, Size layer, Size t, GramScratch<T>& w) const {
        const TileShape shape = run_.shape(t);
        load_normed(state, layer, t, w);
        std::fill(w.sum.begin(), w.sum.end(), 0.0);
        std::fill(w.sum_z.begin(), w.sum_z.end(), 0.0);
        for (Size a = 0; a < inputs_; ++a) {
            for (Size s = 0; s < shape.members; ++s) {
                const Size from = a * shape.ld + s * shape.member;
                for (Size i = from; i < from + shape.nodes; ++i) {
                    const double direct = static_cast<double>(w.s.slopes[at(i)]);
                    w.sum[at(a)] += direct;
                    w.sum_z[at(a)] += direct * static_cast<double>(w.s.tile[at(i)]);
                }
            }
        }
    }

    // Second half: through the norm, delta = t - mean(t) - z mean(t z) over the nodes; and what skipped the layer.
    void spread(Size layer) {
        for_tiles(
            [&](GramState<T>& state, Size row, Size t, GramScratch<T>& w) {
                const TileShape shape = run_.shape(t);
                T* const delta = run_.held_tile(state.delta, t);
                const T* const direct = run_.held_tile(state.direct, t);
                if (request_.layernorm) load_normed(state, layer, t, w);
                const bool skip = request_.residual > 0.0 && layer < request_.depth;
                const double n = static_cast<double>(request_.width);
                for (Size a = 0; a < inputs_; ++a) {
                    const T kept = skip ? state.carry[at(a)] : T{0};
                    const T mean = static_cast<T>(state.sum[at(a)] / n), slope = static_cast<T>(state.sum_z[at(a)] / n);
                    for (Size i = a * shape.ld; i < (a + 1) * shape.ld; ++i) {
                        const T normed = request_.layernorm ? mean + slope * w.s.tile[at(i)] : T{0};
                        delta[i] = kept * delta[i] + (direct[i] - normed);
                    }
                }
                square_nodes(state, shape, delta, w);
                if (layer > 1)
                    run_.fill(run_.network(row), layer, Stream::gram, t, inputs_, shape.members, w.normals.data());
                sum_up(shape, layer > 1, delta, w);
                // Here delta is dLoss/dy, but W and the bias of a residual layer stand behind sqrt(a): begin_layer
                // knows.
                run_.monitor.advance(1.0);
            },
            [&](GramState<T>& state, const GramScratch<T>& w) { commit(state, layer > 1, w); });
    }

    void square_nodes(const GramState<T>& state, const TileShape& shape, const T* delta, GramScratch<T>& w) const {
        std::fill(w.node_squares.begin(), w.node_squares.end(), 0.0);
        for (Size a = 0; a < inputs_; ++a) {
            for (Size i = 0; i < shape.ld; ++i) {
                const double value = static_cast<double>(delta[a * shape.ld + i]);
                w.node_squares[at(i)] += state.weights[at(a)] * value * value;
            }
        }
    }

    void end_layer(GramState<T>& state, Size row, Size layer) const {
        Matrix squares(at(inputs_));
        for (Size a = 0; a < inputs_; ++a) squares[at(a)] = state.squares[at(a * inputs_ + a)];
        write_gradients(request_, row, layer, 0, inputs_, state.gradient_units, squares.data(), run_.result);
        const int largest =
            *std::max_element(state.gradient_units.exponent.begin(), state.gradient_units.exponent.end());
        const double error = in_units(state.nodes.error(static_cast<double>(request_.width)), largest);
        run_.result.gradient_error[at(row * request_.depth + layer - 1)] = error;
        if (layer > 1) rescale(state, squares);
    }

    // delta next to one again, and K of this layer.
    void rescale(GramState<T>& state, const Matrix& squares) const {
        const std::vector<int> shift = rescaling(inputs_, static_cast<double>(request_.width), squares.data());
        Matrix factor(at(inputs_));
        for (Size a = 0; a < inputs_; ++a) {
            factor[at(a)] = std::ldexp(1.0, -shift[at(a)]);
            state.gradient_units.exponent[at(a)] += shift[at(a)];
            state.carry[at(a)] = static_cast<T>(factor[at(a)]);
        }
        for (Size b = 0; b < inputs_; ++b) {
            for (Size a = 0; a < inputs_; ++a) {
                state.from_above[at(b * inputs_ + a)] *= factor[at(b)];
                if (a >= b) state.squares[at(b * inputs_ + a)] *= factor[at(a)] * factor[at(b)];
            }
        }
        if (run_.orthogonal) return;  // begin_layer asks for more than K
        state.fresh_part.assign(at(inputs_ * inputs_), 0.0);
        const Matrix k = root_of(inputs_, state.squares, accuracy, inputs_);
        const Size r = static_cast<Size>(k.size()) / inputs_;
        for (Size a = 0; a < inputs_; ++a)
            for (Size i = 0; i < r; ++i) state.fresh_part[at(a * inputs_ + i)] = k[at(a * r + i)];
    }

    GramRun<T>& run_;
    const ForwardRequest& request_;
    const Size inputs_, first_;
    std::vector<GramState<T>>& states_;
};

}  // namespace

template <class T>
void backward_gram(GramRun<T>& run, Size first, std::vector<GramState<T>>& states) {
    GramBackward<T>(run, first, states).all();
}

template void backward_gram(GramRun<float>&, Size, std::vector<GramState<float>>&);
template void backward_gram(GramRun<double>&, Size, std::vector<GramState<double>>&);

}  // namespace igb
