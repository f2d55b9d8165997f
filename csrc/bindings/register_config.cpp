// What was built, what was found and what is in use: config(), the number of threads, the instruction set.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/register.h"
#include "cpu/blas.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace py = pybind11;

namespace igb::bindings {
namespace {

std::vector<std::string> isas() {
    int count = 0;
    const char* const* names = available_isas(&count);
    return {names, names + count};
}

std::string listed(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

void set_isa(const std::string& name) {
    if (!select_isa(name.c_str())) {
        throw std::invalid_argument("name must be an instruction set that this machine runs (" + listed(isas()) +
                                    "), got " + name);
    }
}

// dispatch.cpp has read the variable; a value that it could not follow is the user's to know.
void check_environment() {
    const char* asked = std::getenv("IGBFAST_ISA");
    if (asked && !select_isa(asked)) {
        throw std::invalid_argument(
            "the environment variable IGBFAST_ISA must be unset or an instruction set that this machine runs (" +
            listed(isas()) + "), got " + asked);
    }
}

py::dict config() {
    py::dict found;
    found["version"] = IGB_VERSION;
    found["compiler"] = IGB_COMPILER;
    found["build_type"] = IGB_BUILD_TYPE;
    found["isa"] = kernels().isa;
    found["isas"] = isas();
    found["blas"] = blas::description();
    found["openmp"] = have_openmp();
    found["threads"] = get_num_threads();
    found["cuda"] = static_cast<bool>(IGB_CUDA);
    return found;
}

}  // namespace

void register_config(py::module_& m) {
    check_environment();
    m.def("config", &config, "What was built, and what is in use.");
    m.def("set_isa", &set_isa, py::arg("name"), "Use the kernels compiled for this instruction set.");
    m.def("set_num_threads", &set_num_threads, py::arg("n"), "Run loops on up to n threads.");
    m.def("get_num_threads", &get_num_threads, "How many threads loops run on.");
}

}  // namespace igb::bindings
