// The compiled module igbfast._core: a table of contents.
#include "bindings/register.h"

PYBIND11_MODULE(_core, m) {
    m.doc() = "The compiled half of igbfast: it checks, computes and releases the GIL; the Python half explains.";
    igb::bindings::register_config(m);
    igb::bindings::register_sampling(m);
    igb::bindings::register_meanfield(m);
    igb::bindings::register_kernel(m);
    igb::bindings::register_simulation(m);
    igb::bindings::register_layers(m);
}
