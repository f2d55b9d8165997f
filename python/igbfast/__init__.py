"""Random neural networks at initialisation: mean-field theory at infinite width, exact simulation at finite width.

Does the signal and its gradient survive depth, and which class does the network favour before it has seen data?

>>> import igbfast as igb
>>> ens = igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
>>> theory = igb.propagate(ens, depth=10)
>>> measured = igb.simulate(ens, width=500, depth=10, inputs=20)
>>> measured.gamma.sizes["layer"] == theory.gamma.sizes["layer"]
True
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import activations, distributions, guessing, phases
from ._core import config as _config
from .activations import Activation
from .config import get_num_threads, set_num_threads, show_config
from .ensemble import Ensemble
from .finite_width import finite_width
from .fixed_points import FixedPoint, fixed_point
from .kernel import kernel
from .meanfield import mean_activation, moments, propagate
from .phases import edge_of_chaos, neutrality_line, phase_diagram
from .pools import AvgPool, MaxPool, MinPool
from .simulation import network_mean, simulate
from .validation import Validation, validate

if _TYPE_CHECKING:
    from types import ModuleType as _ModuleType

    from . import plot

__all__ = [
    "Activation",
    "AvgPool",
    "Ensemble",
    "FixedPoint",
    "MaxPool",
    "MinPool",
    "Validation",
    "activations",
    "distributions",
    "edge_of_chaos",
    "finite_width",
    "fixed_point",
    "get_num_threads",
    "guessing",
    "kernel",
    "mean_activation",
    "moments",
    "network_mean",
    "neutrality_line",
    "phase_diagram",
    "phases",
    "plot",
    "propagate",
    "set_num_threads",
    "show_config",
    "simulate",
    "validate",
]

__version__: str = _config()["version"]


def __getattr__(name: str) -> _ModuleType:
    """`igbfast.plot` is imported when it is first asked for."""
    if name == "plot":
        return _import_module(".plot", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
