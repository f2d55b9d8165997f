"""PyTorch models: diagnosed, initialised where they train, trained, with the same words as the theory.

>>> import torch
>>> import igbfast.torch as igt
>>> model = torch.nn.Sequential(*[layer for _ in range(20) for layer in (torch.nn.Linear(64, 64), torch.nn.Tanh())])
>>> inputs = torch.randn(100, 64, generator=torch.Generator().manual_seed(0))
>>> igt.diagnose(model, inputs).phase
'ordered'
>>> report = igt.init_(model)
>>> igt.diagnose(model, inputs).phase
'edge of chaos'
"""

from __future__ import annotations

from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _find_spec("torch") is None:
    raise ImportError("igbfast.torch needs PyTorch: pip install 'igbfast[torch]'")

if _TYPE_CHECKING:
    from . import data, experiments, plot
    from .activation import Phi
    from .data import Data
    from .diagnosis import Diagnosis, NotTrainableError, diagnose
    from .initialisation import InitReport, init_, scale_
    from .models import CNN, MLP, MLPMixer, ViT, draw_, timm_model
    from .specification import Spec, read_spec, run_spec
    from .training import Training, select_initial, train

# Where each name lies: a module is imported when one of its names is first asked for.
_PLACES = {
    "CNN": "models",
    "Data": "data",
    "Diagnosis": "diagnosis",
    "InitReport": "initialisation",
    "MLP": "models",
    "MLPMixer": "models",
    "NotTrainableError": "diagnosis",
    "Phi": "activation",
    "Spec": "specification",
    "Training": "training",
    "ViT": "models",
    "diagnose": "diagnosis",
    "draw_": "models",
    "init_": "initialisation",
    "read_spec": "specification",
    "run_spec": "specification",
    "scale_": "initialisation",
    "select_initial": "training",
    "timm_model": "models",
    "train": "training",
}

__all__ = [
    "CNN",
    "MLP",
    "Data",
    "Diagnosis",
    "InitReport",
    "MLPMixer",
    "NotTrainableError",
    "Phi",
    "Spec",
    "Training",
    "ViT",
    "data",
    "diagnose",
    "draw_",
    "experiments",
    "init_",
    "plot",
    "read_spec",
    "run_spec",
    "scale_",
    "select_initial",
    "timm_model",
    "train",
]


def __getattr__(name: str) -> _Any:
    if name in ("data", "experiments", "plot"):
        return _import_module(f".{name}", __name__)
    if name in _PLACES:
        return getattr(_import_module(f".{_PLACES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
