// Sizes, memory and the small parts of direct.h.
#include "cpu/direct.h"

#include <algorithm>
#include <cmath>

#include "cpu/haar.h"

namespace igb {

namespace {

constexpr Size inputs_per_chunk = 1023;                  // 1024 columns with the first input
constexpr double bytes_kept = 1024.0 * 1024.0 * 1024.0;  // of pre-activations, for the way back
constexpr Size tiles_per_block = 4;  // a product of 128 x 512 weights runs at the BLAS's full rate and fits the cache

// The chunk asked for, or what fits the memory.
Size chunk_size(const ForwardRequest& request, Size inputs, std::size_t element_size) {
    Size chunk = request.chunk > 0 ? request.chunk : inputs_per_chunk;
    if (request.chunk == 0 && request.loss != Loss::none) {
        const double column = static_cast<double>(request.depth) * static_cast<double>(request.width);
        const double columns = bytes_kept / (column * static_cast<double>(element_size));
        chunk = std::min(chunk, std::max(Size{2}, static_cast<Size>(columns)) - 1);
    }
    return std::clamp<Size>(inputs - 1, 1, chunk);
}

Size tile_size(const ForwardRequest& request, Size chunk, std::size_t element_size) {
    const Size tile = choose_tile(request, chunk + 1, element_size);
    return request.tile > 0 ? tile : std::min<Size>(tile, 128);
}

double rounded_up(Size count, Size block) { return static_cast<double>(Tiling{count, block}.tiles() * block); }

// What one network takes on its way through the layers.
double bytes_in_flight(const ForwardRequest& request, const DirectPlan& plan, double element) {
    const bool gradients = request.loss != Loss::none;
    const double columns = static_cast<double>(plan.chunk + 1), members = static_cast<double>(plan.layout.members);
    const double outputs = static_cast<double>(request.outputs());
    const double nodes = members * rounded_up(request.pools(), plan.block);
    double numbers = std::max(rounded_up(request.features, plan.block), nodes / members);
    numbers +=
        members * rounded_up(request.pools(), plan.tile) * (gradients ? static_cast<double>(request.depth) : 1.0);
    if (gradients) numbers += 2.0 * std::max(nodes, rounded_up(request.outputs(), plan.block));
    double haar = 0.0;
    if (request.weights == WeightLaw::orthogonal) {
        const Size order = std::max(request.width, request.features);
        numbers += static_cast<double>(order);
        haar = haar_memory(order, plan.chunk + 1, static_cast<std::size_t>(element), plan.workers);
    }
    const double pairs = request.distributions ? columns * columns : 0.0;
    return (numbers + outputs) * columns * element + haar + (pairs + outputs * columns) * sizeof(double);
}

// What is kept of one network until its results are written, besides what there is by input.
double bytes_of_records(const ForwardRequest& request, const DirectPlan& plan) {
    const double layers = plan.keeps_layers ? static_cast<double>(request.depth) : 1.0;
    const double numbers = request.loss != Loss::none ? 7.0 : 6.0;  // by node; see LayerRecord
    return layers * static_cast<double>(request.width) * numbers * sizeof(double);
}

double bytes_by_input(const ForwardRequest& request) {
    const double gradients = request.loss != Loss::none ? static_cast<double>(request.depth) * sizeof(double) : 0.0;
    return gradients + 2.0 * sizeof(std::int32_t);
}

double bytes_of_scratch(const ForwardRequest& request, const DirectPlan& plan, double element) {
    const double columns = static_cast<double>(plan.chunk + 1), tile = static_cast<double>(plan.tile);
    const double members = static_cast<double>(plan.layout.members);
    const double tiles = request.loss != Loss::none ? 3.0 * members + 1.0 : request.members() > 1 ? 3.0 * members : 1.0;
    const double pairs = request.distributions ? columns * columns : 0.0;
    return (tiles * tile * columns + tile * static_cast<double>(plan.block) + pairs) * element;
}

}  // namespace

DirectPlan::DirectPlan(const ForwardRequest& request, Size inputs, std::size_t element_size)
    : layout(request), chunk(chunk_size(request, inputs, element_size)), tile(tile_size(request, chunk, element_size)),
      block(tiles_per_block * tile), features{request.features, tile}, pools{layout.pools, tile},
      outputs{request.outputs(), tile}, workers(max_workers()),
      keeps_layers(inputs - 1 > chunk || request.loss != Loss::none || request.distributions) {
    const double element = static_cast<double>(element_size);
    network_bytes = bytes_in_flight(request, *this, element) + bytes_of_records(request, *this);
    group = choose_group(request, chunk + 1, pools.tiles(), workers, network_bytes);
    bytes = static_cast<double>(group) * network_bytes + workers * bytes_of_scratch(request, *this, element);
}

double forward_direct_memory(const ForwardRequest& request, std::int64_t inputs, std::size_t element_size) {
    const DirectPlan plan(request, inputs, element_size);
    return plan.bytes + static_cast<double>(plan.group) * static_cast<double>(inputs) * bytes_by_input(request) +
           result_memory(request, inputs);
}

void LayerRecord::clear(const ForwardRequest& request) {
    const std::size_t width = at(request.width);
    origin.assign(width, 0.0);
    differences.assign(width, {});
    direction.assign(width, 0.0);
    slope2.assign(at(request.pools()), 0.0);
    if (request.loss != Loss::none) gradient2.assign(width, 0.0);
    q_sum = 0.0;
    inputs = directions = 0;
    digits_kept = true;
}

void ColumnSums::clear(Size columns) {
    for (std::vector<double>* sum : {&squares, &with_origin, &sums}) sum->assign(at(columns), 0.0);
}

void ColumnSums::add(const ColumnSums& other) {
    for (std::size_t a = 0; a < sums.size(); ++a) {
        squares[a] += other.squares[a];
        with_origin[a] += other.with_origin[a];
        sums[a] += other.sums[a];
    }
}

DirectWeights::DirectWeights(const ForwardRequest& request, std::uint32_t network, Size layer)
    : id(stream_of(request, network, layer, Stream::weights)),
      law(layer > request.depth ? WeightLaw::gaussian : request.weights),
      rows(layer > request.depth ? request.outputs() : request.width), columns(request.fan_in(layer)) {
    const double share = orthogonal() ? static_cast<double>(order()) : 1.0;
    scale = std::sqrt(request.sigma_w2 * share / static_cast<double>(columns));
}

template <class T>
DirectScratch<T>::DirectScratch(const ForwardRequest& request, const Nonlinearity& nonlinearity, const DirectPlan& plan)
    : tile(request, nonlinearity, plan.tile, plan.chunk + 1, request.loss != Loss::none),
      weights(at(plan.tile * plan.block)), pairs(request.distributions ? at((plan.chunk + 1) * (plan.chunk + 1)) : 0),
      product(request.loss != Loss::none ? at(plan.tile * (plan.chunk + 1)) : 0) {}

template <class T>
void apply_orthogonal(const DirectWeights& weights, bool transposed, const BlockedMatrix<T>& x, Size columns,
                      AlignedVector<T>& whole, int workers, Monitor& monitor) {
    const Size order = weights.order();
    whole.assign(at(order * columns), T{0});
    for (Size member = 0; member < x.members; ++member)
        for (Size b = 0; b < x.blocks.tiles(); ++b)
            for (Size a = 0; a < columns; ++a) {
                const T* const from = x.block(member, b) + a * x.ld();
                std::copy(from, from + x.blocks.nodes(b),
                          whole.data() + a * order + member * x.blocks.count + x.blocks.begin(b));
            }
    apply_haar(weights.id, order, transposed, columns, whole.data(), order, workers, monitor, weights.columns);
}

template struct DirectScratch<float>;
template struct DirectScratch<double>;
template void apply_orthogonal(const DirectWeights&, bool, const BlockedMatrix<float>&, Size, AlignedVector<float>&,
                               int, Monitor&);
template void apply_orthogonal(const DirectWeights&, bool, const BlockedMatrix<double>&, Size, AlignedVector<double>&,
                               int, Monitor&);

}  // namespace igb
