// The covariance of given inputs at infinite width: what is done for every pair. python/igbfast/gpu/covariance.py holds
// the matrices.
#include "bindings/cuda/on_device.h"
#include "bindings/cuda/register.h"
#include "cuda/covariance_map.h"

namespace py = pybind11;

namespace igb::bindings {
namespace {

using Size = std::int64_t;

const double* numbers_at(Address address) { return at_address<const double>(address); }

// (5, padded): q, root_change, inverse_root, seen, seen_change.
InputView inputs_at(Size count, Size padded, Address address) {
    const double* const q = numbers_at(address);
    return {count, padded, q, q + padded, q + 2 * padded, q + 3 * padded, q + 4 * padded};
}

// (4, count, count): K, T, product, spread; and (4, blocks).
cuda::PairMatrices pairs_at(Size count, Address matrices, Address parts) {
    double* const covariance = at_address<double>(matrices);
    const Size each = count * count;
    return {
        count, covariance, covariance + each, covariance + 2 * each, covariance + 3 * each, at_address<double>(parts)};
}

PairSeriesView features_at(int features, Address feature, double scale2) {
    return {0, 0, 0, nullptr, features, numbers_at(feature), scale2};
}

void compare_inputs(int device, Address stream, Size count, Address matrices, Address parts, Size features, Address x) {
    const OnDevice here(device);
    cuda::compare_inputs(stream_at(stream), numbers_at(x), features, 1.0 / static_cast<double>(features),
                         pairs_at(count, matrices, parts));
}

void start_from_covariance(int device, Address stream, Size count, Address matrices, Address parts, Address given) {
    const OnDevice here(device);
    cuda::start_from_covariance(stream_at(stream), numbers_at(given), pairs_at(count, matrices, parts));
}

void add_piecewise_linear(int device, Address stream, Size count, Address matrices, Address parts, Size padded,
                          Address in, bool mirrored, double weight, double slope2, double bend2) {
    const OnDevice here(device);
    cuda::add_piecewise_linear(stream_at(stream), inputs_at(count, padded, in), {slope2, bend2}, weight, mirrored,
                               pairs_at(count, matrices, parts));
}

void add_erf(int device, Address stream, Size count, Address matrices, Address parts, Size padded, Address in,
             bool mirrored, double weight, int features, Address feature, double scale2) {
    const OnDevice here(device);
    cuda::add_erf(stream_at(stream), inputs_at(count, padded, in), features_at(features, feature, scale2), weight,
                  mirrored, pairs_at(count, matrices, parts));
}

void add_series(int device, Address stream, Size count, Address matrices, Address parts, Size padded, Address in,
                bool mirrored, double weight, int parity, int terms, Address series, int features, Address feature,
                double scale2) {
    const OnDevice here(device);
    const PairSeriesView view{parity, terms, terms * pair_block, numbers_at(series), features, numbers_at(feature),
                              scale2};
    cuda::add_series(stream_at(stream), inputs_at(count, padded, in), view, weight, mirrored,
                     pairs_at(count, matrices, parts));
}

void add_curve(int device, Address stream, Size count, Address matrices, Address parts, Size padded, Address in,
               double weight, int panels, Address edges, Address series, double unit, double square) {
    const OnDevice here(device);
    cuda::add_curve(stream_at(stream), inputs_at(count, padded, in),
                    {panels, numbers_at(edges), numbers_at(series), unit, square}, weight,
                    pairs_at(count, matrices, parts));
}

void find_angles(int device, Address stream, Size count, Address matrices, Address parts, Size padded, Address in) {
    const OnDevice here(device);
    cuda::find_angles(stream_at(stream), inputs_at(count, padded, in), pairs_at(count, matrices, parts));
}

// means (2, padded): of phi, and their differences from that of the reference.
void settle(int device, Address stream, Size count, Address matrices, Address parts, Size padded, Address in,
            bool mirrored, Address next, Address means, double carry, double gain, double cross, double bias) {
    const OnDevice here(device);
    const PairMap map{carry, gain, cross, bias, mirrored, numbers_at(means), numbers_at(means) + padded};
    cuda::settle(stream_at(stream), inputs_at(count, padded, in), inputs_at(count, padded, next), map,
                 pairs_at(count, matrices, parts));
}

}  // namespace

void register_covariance(py::module_& m) {
    m.def("covariance_blocks", &cuda::pair_blocks, "Blocks of pairs of so many inputs.");
    m.def("covariance_compare_inputs", &compare_inputs);
    m.def("covariance_start", &start_from_covariance);
    m.def("covariance_add_line", &add_piecewise_linear);
    m.def("covariance_add_erf", &add_erf);
    m.def("covariance_add_series", &add_series);
    m.def("covariance_add_curve", &add_curve);
    m.def("covariance_find_angles", &find_angles);
    m.def("covariance_settle", &settle);
}

}  // namespace igb::bindings
