"""Random neural networks at initialisation: mean-field theory at infinite width, exact simulation at finite width.

Does the signal and its gradient survive depth, and which class does the network favour before it has seen data?

>>> import igbfast as igb
>>> ens = igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
>>> theory = igb.propagate(ens, depth=10)
>>> measured = igb.simulate(ens, width=500, depth=10, inputs=20)
>>> measured.gamma.sizes["layer"] == theory.gamma.sizes["layer"]
True
"""

from . import activations, guessing
from ._core import config as _config
from .activations import Activation
from .config import get_num_threads, set_num_threads, show_config
from .ensemble import Ensemble
from .meanfield import FixedPoint, fixed_point, moments, propagate
from .simulation import network_mean, simulate
from .validation import Validation, validate

__all__ = [
    "Activation",
    "Ensemble",
    "FixedPoint",
    "Validation",
    "activations",
    "fixed_point",
    "get_num_threads",
    "guessing",
    "moments",
    "network_mean",
    "propagate",
    "set_num_threads",
    "show_config",
    "simulate",
    "validate",
]

__version__: str = _config()["version"]
