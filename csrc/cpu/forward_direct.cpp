// Forward with every weight drawn: y = W x + b for all inputs at once. W is a function of (seed, network, layer, row,
// column), made tile by tile as the product needs it and never stored: a layer of any width costs the memory of its
// activations. Inputs go through in chunks against the same weights, all as differences from the first input (see
// activate.h), so their statistics merge over the chunks.
//
// Time per weight (100 inputs, float32, one AVX-512 core): normal 1.4 ns, product 2.1 ns.
#include <algorithm>
#include <cmath>

#include "core/stream.h"
#include "cpu/blas.h"
#include "cpu/forward.h"
#include "cpu/in_order.h"
#include "cpu/kernels.h"
#include "cpu/layer.h"

namespace igb {

namespace {

constexpr Size inputs_per_chunk = 1024;
constexpr Size tiles_per_block = 4;  // a product of 128 x 512 weights runs at the BLAS's full rate and fits the cache

// Activations of all nodes, block after block, each block a contiguous column-major matrix: what one product reads. A
// tile, what one thread writes, is some rows of a block.
template <class T>
struct BlockedActivations {
    AlignedVector<T> values;
    Tiling blocks{0, 1};
    Size columns = 0;

    void resize(const Tiling& b, Size c) {
        blocks = b;
        columns = c;
        values.resize(at(b.tiles() * b.size * c));
    }
    const T* block(Size b) const { return values.data() + b * blocks.size * columns; }
    T* rows_from(Size node) { return values.data() + node / blocks.size * blocks.size * columns + node % blocks.size; }
};

// What each node of a layer has shown in the chunks so far, in absolute units.
struct NodeRecords {
    std::vector<double> origin, slope2;
    std::vector<MeanVariance> differences;  // from the origin, over the inputs

    void resize(Size nodes) {
        origin.resize(at(nodes));
        slope2.resize(at(nodes));
        differences.resize(at(nodes));
    }
};

template <class T>
struct DirectState {
    BlockedActivations<T> now, next;  // x^(l-1), x^(l)
    AlignedVector<double> pairs;
    TileUnits units, next_units;
    TileNorms norms;  // of x^(l-1)
    LayerSums sums;
    std::vector<LayerSums> layers;     // several chunks only
    std::vector<NodeRecords> records;  // likewise
};

Size chunk_size(const ForwardRequest& request) {
    const Size chunk = request.chunk > 0 ? request.chunk : inputs_per_chunk;
    return std::min(chunk, request.inputs - 1);  // besides the first input, which goes with every chunk
}

Size tile_size(const ForwardRequest& request, std::size_t element_size) {
    const Size tile = choose_tile(request, chunk_size(request) + 1, element_size);
    return request.tile > 0 ? tile : std::min<Size>(tile, 128);
}

// Memory that one network takes while it is run.
double state_bytes(const ForwardRequest& request, Size block, std::size_t element_size) {
    const Size chunk = chunk_size(request);
    const double columns = static_cast<double>(chunk + 1), element = static_cast<double>(element_size);
    const double features = static_cast<double>(Tiling{request.features, block}.tiles() * block);
    const double nodes = static_cast<double>(Tiling{request.width, block}.tiles() * block);
    const bool several = chunk < request.inputs - 1;
    const double records = several ? static_cast<double>(request.depth * request.width) * 5.0 * sizeof(double) : 0.0;
    return (std::max(features, nodes) + nodes) * columns * element + columns * columns * sizeof(double) + records;
}

template <class T>
class DirectForward {
public:
    DirectForward(const ForwardRequest& request, const ForwardResult& result, Monitor& monitor)
        : request_(request), result_(result), monitor_(monitor), chunk_(chunk_size(request)),
          chunks_((request.inputs - 1 + chunk_ - 1) / chunk_), tile_(tile_size(request, sizeof(T))),
          block_(tiles_per_block * tile_), features_{request.features, tile_}, nodes_{request.width, tile_},
          workers_(max_workers()) {
        for (int w = 0; w < workers_; ++w) {
            scratch_.emplace_back(tile_, chunk_ + 1);
            weights_.emplace_back(at(tile_ * block_));
        }
    }

    void run() {
        const Size first_blocks = Tiling{request_.features, block_}.tiles();
        const Size blocks = Tiling{request_.width, block_}.tiles();
        const double products =
            static_cast<double>(nodes_.tiles()) * static_cast<double>(first_blocks + (request_.depth - 1) * blocks);
        monitor_.expect(products * static_cast<double>(chunks_ * request_.networks));
        const Size group = choose_group(request_, nodes_.tiles(), workers_, state_bytes(request_, block_, sizeof(T)));
        std::vector<DirectState<T>> states(at(group));
        for (Size first = 0; first < request_.networks; first += group) {
            states.resize(at(std::min(group, request_.networks - first)));
            run_group(first, states);
            if (monitor_.stopped()) return;
        }
    }

private:
    void run_group(Size first, std::vector<DirectState<T>>& states) {
        for (auto& state : states) prepare(state);
        for (Size begin = 1; begin < request_.inputs; begin += chunk_) {
            const InputRange range{begin, std::min(chunk_, request_.inputs - begin) + 1};
            take_inputs(first, states, range);
            for (Size layer = 1; layer <= request_.depth && !monitor_.stopped(); ++layer) {
                const Size fan_in = layer == 1 ? request_.features : request_.width;
                for (auto& state : states) begin_layer(state, fan_in, range);
                run_layer(first, states, layer, fan_in, range);
                parallel_for(states.size(), workers_, [&](std::size_t g, int) {
                    end_layer(states[g], (first + static_cast<Size>(g)) * request_.depth, layer, range);
                });
            }
            if (monitor_.stopped()) return;
        }
        if (chunks_ > 1)
            parallel_for(states.size(), workers_,
                         [&](std::size_t g, int) { write_records(states[g], first + static_cast<Size>(g)); });
    }

    void prepare(DirectState<T>& state) const {
        state.pairs.resize(at((chunk_ + 1) * (chunk_ + 1)));
        if (chunks_ == 1) return;
        state.layers.assign(at(request_.depth), {});
        state.records.assign(at(request_.depth), {});
        for (auto& record : state.records) record.resize(request_.width);
    }

    std::uint32_t network(Size first, std::size_t g) const {
        return request_.first_network + static_cast<std::uint32_t>(first + static_cast<Size>(g));
    }

    void take_inputs(Size first, std::vector<DirectState<T>>& states, const InputRange& range) {
        for (auto& state : states) {
            state.units = {};
            state.norms = {};
            state.now.resize({request_.features, block_}, range.columns);
        }
        std::vector<TileNorms> norms(at(workers_));
        for_tiles_in_order(
            states.size(), at(features_.tiles()), workers_,
            [&](std::size_t g, std::size_t t, int worker) {
                const Size tile = static_cast<Size>(t), n = features_.nodes(tile);
                T* const x = states[g].now.rows_from(features_.begin(tile));
                load_inputs(request_, network(first, g), range, features_.begin(tile), n, x, block_);
                norms[at(worker)] = norms_of(x, n, range.columns);
            },
            [&](std::size_t g, std::size_t, int worker) { add_norms(states[g].norms, norms[at(worker)]); });
    }

    TileNorms norms_of(const T* x, Size n, Size columns) const {
        TileNorms norms;
        for (Size a = 0; a < columns; ++a) {
            double square = 0.0;
            for (Size i = 0; i < n; ++i)
                square += static_cast<double>(x[a * block_ + i]) * static_cast<double>(x[a * block_ + i]);
            (a == 0 ? norms.origin : norms.difference) += square;
        }
        return norms;
    }

    static void add_norms(TileNorms& total, const TileNorms& part) {
        total.origin += part.origin;
        total.difference += part.difference;
    }

    void begin_layer(DirectState<T>& state, Size fan_in, const InputRange& range) const {
        state.next.resize({request_.width, block_}, range.columns);
        state.next_units = units_after(state.units, state.norms, fan_in, range.columns, request_);
        state.norms = {};
        state.sums = {};
        state.sums.units = state.units;
        std::fill(state.pairs.begin(), state.pairs.end(), 0.0);
    }

    void run_layer(Size first, std::vector<DirectState<T>>& states, Size layer, Size fan_in, const InputRange& range) {
        for_tiles_in_order(
            states.size(), at(nodes_.tiles()), workers_,
            [&](std::size_t g, std::size_t t, int worker) {
                const Size tile = static_cast<Size>(t);
                multiply(states[g], network(first, g), layer, fan_in, tile, range, weights_[at(worker)].data());
                if (!monitor_.stopped()) finish_tile(states[g], first, g, layer, tile, range, scratch_[at(worker)]);
            },
            [&](std::size_t g, std::size_t, int worker) {
                TileScratch<T>& s = scratch_[at(worker)];
                add_pairs(range.columns, s.pairs.data(), states[g].pairs.data());
                states[g].sums.nodes.merge(s.nodes);
                add_norms(states[g].norms, s.norms);
            });
    }

    // One tile of W x, its weights drawn block by block.
    void multiply(DirectState<T>& state, std::uint32_t network, Size layer, Size fan_in, Size tile,
                  const InputRange& range, T* weights) {
        const T scale = static_cast<T>(std::sqrt(request_.sigma_w2 / static_cast<double>(fan_in)));
        const StreamId id{request_.seed, network, static_cast<std::uint32_t>(layer),
                          static_cast<std::uint32_t>(Stream::weights)};
        const Size begin = nodes_.begin(tile), n = nodes_.nodes(tile);
        const Tiling& from = state.now.blocks;
        T* const y = state.next.rows_from(begin);
        for (Size block = 0; block < from.tiles() && !monitor_.stopped(); ++block) {
            const Size k = from.nodes(block);
            for (Size i = 0; i < n; ++i)
                fill_normals(id, static_cast<std::uint32_t>(begin + i), from.begin(block), k, weights + i * block_);
            blas::gemm(blas::Trans::yes, blas::Trans::no, at(n), at(range.columns), at(k), scale, weights, at(block_),
                       state.now.block(block), at(block_), block == 0 ? T{0} : T{1}, y, at(block_));
            monitor_.advance(1.0);
        }
    }

    void finish_tile(DirectState<T>& state, Size first, std::size_t g, Size layer, Size tile, const InputRange& range,
                     TileScratch<T>& s) {
        const Size begin = nodes_.begin(tile), n = nodes_.nodes(tile);
        T* const y = state.next.rows_from(begin);
        add_bias(request_, network(first, g), layer, begin, n, state.units.origin, y, s.bias.data());
        pair_products(y, block_, n, range.columns, s.pairs.data());
        s.norms =
            activate_tile(request_.activation, n, range.columns, y, block_, state.units, state.next_units, s.moments());
        if (chunks_ > 1) {
            record_nodes(state, layer, begin, n, range, s);
            return;
        }
        const Size node = ((first + static_cast<Size>(g)) * request_.depth + layer - 1) * request_.width + begin;
        s.nodes =
            sum_nodes(n, range.columns, state.units, s.moments(), result_.mu == nullptr ? nullptr : result_.mu + node,
                      result_.var == nullptr ? nullptr : result_.var + node);
    }

    void record_nodes(DirectState<T>& state, Size layer, Size begin, Size n, const InputRange& range,
                      TileScratch<T>& s) const {
        NodeRecords& records = state.records[at(layer - 1)];
        const double unit = state.units.difference;
        const bool with_origin = range.begin == 1;  // the first chunk counts the first input, as a difference of zero
        const double count = static_cast<double>(range.columns - (with_origin ? 0 : 1));
        for (Size i = 0; i < n; ++i) {
            const double mean = s.sum[at(i)] / count;
            const double m2 = std::max(s.sum2[at(i)] - s.sum[at(i)] * mean, 0.0);
            records.differences[at(begin + i)].merge({count, unit * mean, unit * unit * m2});
            records.slope2[at(begin + i)] += s.slope2[at(i)] + (with_origin ? s.origin_slope2[at(i)] : 0.0);
            if (with_origin) records.origin[at(begin + i)] = state.units.origin * s.origin[at(i)];
        }
    }

    void end_layer(DirectState<T>& state, Size row, Size layer, const InputRange& range) const {
        sum_pairs(state.pairs.data(), range.columns, request_.width, range.begin == 1, state.sums);
        if (chunks_ == 1) {
            write_estimates(request_, state.sums, keeps_digits<T>(state.units), row + layer - 1, result_);
        } else {
            LayerSums& total = state.layers[at(layer - 1)];
            const double unit2 = state.units.origin * state.units.origin;
            total.units = state.units;
            total.q_sum += unit2 * state.sums.q_sum;
            total.q_count += state.sums.q_count;
            total.c_sum += state.sums.c_sum;
            total.c_count += state.sums.c_count;
        }
        std::swap(state.now, state.next);
        state.units = state.next_units;
    }

    void write_records(DirectState<T>& state, Size row) const {
        for (Size l = 0; l < request_.depth; ++l) {
            LayerSums& total = state.layers[at(l)];
            const NodeRecords& records = state.records[at(l)];
            const double inputs = static_cast<double>(request_.inputs);
            const double origin = total.units.origin, spread2 = total.units.difference * total.units.difference;
            total.q_sum /= origin * origin;
            for (Size i = 0; i < request_.width; ++i) {
                const MeanVariance& d = records.differences[at(i)];
                const double mu = records.origin[at(i)] + d.mean;
                total.nodes.add(mu / origin, d.variance() / spread2, records.slope2[at(i)] / inputs);
                const Size node = (row * request_.depth + l) * request_.width + i;
                if (result_.mu != nullptr) result_.mu[node] = mu;
                if (result_.var != nullptr) result_.var[node] = d.variance();
            }
            write_estimates(request_, total, keeps_digits<T>(total.units), row * request_.depth + l, result_);
        }
    }

    const ForwardRequest& request_;
    const ForwardResult& result_;
    Monitor& monitor_;
    const Size chunk_, chunks_, tile_, block_;
    const Tiling features_, nodes_;
    const int workers_;
    std::vector<TileScratch<T>> scratch_;
    std::vector<AlignedVector<T>> weights_;
};

}  // namespace

template <class T>
void forward_direct(const ForwardRequest& request, const ForwardResult& result, Monitor& monitor) {
    DirectForward<T>(request, result, monitor).run();
}

double forward_direct_memory(const ForwardRequest& request, std::size_t element_size) {
    const double columns = static_cast<double>(chunk_size(request) + 1), element = static_cast<double>(element_size);
    const Size tile = tile_size(request, element_size), block = tiles_per_block * tile;
    const int workers = max_workers();
    const double state = state_bytes(request, block, element_size);
    const Size group = choose_group(request, Tiling{request.width, tile}.tiles(), workers, state);
    const double scratch =
        (2.0 * columns * columns + static_cast<double>(tile) * (columns + static_cast<double>(block))) * element;
    return static_cast<double>(group) * state + workers * scratch;
}

template void forward_direct<float>(const ForwardRequest&, const ForwardResult&, Monitor&);
template void forward_direct<double>(const ForwardRequest&, const ForwardResult&, Monitor&);

}  // namespace igb
