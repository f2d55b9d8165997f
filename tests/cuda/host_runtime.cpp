// The host's side of cuda/runtime.h, where kernels run on the host: one device, whose memory is this machine's.
#include "cuda/runtime.h"

namespace igb::cuda {

int use_device(int) { return 0; }
void restore_device(int) noexcept {}

RuntimeStatus runtime_status() { return {0, 0, 1, "", ""}; }

std::vector<int> built_architectures() { return {}; }

DeviceProperties device_properties(int) { return {"kernels run on the host", 0}; }

// As much as a small GPU has, so that tests meet batches and slabs.
DeviceMemory device_memory(int) { return {std::int64_t{4} << 30, std::int64_t{4} << 30}; }

}  // namespace igb::cuda
