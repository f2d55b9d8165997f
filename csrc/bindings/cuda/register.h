// The parts of the module of kernels, each in a file of its own. Every function that starts a kernel takes the number
// of the device and the address of the stream first; arrays are addresses of the device's memory, which Python has
// checked.
#pragma once

#include <pybind11/pybind11.h>

namespace igb::bindings {

void register_runtime(pybind11::module_& m);
void register_sampling(pybind11::module_& m);
void register_layer(pybind11::module_& m);
void register_gram(pybind11::module_& m);
void register_theory(pybind11::module_& m);
void register_covariance(pybind11::module_& m);

}  // namespace igb::bindings
