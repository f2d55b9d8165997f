// Calls of the CUDA runtime, each checked. No kernel is here.
#include "cuda/runtime.h"

#include <dlfcn.h>

#include "cuda/launch.h"

namespace igb::cuda {

namespace {

// The driver is asked itself: to the runtime, one that is some versions too old is no driver at all.
int driver_version() {
    static void* const driver = dlopen("libcuda.so.1", RTLD_LAZY);
    if (!driver) return 0;
    const auto ask = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDriverGetVersion"));
    int version = 0;
    return ask && ask(&version) == 0 ? version : 0;
}

}  // namespace

int use_device(int device) {
    int before = 0;
    check(cudaGetDevice(&before), "asking for the device in use");
    check(cudaSetDevice(device), "the choice of a device");
    return before;
}

void restore_device(int device) noexcept {
    if (cudaSetDevice(device) != cudaSuccess) static_cast<void>(cudaGetLastError());  // not for the next launch to find
}

RuntimeStatus runtime_status() {
    RuntimeStatus status{CUDART_VERSION, driver_version(), 0, "", ""};
    const cudaError_t error = cudaGetDeviceCount(&status.devices);
    if (error != cudaSuccess) {
        static_cast<void>(cudaGetLastError());  // which would be found by the next launch
        status.devices = 0;
        status.problem = cudaGetErrorName(error);
        status.explanation = cudaGetErrorString(error);
    }
    return status;
}

std::vector<int> built_architectures() {
    std::vector<int> found{__CUDA_ARCH_LIST__};
    for (int& architecture : found) architecture /= 10;
    return found;
}

DeviceProperties device_properties(int device) {
    cudaDeviceProp found{};
    check(cudaGetDeviceProperties(&found, device), "asking for the properties of a device");
    return {found.name, 10 * found.major + found.minor};
}

DeviceMemory device_memory(int device) {
    const int before = use_device(device);
    std::size_t free = 0, total = 0;
    const cudaError_t error = cudaMemGetInfo(&free, &total);
    restore_device(before);
    check(error, "asking for the memory of a device");
    return {static_cast<std::int64_t>(free), static_cast<std::int64_t>(total)};
}

}  // namespace igb::cuda
