"""Experiments: what the theory says of training, shown by networks. Each is one command, `igbfast experiment NAME`.

`EXPERIMENTS` has them by name. Each is a module with `run(**options)`, which returns an `xarray.Dataset` whose
attributes hold all settings, `figure(dataset)` and `verdict(dataset)`. By default they take minutes on two cores; their
`paper` options are sizes for a GPU.

>>> from igbfast.torch import experiments
>>> list(experiments.EXPERIMENTS)
['training', 'gradients', 'class_gradients', 'scaled', 'normalisation', 'short_runs']
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from . import class_gradients, gradients, normalisation, scaled, short_runs, training
from ._experiment import Experiment

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "class_gradients",
    "gradients",
    "normalisation",
    "scaled",
    "short_runs",
    "training",
]

_HELP = {
    "training": (training, "training from an ordered, a critical, a chaotic and a neutral start: who learns fastest"),
    "gradients": (gradients, "gradients of untrained MLPs, residual MLPs, CNNs and ViTs over sigma_w2, and theory"),
    "class_gradients": (class_gradients, "gradients by class in chaotic deep prejudice: the favoured one has none"),
    "scaled": (scaled, "a trained model's weights times 0.5, 1 and 1.5: its bias, and its learning of another task"),
    "normalisation": (normalisation, "how LayerNorm, BatchNorm and skips blur the phases"),
    "short_runs": (short_runs, "the share of runs in which some class is never predicted, by number of steps"),
}


def _experiment(module: Any, words: str) -> Experiment:
    return Experiment(module.run, module.figure, module.verdict, words, MappingProxyType(module.PAPER))


EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {name: _experiment(module, words) for name, (module, words) in _HELP.items()}
)
"""All of them, by the name that the command takes."""
