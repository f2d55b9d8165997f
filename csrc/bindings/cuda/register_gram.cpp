// What the Gram engine needs beside PyTorch: rows given their covariance, angles between inputs, labels and the loss.
#include <string>

#include "bindings/cuda/on_device.h"
#include "bindings/cuda/register.h"
#include "cuda/contrasts.h"
#include "cuda/gram_rows.h"
#include "cuda/loss.h"

namespace py = pybind11;

namespace igb::bindings {
namespace {

using Size = std::int64_t;

template <class T>
void draw_rows(int device, Address stream, std::uint64_t seed, std::uint32_t network, std::uint32_t layer,
               std::uint32_t number, Size networks, Size columns, Size members, Size nodes, Size member, Size first,
               Size stride, Address draw, bool triangular, Address tile) {
    const OnDevice here(device);
    const cuda::TileBatch batch{networks, columns, {members, nodes, member, first, stride}};
    cuda::draw_rows(stream_at(stream), {seed, network, layer, number}, batch, at_address<const T>(draw), triangular,
                    at_address<T>(tile));
}

template <class T>
void contrasts(int device, Address stream, Size networks, Size inputs, double width, Address products, Address units,
               Address lengths, Address rows, Address sums, Address q_histogram, Address c_histogram) {
    const OnDevice here(device);
    cuda::contrasts<T>(stream_at(stream), {networks, inputs, width}, at_address<const double>(products),
                       at_address<const double>(units), {at_address<InputLength>(lengths), at_address<double>(rows)},
                       at_address<double>(sums), at_address<cuda::Count>(q_histogram),
                       at_address<cuda::Count>(c_histogram));
}

void random_labels(int device, Address stream, std::uint64_t seed, std::uint32_t network, std::uint32_t layer,
                   std::uint32_t number, Size networks, Size first, Size count, Size classes, Address labels) {
    const OnDevice here(device);
    cuda::random_labels(stream_at(stream), {seed, network, layer, number}, networks, first, count, classes,
                        at_address<std::int32_t>(labels));
}

template <class T>
void cross_entropy_gradient(int device, Address stream, Size rows, Size classes, Address logits, Address labels,
                            Address delta, Address exponent) {
    const OnDevice here(device);
    cuda::cross_entropy_gradient(stream_at(stream), rows, classes, at_address<const double>(logits),
                                 at_address<const std::int32_t>(labels), at_address<T>(delta),
                                 at_address<std::int32_t>(exponent));
}

template <class T>
void register_for(py::module_& m, const std::string& suffix) {
    m.def(("draw_rows" + suffix).c_str(), &draw_rows<T>);
    m.def(("contrasts" + suffix).c_str(), &contrasts<T>);
    m.def(("cross_entropy_gradient" + suffix).c_str(), &cross_entropy_gradient<T>);
}

}  // namespace

void register_gram(py::module_& m) {
    register_for<float>(m, "_f32");
    register_for<double>(m, "_f64");
    m.def("random_labels", &random_labels);
}

}  // namespace igb::bindings
