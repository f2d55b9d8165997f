// What was built, and which devices there are; python/igbfast/gpu/_device.py makes sentences of it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/cuda/register.h"
#include "cuda/runtime.h"

namespace py = pybind11;

namespace igb::bindings {

namespace {

py::dict status() {
    const cuda::RuntimeStatus found = cuda::runtime_status();
    py::dict result;
    result["built"] = found.built;
    result["architectures"] = cuda::built_architectures();
    result["driver"] = found.driver;
    result["devices"] = found.devices;
    result["problem"] = found.problem;
    result["explanation"] = found.explanation;
    return result;
}

py::tuple properties(int device) {
    const cuda::DeviceProperties found = cuda::device_properties(device);
    return py::make_tuple(found.name, found.capability);
}

py::tuple memory(int device) {
    const cuda::DeviceMemory found = cuda::device_memory(device);
    return py::make_tuple(found.free, found.total);
}

}  // namespace

void register_runtime(py::module_& m) {
    using namespace py::literals;
    m.def("status", &status, "Versions of the CUDA runtime and driver, number of devices, what keeps them away.");
    m.def("properties", &properties, "device"_a, "Name and compute capability; 90 is 9.0.");
    m.def("memory", &memory, "device"_a, "Free and total bytes.");
}

}  // namespace igb::bindings
