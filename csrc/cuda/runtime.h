// The CUDA runtime as the bindings need it: which device a thread uses, and what there is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace igb::cuda {

int use_device(int device);  // returns the one used before
void restore_device(int device) noexcept;

struct RuntimeStatus {
    int built;   // version of the runtime that this was built with: 13000 is 13.0
    int driver;  // the newest runtime that the driver serves, counted likewise; 0: there is no driver
    int devices = 0;
    std::string problem,
        explanation;  // name and text of the error with which the devices were counted, if there was one
};

// Needs neither a driver nor a device.
RuntimeStatus runtime_status();

// What the kernels were compiled for, 80 being compute capability 8.0; in increasing order.
std::vector<int> built_architectures();

struct DeviceProperties {
    std::string name;
    int capability;  // 90 is 9.0
};

DeviceProperties device_properties(int device);

struct DeviceMemory {
    std::int64_t free, total;  // bytes
};

DeviceMemory device_memory(int device);

}  // namespace igb::cuda
