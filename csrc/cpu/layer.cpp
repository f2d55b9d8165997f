#include "cpu/layer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/kernels.h"

namespace igb {

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// The power of two next to sqrt(square), or `otherwise` where that is not a positive finite number.
double unit_near(double square, double otherwise) {
    const double size = std::sqrt(square);
    return std::isnormal(size) ? std::ldexp(1.0, std::ilogb(size)) : otherwise;
}

// Of differences. Below twice this keeps_digits() says that there are none.
template <class T>
constexpr double smallest_unit = 512.0 * static_cast<double>(std::numeric_limits<T>::min());

// Standard error of a mean over n nodes, from the mean and the mean square of what is averaged.
double error_of_mean(double mean, double mean_square, double n) {
    return n > 1.0 ? std::sqrt(std::max(mean_square - mean * mean, 0.0) / (n - 1.0)) : nan;
}

// 1 where phi never falls, -1 where it never rises, 0 where it does both.
int direction(const Leaf& phi) {
    if (phi.table) return phi.table->monotone;
    return phi.activation.kind == ActivationKind::leaky_relu && phi.activation.parameter < 0.0 ? 0 : 1;
}

template <class T, class Source>
void copy_differences(const Source* inputs, Size features, const InputRange& range, const double* origin, Size begin,
                      Size n, T* tile, Size ld) {
    const auto first = [&](Size i) {
        return origin != nullptr ? origin[begin + i] : static_cast<double>(inputs[begin + i]);
    };
    for (Size i = 0; i < n; ++i) tile[i] = static_cast<T>(first(i));
    for (Size a = 1; a < range.columns; ++a) {
        const Source* const input = inputs + (range.begin + a - 1) * features + begin;
        T* const column = tile + a * ld;
        for (Size i = 0; i < n; ++i) column[i] = static_cast<T>(static_cast<double>(input[i]) - first(i));
    }
}

void add(TileNorms& total, const TileNorms& part) {
    total.origin += part.origin;
    total.difference += part.difference;
    total.beyond_table |= part.beyond_table;
}

}  // namespace

void ForwardResult::resize(const ForwardRequest& request, std::int64_t count) {
    inputs = count;
    const std::size_t layers = at(request.networks * request.depth);
    for (Estimate* estimate : {&sigma_mu2, &sigma_y2, &gamma, &q, &c, &chi}) estimate->resize(layers);
    if (request.per_node) {
        mu.resize(layers * at(request.width));
        var.resize(layers * at(request.width));
    }
    guess.resize(at(request.networks * count));
    if (request.loss == Loss::cross_entropy) labels.resize(at(request.networks * count));
    if (request.loss != Loss::none) {
        gradient.resize(layers * at(count));
        gradient_error.resize(layers);
    }
}

double result_memory(const ForwardRequest& request, std::int64_t inputs) {
    const double layers = static_cast<double>(request.networks) * static_cast<double>(request.depth);
    const double n = static_cast<double>(inputs);
    const double nodes = request.per_node ? 2.0 * static_cast<double>(request.width) : 0.0;
    const double gradients = request.loss != Loss::none ? n + 1.0 : 0.0;
    const double bins = request.distributions ? 4.0 * 100.0 * 3.0 : 0.0;
    const double networks = static_cast<double>(request.networks) * n * 2.0 * sizeof(std::int32_t);
    return layers * (12.0 + nodes + gradients + bins) * sizeof(double) + networks;
}

StreamId stream_of(const ForwardRequest& request, std::uint32_t network, Size layer, Stream stream) {
    return {request.seed, network, static_cast<std::uint32_t>(layer), static_cast<std::uint32_t>(stream)};
}

Size choose_tile(const ForwardRequest& request, Size columns, std::size_t element_size) {
    if (request.tile > 0) return request.tile;
    const Size fitting = Size{512} * 1024 / (columns * static_cast<Size>(element_size) * request.members());
    return std::clamp<Size>(fitting / columns_per_block * columns_per_block, columns_per_block, 256);
}

Size choose_group(const ForwardRequest& request, Size inputs, Size tiles, int workers, double bytes) {
    constexpr Size least_work = Size{1} << 20;  // node-input pairs between two meetings of the threads: about 5 ms
    const Size work = request.width * inputs;
    const Size wanted = std::max((Size{16} * workers + tiles - 1) / tiles, least_work / work);
    const Size fitting = std::max<Size>(1, static_cast<Size>(std::min(256.0 * 1024 * 1024 / bytes, 1e6)));
    return std::clamp<Size>(wanted, 1, std::min(fitting, request.networks));
}

template <class T>
void load_inputs(const ForwardRequest& request, const InputsView& inputs, std::uint32_t network,
                 const InputRange& range, Size first_number, const double* origin, Size begin, Size n, T* tile,
                 Size ld) {
    if (inputs.f32 != nullptr) {
        copy_differences(inputs.f32, request.features, range, origin, begin, n, tile, ld);
    } else if (inputs.f64 != nullptr) {
        copy_differences(inputs.f64, request.features, range, origin, begin, n, tile, ld);
    } else {
        const StreamId id = stream_of(request, network, 0, Stream::inputs);
        for (Size a = 0; a < range.columns; ++a) {
            const Size number = a == 0 ? 0 : first_number + range.begin + a - 1;
            T* const column = tile + a * ld;
            fill_normals(id, static_cast<std::uint32_t>(number), begin, n, column);
            for (Size i = 0; a > 0 && i < n; ++i) column[i] -= tile[i];
        }
    }
}

// The variance of input a differs from that of the origin by 2 cov(y_0, d_a) + var(d_a), which keeps its digits when
// all inputs become one, and so does 1 / s_a - 1 / s_0.
template <class T>
LayerNormMaps layer_norm(Size width, const TileUnits& units, const std::vector<double>& sums, const double* with_origin,
                         const double* squares) {
    const double n = static_cast<double>(width), ratio = units.difference / units.origin;
    const std::size_t columns = sums.size();
    const double mean_0 = sums[0] / n, variance_0 = std::max(squares[0] / n - mean_0 * mean_0, 0.0);
    const double s_0 = std::sqrt(variance_0);
    double spread = 0.0;  // of y around the origin, over nodes and inputs: what the unit has to fit
    for (std::size_t a = 1; a < columns; ++a) spread += squares[a] / n / static_cast<double>(columns - 1);
    const double unit = std::max(ratio * unit_near(spread, 1.0) / unit_near(variance_0, 1.0), smallest_unit<T>);
    LayerNormMaps norm;
    norm.units = {1.0, unit};
    norm.maps.resize(columns);
    norm.gains.resize(columns);
    norm.maps[0] = {1.0 / s_0, 0.0, -mean_0 / s_0};
    norm.gains[0] = 1.0 / s_0 / units.origin;
    for (std::size_t a = 1; a < columns; ++a) {
        const double mean = sums[a] / n;
        const double covariance = with_origin[a] / n - mean_0 * mean, variance = squares[a] / n - mean * mean;
        const double change = 2.0 * ratio * covariance + ratio * ratio * variance;
        const double s = std::sqrt(std::max(variance_0 + change, 0.0));
        const double from_origin = -change / (s * s_0 * (s + s_0));  // 1 / s - 1 / s_0
        norm.maps[a] = {ratio / (s * unit), from_origin / unit, -(ratio * mean / s + mean_0 * from_origin) / unit};
        norm.gains[a] = 1.0 / s / units.origin;
    }
    return norm;
}

Nonlinearity::Nonlinearity(const ForwardRequest& request)
    : leaf_(request.phi), pool_(request.pool.kind), pool_first_(PoolKind::none) {
    if (leaf_.table) view_ = leaf_.table->view();
    const int rises = direction(leaf_);
    const bool extreme = pool_ == PoolKind::max || pool_ == PoolKind::min;
    if (extreme && rises != 0) pool_first_ = (pool_ == PoolKind::max) == (rises > 0) ? PoolKind::max : PoolKind::min;
}

template <class T>
TileScratch<T>::TileScratch(const ForwardRequest& request, const Nonlinearity& nonlinearity, Size tile_size,
                            Size columns, bool with_slopes) {
    const std::size_t rows = at(request.members() * tile_size);
    const bool shares_needed = nonlinearity.needs_shares() || (with_slopes && nonlinearity.pool() != PoolKind::none);
    tile.resize(rows * at(columns));
    slopes.resize(with_slopes || nonlinearity.needs_shares() ? tile.size() : 0);
    shares.resize(shares_needed ? tile.size() : 0);
    bias.resize(at(tile_size));
    for (AlignedVector<double>* array : {&origin, &sum, &sum2, &origin_slope2, &slope2, &unused}) array->resize(rows);
}

template <class T>
void add_bias(const ForwardRequest& request, const NodeLayout& layout, std::uint32_t network, Size layer, Size begin,
              double unit, const TileShape& shape, T* tile, T* scratch) {
    if (request.sigma_b2 == 0.0) return;
    const StreamId id = stream_of(request, network, layer, Stream::biases);
    const T scale = static_cast<T>(std::sqrt(request.sigma_b2) / unit);
    for (Size s = 0; s < shape.members; ++s) {
        fill_normals(id, 0, layout.column(s, begin), shape.nodes, scratch);
        T* const origin = tile + s * shape.member;
        for (Size i = 0; i < shape.nodes; ++i) origin[i] += scale * scratch[i];
    }
}

namespace {

// phi on every member, then the pool of what comes out. The squared slope of a pool is the sum over its members.
template <class T>
void activate_then_pool(const Nonlinearity& nonlinearity, const TileShape& shape, const double* gains, bool moments,
                        const TileUnits& in, const TileUnits& out, bool with_slopes, TileScratch<T>& s) {
    const bool shares = nonlinearity.needs_shares();
    T* const slopes = with_slopes || shares ? s.slopes.data() : nullptr;
    s.norms = {};
    for (Size k = 0; k < shape.members; ++k) {
        const Size row = k * shape.member;
        double* const ignored = s.unused.data() + row;
        const NodeMoments to{moments ? s.origin.data() + row : ignored, moments ? s.sum.data() + row : ignored,
                             moments ? s.sum2.data() + row : ignored, s.origin_slope2.data() + row,
                             s.slope2.data() + row};
        add(s.norms, activate_tile(nonlinearity.phi(), shape.nodes, shape.inputs, s.tile.data() + row, shape.ld, in,
                                   out, to, gains, slopes != nullptr ? slopes + row : nullptr));
    }
    if (nonlinearity.pool() == PoolKind::none) return;
    const bool beyond = s.norms.beyond_table;
    s.norms = pool_tile(nonlinearity.pool(), shape, s.tile.data(), out, s.shares.empty() ? nullptr : s.shares.data());
    s.norms.beyond_table = beyond;
    if (slopes != nullptr) {
        std::vector<double> weights(at(shape.inputs), 1.0);
        weights[0] = 0.0;
        for (Size k = 0; k < shape.members; ++k) {
            const Size row = k * shape.member;
            multiply_tiles(shape.nodes, shape.inputs, slopes + row, shape.ld, s.shares.data() + row, shape.ld,
                           slopes + row, shape.ld, weights.data(), s.slope2.data() + row);
            for (Size i = row; i < row + shape.nodes; ++i)
                s.origin_slope2[at(i)] = static_cast<double>(slopes[i]) * static_cast<double>(slopes[i]);
        }
    }
    // Where no slopes are kept the pool is an average, whose members have shares of 1/k.
    const double share2 = slopes != nullptr ? 1.0 : 1.0 / static_cast<double>(shape.members * shape.members);
    for (Size i = 0; i < shape.nodes; ++i) {
        double at_origin = 0.0, others = 0.0;
        for (Size k = 0; k < shape.members; ++k) {
            at_origin += s.origin_slope2[at(k * shape.member + i)];
            others += s.slope2[at(k * shape.member + i)];
        }
        s.origin_slope2[at(i)] = share2 * at_origin;
        s.slope2[at(i)] = share2 * others;
    }
}

// The pool of the nodes, then phi of what comes out.
template <class T>
void pool_then_activate(const Nonlinearity& nonlinearity, const TileShape& shape, const double* gains,
                        const TileUnits& in, const TileUnits& out, bool with_slopes, TileScratch<T>& s) {
    pool_tile(nonlinearity.pool_of_nodes(), shape, s.tile.data(), in, with_slopes ? s.shares.data() : nullptr);
    double* const ignored = s.unused.data();
    const NodeMoments to{ignored, ignored, ignored, s.origin_slope2.data(), s.slope2.data()};
    T* const slopes = with_slopes ? s.slopes.data() : nullptr;
    s.norms = activate_tile(nonlinearity.phi(), shape.nodes, shape.inputs, s.tile.data(), shape.ld, in, out, to, gains,
                            slopes);
    for (Size k = shape.members - 1; with_slopes && k >= 0; --k) {  // the first member last: it holds phi'
        const Size row = k * shape.member;
        multiply_tiles(shape.nodes, shape.inputs, slopes, shape.ld, s.shares.data() + row, shape.ld, slopes + row,
                       shape.ld, static_cast<const double*>(nullptr), static_cast<double*>(nullptr));
    }
}

}  // namespace

template <class T>
void apply_nonlinearity(const Nonlinearity& nonlinearity, const TileShape& shape, const LayerNormMaps* norm,
                        const TileUnits& in, const TileUnits& out, bool with_slopes, TileScratch<T>& s) {
    const bool sums_apart = norm != nullptr || nonlinearity.pool_first();
    for (Size k = 0; sums_apart && k < shape.members; ++k) {
        const Size row = k * shape.member;
        const NodeMoments to{s.origin.data() + row, s.sum.data() + row, s.sum2.data() + row, nullptr, nullptr};
        sum_tile(shape.nodes, shape.inputs, s.tile.data() + row, shape.ld, to);
        if (norm != nullptr) map_tile(norm->maps.data(), shape.nodes, shape.inputs, s.tile.data() + row, shape.ld);
    }
    const TileUnits& units = norm != nullptr ? norm->units : in;
    const double* const gains = norm != nullptr ? norm->gains.data() : nullptr;
    if (nonlinearity.pool_first()) {
        pool_then_activate(nonlinearity, shape, gains, units, out, with_slopes, s);
    } else {
        activate_then_pool(nonlinearity, shape, gains, !sums_apart, units, out, with_slopes, s);
    }
}

template <class T>
TileUnits units_near(const TileUnits& now, double origin, double difference) {
    return {now.origin * unit_near(origin, 1.0),
            std::max(now.difference * unit_near(difference, 1.0), smallest_unit<T>)};
}

template <class T>
bool keeps_digits(const TileUnits& units) {
    return units.difference > 2.0 * smallest_unit<T> &&
           units.origin < static_cast<double>(std::numeric_limits<T>::max()) / 1024.0;
}

template <class T>
void sum_tile_nodes(const NodeLayout& layout, Size begin, const TileShape& shape, const TileUnits& units,
                    TileScratch<T>& s, double* mu, double* var, LayerHistograms* histograms) {
    const double inputs = static_cast<double>(shape.inputs);
    const double ratio = units.difference / units.origin, square = units.difference * units.difference;
    s.nodes = {};
    s.chi = {};
    for (Size k = 0; k < shape.members; ++k) {
        for (Size i = 0; i < shape.nodes; ++i) {
            const std::size_t row = at(k * shape.member + i), node = at(layout.node(k, begin + i));
            const double mean = s.sum[row] / inputs;
            const double centre = s.origin[row] + ratio * mean;
            const double variance = std::max(s.sum2[row] - s.sum[row] * mean, 0.0) / (inputs - 1.0);
            s.nodes.add(centre, variance);
            if (mu != nullptr) mu[node] = units.origin * centre;
            if (var != nullptr) var[node] = square * variance;
            if (histograms != nullptr) {
                histograms->mu.add(units.origin * centre);
                histograms->var.add(square * variance);
            }
        }
    }
    for (Size i = 0; i < shape.nodes; ++i) s.chi.add((s.origin_slope2[at(i)] + s.slope2[at(i)]) / inputs);
}

void write_estimates(const ForwardRequest& request, Size inputs_count, const LayerSums& sums, bool digits_kept,
                     Size index, ForwardResult& result) {
    const auto put = [&](Estimate& estimate, double value, double error) {
        estimate.value[at(index)] = value;
        estimate.error[at(index)] = std::isnan(value) ? nan : error;
    };
    // Moments over the nodes, u in units.origin and v in units.difference^2. Each estimate is the mean over the nodes
    // of some influence f(u_i, v_i), whose variance over the nodes gives its standard error.
    const NodeSums& s = sums.nodes;
    const double n = s.count, inputs = static_cast<double>(inputs_count);
    const double unit2 = sums.units.origin * sums.units.origin;
    const double spread2 = sums.units.difference * sums.units.difference;
    const double ratio2 = sums.units.difference / sums.units.origin * (sums.units.difference / sums.units.origin);
    const double m = s.u / n, u2 = s.u2 / n, u3 = s.u3 / n, u4 = s.u4 / n;
    const double v = s.v / n, v2 = s.v2 / n, uv = s.uv / n, u2v = s.u2v / n;
    const double centred2 = u2 - m * m;
    const double centred4 = u4 - 4.0 * m * u3 + 6.0 * m * m * u2 - 3.0 * m * m * m * m;
    const double centred2v = u2v - 2.0 * m * uv + m * m * v;

    // sigma_y2: v. sigma_mu2: (u - m)^2 - v / inputs, the second term because the mean over a finite number of inputs
    // scatters around the node's centre.
    const double excess = ratio2 / inputs;
    const double a = centred2 - excess * v;
    const double a2 = centred4 - 2.0 * excess * centred2v + excess * excess * v2;
    const double cov_av = centred2v - excess * v2 - a * v;
    const double sigma_mu2 = unit2 * (n > 1.0 ? (centred2 * n / (n - 1.0) - excess * v) : nan);
    const double sigma_y2 = spread2 * v;
    const bool lost = !digits_kept || !std::isfinite(u4) || !std::isfinite(v2) || (v > 0.0 && !std::isnormal(sigma_y2));
    put(result.sigma_mu2, lost ? nan : sigma_mu2, unit2 * error_of_mean(a, a2, n));
    put(result.sigma_y2, lost ? nan : sigma_y2, spread2 * error_of_mean(v, v2, n));

    // gamma: (A - (gamma) v) / mean v, by the delta method.
    const double g = a / v;
    const double gamma_error =
        error_of_mean(0.0, (a2 - a * a) - 2.0 * g * cov_av + g * g * (v2 - v * v), n) / v / ratio2;
    const double gamma = sigma_mu2 / sigma_y2;
    put(result.gamma, lost || !std::isfinite(gamma) ? nan : gamma, gamma_error);

    // q: the mean over inputs of y^2, u^2 + share v. c: its pairs' mean u^2 - v / inputs, less c of the former;
    // 1 - c = 1 / (1 + gamma) keeps its digits next to c = 1.
    const double share = ratio2 * (inputs - 1.0) / inputs;
    const double s_mean = u2 + share * v, s_square = u4 + 2.0 * share * u2v + share * share * v2;
    const double q = unit2 * sums.q_sum / sums.q_count;
    put(result.q, std::isfinite(q) ? q : nan, unit2 * error_of_mean(s_mean, s_square, n));
    const double alpha = 1.0 / (1.0 + gamma), beta = excess + (1.0 - alpha) * share;
    const double p_mean = alpha * u2 - beta * v,
                 p_square = alpha * alpha * u4 - 2.0 * alpha * beta * u2v + beta * beta * v2;
    const double c = sums.c_sum / sums.c_count;
    put(result.c, std::isfinite(c) ? c : nan, error_of_mean(p_mean, p_square, n) / s_mean);

    // chi: 1 + a sigma_w2 w for a residual network, sigma_w2 w for a plain one.
    const double w = sums.chi.w / sums.chi.count, w2 = sums.chi.w2 / sums.chi.count;
    const double skipped = request.residual > 0.0 ? 1.0 : 0.0;
    const double gain = request.sigma_w2 * (request.residual > 0.0 ? request.residual : 1.0);
    put(result.chi, std::isfinite(q) ? skipped + gain * w : nan, gain * error_of_mean(w, w2, sums.chi.count));
}

#define IGB_INSTANTIATE(T)                                                                                          \
    template struct TileScratch<T>;                                                                                 \
    template bool keeps_digits<T>(const TileUnits&);                                                                \
    template TileUnits units_near<T>(const TileUnits&, double, double);                                             \
    template LayerNormMaps layer_norm<T>(Size, const TileUnits&, const std::vector<double>&, const double*,         \
                                         const double*);                                                            \
    template void load_inputs(const ForwardRequest&, const InputsView&, std::uint32_t, const InputRange&, Size,     \
                              const double*, Size, Size, T*, Size);                                                 \
    template void add_bias(const ForwardRequest&, const NodeLayout&, std::uint32_t, Size, Size, double,             \
                           const TileShape&, T*, T*);                                                               \
    template void apply_nonlinearity(const Nonlinearity&, const TileShape&, const LayerNormMaps*, const TileUnits&, \
                                     const TileUnits&, bool, TileScratch<T>&);                                      \
    template void sum_tile_nodes(const NodeLayout&, Size, const TileShape&, const TileUnits&, TileScratch<T>&,      \
                                 double*, double*, LayerHistograms*)

IGB_INSTANTIATE(float);
IGB_INSTANTIATE(double);

}  // namespace igb
