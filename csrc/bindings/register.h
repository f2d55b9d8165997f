// The topics of the compiled module: one register_* each, in a file of that name; module.cpp calls them in turn.
#pragma once

#include <pybind11/pybind11.h>

namespace igb::bindings {

void register_config(pybind11::module_& m);
void register_sampling(pybind11::module_& m);
void register_meanfield(pybind11::module_& m);
void register_kernel(pybind11::module_& m);
void register_simulation(pybind11::module_& m);
void register_layers(pybind11::module_& m);

}  // namespace igb::bindings
