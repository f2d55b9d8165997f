// Long calls that stay answerable, and the checks that come before them.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <stdexcept>
#include <utility>

#include "cpu/monitor.h"

namespace igb::bindings {

inline void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

// Runs work(monitor) without the GIL, but looks at signals, and tells the callback (or None) of the progress, ten times
// a second; raises what either of them raised.
template <class Work>
void run_watched(const pybind11::object& callback, Work&& work) {
    std::optional<pybind11::error_already_set> raised;
    Monitor monitor([&](double fraction) {
        const pybind11::gil_scoped_acquire gil;
        try {
            if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
            if (!callback.is_none()) callback(fraction);
            return true;
        } catch (pybind11::error_already_set& error) {
            raised.emplace(std::move(error));
            return false;
        }
    });
    {
        const pybind11::gil_scoped_release nogil;
        work(monitor);
    }
    if (raised) throw std::move(*raised);
}

}  // namespace igb::bindings
