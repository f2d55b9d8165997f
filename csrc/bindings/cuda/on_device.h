// What every bound function that starts a kernel needs.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "cuda/runtime.h"
#include "cuda/stream.h"

namespace igb::bindings {

using Address = std::uintptr_t;  // of the device's memory, or of a stream

template <class T>
T* at_address(Address address) {
    return reinterpret_cast<T*>(address);
}

inline cuda::GpuStream stream_at(Address address) { return reinterpret_cast<cuda::GpuStream>(address); }

// For as long as it lives: the device is the thread's, and Python runs on.
class OnDevice {
public:
    explicit OnDevice(int device) : before_(cuda::use_device(device)) {}
    ~OnDevice() { cuda::restore_device(before_); }
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

private:
    const pybind11::gil_scoped_release released_;
    const int before_;
};

}  // namespace igb::bindings
