#include "cpu/layer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/stream.h"
#include "cpu/blas.h"
#include "cpu/kernels.h"

namespace igb {

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

StreamId stream_of(const ForwardRequest& request, std::uint32_t network, Size layer, Stream stream) {
    return {request.seed, network, static_cast<std::uint32_t>(layer), static_cast<std::uint32_t>(stream)};
}

// The power of two next to sqrt(square), or `otherwise` where that is not a positive finite number.
double unit_near(double square, double otherwise) {
    const double size = std::sqrt(square);
    return std::isnormal(size) ? std::ldexp(1.0, std::ilogb(size)) : otherwise;
}

// Standard error of a mean over n nodes, from the mean and the mean square of what is averaged.
double error_of_mean(double mean, double mean_square, double n) {
    return n > 1.0 ? std::sqrt(std::max(mean_square - mean * mean, 0.0) / (n - 1.0)) : nan;
}

template <class T, class Source>
void copy_differences(const Source* inputs, Size features, const InputRange& range, Size begin, Size n, T* tile,
                      Size ld) {
    const Source* const origin = inputs + begin;
    for (Size i = 0; i < n; ++i) tile[i] = static_cast<T>(origin[i]);
    for (Size a = 1; a < range.columns; ++a) {
        const Source* const input = inputs + range.input(a) * features + begin;
        T* const column = tile + a * ld;
        for (Size i = 0; i < n; ++i)
            column[i] = static_cast<T>(static_cast<double>(input[i]) - static_cast<double>(origin[i]));
    }
}

}  // namespace

Size choose_tile(const ForwardRequest& request, Size columns, std::size_t element_size) {
    if (request.tile > 0) return request.tile;
    const Size fitting = Size{512} * 1024 / (columns * static_cast<Size>(element_size));
    return std::clamp<Size>(fitting / columns_per_block * columns_per_block, columns_per_block, 256);
}

Size choose_group(const ForwardRequest& request, Size tiles, int workers, double bytes) {
    constexpr Size least_work = Size{1} << 20;  // node-input pairs between two meetings of the threads: about 5 ms
    const Size work = request.width * request.inputs;
    const Size wanted = std::max((Size{16} * workers + tiles - 1) / tiles, least_work / work);
    const Size fitting = std::max<Size>(1, static_cast<Size>(std::min(256.0 * 1024 * 1024 / bytes, 1e6)));
    return std::clamp<Size>(wanted, 1, std::min(fitting, request.networks));
}

template <class T>
void load_inputs(const ForwardRequest& request, std::uint32_t network, const InputRange& range, Size begin, Size n,
                 T* tile, Size ld) {
    if (request.given_f32 != nullptr) {
        copy_differences(request.given_f32, request.features, range, begin, n, tile, ld);
    } else if (request.given_f64 != nullptr) {
        copy_differences(request.given_f64, request.features, range, begin, n, tile, ld);
    } else {
        const StreamId id = stream_of(request, network, 0, Stream::inputs);
        for (Size a = 0; a < range.columns; ++a) {
            T* const column = tile + a * ld;
            fill_normals(id, static_cast<std::uint32_t>(range.input(a)), begin, n, column);
            for (Size i = 0; a > 0 && i < n; ++i) column[i] -= tile[i];
        }
    }
}

template <class T>
void add_bias(const ForwardRequest& request, std::uint32_t network, Size layer, Size begin, Size n, double unit,
              T* origin, T* scratch) {
    if (request.sigma_b2 == 0.0) return;
    fill_normals(stream_of(request, network, layer, Stream::biases), 0, begin, n, scratch);
    const T scale = static_cast<T>(std::sqrt(request.sigma_b2) / unit);
    for (Size i = 0; i < n; ++i) origin[i] += scale * scratch[i];
}

TileUnits units_after(const TileUnits& now, const TileNorms& norms, Size fan_in, Size columns,
                      const ForwardRequest& request) {
    const double gain = request.sigma_w2 / static_cast<double>(fan_in);
    const double others = static_cast<double>(std::max<Size>(columns - 1, 1));
    const double origin = gain * norms.origin + request.sigma_b2 / now.origin / now.origin;
    return {now.origin * unit_near(origin, 1.0), now.difference * unit_near(gain * norms.difference / others, 1.0)};
}

template <class T>
bool keeps_digits(const TileUnits& units) {
    return units.difference > 1024.0 * static_cast<double>(std::numeric_limits<T>::min()) &&
           units.origin < static_cast<double>(std::numeric_limits<T>::max()) / 1024.0;
}

template <class T>
void pair_products(const T* tile, Size ld, Size n, Size columns, T* scratch) {
    blas::syrk_tn(at(columns), at(n), T{1}, tile, at(ld), T{0}, scratch, at(columns));
}

template <class T>
void add_pairs(Size columns, const T* scratch, double* total) {
    for (Size b = 0; b < columns; ++b)
        for (Size a = b; a < columns; ++a) total[b * columns + a] += static_cast<double>(scratch[b * columns + a]);
}

NodeSums sum_nodes(Size n, Size columns, const TileUnits& units, const NodeMoments& moments, double* mu, double* var) {
    const double inputs = static_cast<double>(columns);
    const double ratio = units.difference / units.origin;
    const double square = units.difference * units.difference;
    NodeSums sums;
    for (Size i = 0; i < n; ++i) {
        const double mean = moments.sum[i] / inputs;
        const double centre = moments.origin[i] + ratio * mean;
        const double variance = std::max(moments.sum2[i] - moments.sum[i] * mean, 0.0) / (inputs - 1.0);
        sums.add(centre, variance, (moments.origin_slope2[i] + moments.slope2[i]) / inputs);
        if (mu != nullptr) mu[i] = units.origin * centre;
        if (var != nullptr) var[i] = square * variance;
    }
    return sums;
}

void sum_pairs(const double* products, Size columns, Size width, bool count_origin, LayerSums& sums) {
    const double ratio = sums.units.difference / sums.units.origin;
    const double n = static_cast<double>(width);
    std::vector<double> cross(at(columns)), norm(at(columns)), inverse(at(columns));
    const double origin = products[0] / n;
    for (Size a = 0; a < columns; ++a) {
        cross[at(a)] = a == 0 ? 0.0 : ratio * products[a] / n;
        const double square = a == 0 ? 0.0 : ratio * ratio * products[a * columns + a] / n;
        norm[at(a)] = origin + 2.0 * cross[at(a)] + square;
        inverse[at(a)] = 1.0 / std::sqrt(norm[at(a)]);
    }
    const double scale = ratio * ratio / n;
    for (Size b = 0; b < columns; ++b) {
        if (b > 0 || count_origin) {
            sums.q_sum += norm[at(b)];
            sums.q_count += 1.0;
        }
        double row = 0.0;
        for (Size a = b + 1; a < columns; ++a) {
            const double square = b == 0 ? 0.0 : scale * products[b * columns + a];
            row += (origin + cross[at(a)] + cross[at(b)] + square) * inverse[at(a)];
        }
        sums.c_sum += row * inverse[at(b)];
        sums.c_count += static_cast<double>(columns - 1 - b);
    }
}

void write_estimates(const ForwardRequest& request, const LayerSums& sums, bool digits_kept, Size index,
                     const ForwardResult& result) {
    const auto put = [&](const Estimate& estimate, double value, double error) {
        estimate.value[index] = value;
        estimate.error[index] = std::isnan(value) ? nan : error;
    };
    // Moments over the nodes, u in units.origin and v in units.difference^2. Each estimate is the mean over the nodes
    // of some influence f(u_i, v_i), whose variance over the nodes gives its standard error.
    const NodeSums& s = sums.nodes;
    const double n = s.count, inputs = static_cast<double>(request.inputs);
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

    const double w = s.w / n, w2 = s.w2 / n;
    put(result.chi, std::isfinite(q) ? request.sigma_w2 * w : nan, request.sigma_w2 * error_of_mean(w, w2, n));
}

template bool keeps_digits<float>(const TileUnits&);
template bool keeps_digits<double>(const TileUnits&);
template void load_inputs(const ForwardRequest&, std::uint32_t, const InputRange&, Size, Size, float*, Size);
template void load_inputs(const ForwardRequest&, std::uint32_t, const InputRange&, Size, Size, double*, Size);
template void add_bias(const ForwardRequest&, std::uint32_t, Size, Size, Size, double, float*, float*);
template void add_bias(const ForwardRequest&, std::uint32_t, Size, Size, Size, double, double*, double*);
template void pair_products(const float*, Size, Size, Size, float*);
template void pair_products(const double*, Size, Size, Size, double*);
template void add_pairs(Size, const float*, double*);
template void add_pairs(Size, const double*, double*);

}  // namespace igb
