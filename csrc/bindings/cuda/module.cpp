// The kernels as a Python module: igbfast._cuda, or, of the same sources run on the host, _cuda_host.
#include "bindings/cuda/register.h"

PYBIND11_MODULE(IGB_CUDA_MODULE, m) {
    m.doc() = "The kernels of igbfast; the Python modules of igbfast.gpu check what they are given.";
    igb::bindings::register_runtime(m);
    igb::bindings::register_sampling(m);
    igb::bindings::register_layer(m);
    igb::bindings::register_gram(m);
    igb::bindings::register_theory(m);
    igb::bindings::register_covariance(m);
}
