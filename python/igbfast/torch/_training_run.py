"""A run of training on its way: the model, its optimizer, the batches to come, and the log so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from .. import __version__, _checks
from . import _checkpoint
from ._batches import unwrapped
from ._evaluation import Examples, evaluated, modes_kept, outputs_of, random_states, set_random_states
from .data import Data
from .diagnosis import diagnose

__all__ = ["LOGGED", "Run", "Settings", "steps_to_log"]

OPTIMIZERS = ("sgd", "adam")
"""By name; anything else is a function of the parameters."""

MAX_SEED = 2**63 - 1

# Variable -> (dimensions beside the step, long name).
LOGGED = {
    "loss": ((), "cross-entropy on the training set"),
    "accuracy": ((), "share of the training set given to its own class"),
    "test_loss": ((), "cross-entropy on the test set"),
    "test_accuracy": ((), "share of the test set given to its own class"),
    "class_fraction": (("class",), "share of the training set given to each class"),
    "test_class_fraction": (("class",), "share of the test set given to each class"),
    "loss_class": (("class",), "cross-entropy of the training inputs of each true class"),
    "accuracy_class": (("class",), "share of the training inputs of each true class that is given to it"),
    "gradient_class": (
        ("class",),
        "mean square of d loss(input) / d y(input) over the units of the first layer and the inputs of each true class",
    ),
    "learning_rate": ((), "learning rate of the next step"),
}

_Values = dict[str, NDArray[np.float64]]


def steps_to_log(steps: int, log_every: int | str) -> list[int]:
    """The steps of the log: 0, every so many or ever fewer, and the last one."""
    if log_every == "log":
        inner = {*range(11), *(round(10.0 ** (k / 15)) for k in range(15, 15 * len(str(steps))))}
    else:
        inner = set(range(0, steps, int(log_every)))
    return sorted({step for step in inner if step < steps} | {0, steps})


@dataclass(frozen=True)
class Settings:
    """What makes a run what it is, besides the model and the data; all but `steps` must be the same to go on."""

    steps: int
    optimizer: str
    lr: float
    batch: int
    momentum: float
    weight_decay: float
    seed: int
    log_every: int | str
    evaluate_inputs: int | None
    measure_at: tuple[int, ...]
    measure_inputs: int
    gradients: bool

    @classmethod
    def checked(cls, data: Data, *, steps: Any, epochs: Any, optimizer: Any, log_every: Any, **given: Any) -> Settings:
        if not callable(optimizer):
            optimizer = _checks.choice("optimizer", optimizer, OPTIMIZERS)
        name = (
            optimizer if isinstance(optimizer, str) else str(getattr(optimizer, "__name__", type(optimizer).__name__))
        )
        momentum = _checks.non_negative_finite("momentum", given["momentum"])
        if momentum >= 1.0 or (momentum and optimizer == "adam"):
            allowed = "0 for adam, which has its own" if optimizer == "adam" else "a number from 0 to below 1"
            raise ValueError(f"momentum must be {allowed}, got {_checks.shown(given['momentum'])}")
        batch = min(_checks.integer("batch", given["batch"], 1), len(data))
        steps = _checked_steps(steps, epochs, len(data) // batch)
        if log_every != "log":
            log_every = _checks.integer('log_every, if not "log",', log_every, 1)
        if not isinstance(given["measure_at"], Iterable):
            raise TypeError(f"measure_at must be a sequence of steps, got {_checks.shown(given['measure_at'])}")
        limit = given["evaluate_inputs"]
        return cls(
            steps,
            name,
            _checks.non_negative_finite("lr", given["lr"]),
            batch,
            momentum,
            _checks.non_negative_finite("weight_decay", given["weight_decay"]),
            _checks.integer("seed", given["seed"], 0, MAX_SEED),
            log_every,
            None if limit is None else _checks.integer("evaluate_inputs", limit, 1),
            tuple(sorted({_checks.integer("measure_at", step, 0, steps) for step in given["measure_at"]})),
            _checks.integer("measure_inputs", given["measure_inputs"], 2),
            _checks.flag("gradients", given["gradients"]),
        )


class _Batches:
    """Indices of the inputs of one batch after the other: a new permutation each epoch, cut into equal parts."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self._count, self._batch = count, batch
        self._generator = torch.Generator().manual_seed(seed)
        self._left = torch.empty(0, dtype=torch.int64)

    def next(self) -> Any:
        if len(self._left) < self._batch:
            self._left = torch.randperm(self._count, generator=self._generator)
        batch, self._left = self._left[: self._batch], self._left[self._batch :]
        return batch

    @property
    def state(self) -> dict[str, Any]:
        return {"generator": self._generator.get_state(), "left": self._left.clone()}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["generator"])
        self._left = state["left"]


class Run:
    """A run of training on its way: the model, its optimizer, the batches to come and the log so far."""

    def __init__(self, model: torch.nn.Module, data: Data, settings: Settings, optimizer: Any) -> None:
        self._model, self._inner, self._settings = model, unwrapped(model), settings
        self._data = data
        self._train = Examples(data.inputs, data.labels)
        self._shown = self._train.some(settings.evaluate_inputs)
        self._tested = Examples(data.test_inputs, data.test_labels).some(settings.evaluate_inputs)
        self._batches = _Batches(len(data), settings.batch, settings.seed)
        self._optimizer = _made_optimizer(optimizer, settings, self._inner)
        self._steps_to_log = set(steps_to_log(settings.steps, settings.log_every))
        self._entries: dict[int, _Values] = {}
        self._gammas: dict[int, NDArray[np.float64]] = {}
        self._layers: list[str] = []
        self.step, self.stopped_at = 0, -1

    @property
    def finished(self) -> bool:
        return self.step == self._settings.steps or self.stopped_at >= 0

    def take_step(self) -> None:
        """One step of the optimizer on one batch; none if the loss is not finite."""
        batch = self._train.take(self._batches.next()).on(self._inner)
        self._optimizer.zero_grad()
        outputs = outputs_of(self._model, batch.inputs, self._data.classes)
        loss = torch.nn.functional.cross_entropy(outputs, batch.labels)
        if not bool(torch.isfinite(loss)):
            self.stopped_at = self.step
            return
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1

    def log(self) -> None:
        """Evaluates and measures if it is time to; a loss that is not finite ends the run."""
        if self.stopped_at >= 0:
            return
        if self.step in self._steps_to_log and self.step not in self._entries:
            record = evaluated(
                self._inner, self._shown, self._data.classes, gradients=self._settings.gradients
            ).record()
            if len(self._tested):
                tested = evaluated(self._inner, self._tested, self._data.classes).record()
                record |= {f"test_{name}": tested[name] for name in ("loss", "accuracy", "class_fraction")}
            record["learning_rate"] = self._optimizer.param_groups[0]["lr"]
            self._entries[self.step] = {name: np.asarray(value, np.float64) for name, value in record.items()}
            if not np.isfinite(record["loss"]):
                self.stopped_at = self.step
                return
        if self.step in self._settings.measure_at and self.step not in self._gammas:
            some = self._shown.take(slice(self._settings.measure_inputs))
            self._layers, self._gammas[self.step] = _measured(self._inner, some.inputs, some.labels)

    def save(self, target: Path) -> None:
        """The checkpoint; what it is of stands beside what it takes to go on."""
        _checkpoint.write(
            target,
            {
                "run": self._identity(),
                "step": self.step,
                "stopped_at": self.stopped_at,
                "model": self._inner.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "batches": self._batches.state,
                "random": random_states(self._inner),
                "layers": self._layers,
                "entries": {step: _tensors(entry) for step, entry in self._entries.items()},
                "gammas": _tensors(self._gammas),
            },
        )

    def go_on_from(self, path: Path) -> None:
        """Takes up what `save` has left; ValueError if that was another run."""
        saved = _checkpoint.read(path)
        _checkpoint.require_same(path, saved["run"], self._identity())
        if saved["step"] > self._settings.steps:
            raise ValueError(
                f"steps must be at least {saved['step']}, where the checkpoint {str(path)!r} is, got "
                f"{self._settings.steps}"
            )
        self._inner.load_state_dict(saved["model"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self._batches.state = saved["batches"]
        set_random_states(self._inner, saved["random"])
        self._layers = saved["layers"]
        self._entries = {step: _arrays(entry) for step, entry in saved["entries"].items()}
        self._gammas = _arrays(saved["gammas"])
        self.step, self.stopped_at = saved["step"], saved["stopped_at"]

    def dataset(self) -> xr.Dataset:
        """The log, nan where training has stopped before."""
        settings, classes = self._settings, self._data.classes
        grid = steps_to_log(settings.steps, settings.log_every)
        names = [name for name in LOGGED if name in self._entries[0]]
        share = torch.bincount(self._shown.labels, minlength=classes).cpu().numpy() / len(self._shown)
        variables: dict[str, Any] = {"class_share": ("class", share, {"long_name": "true share of each class"})}
        for name in names:
            dims, long_name = LOGGED[name]
            blank = np.full_like(self._entries[0][name], np.nan)
            values = np.stack([self._entries.get(step, {}).get(name, blank) for step in grid])
            variables[name] = (("step", *dims), values, {"long_name": long_name, "units": "1"})
        coordinates: dict[str, Any] = {"step": grid, "class": np.arange(classes)}
        if self._gammas:
            blank = np.full(len(self._layers), np.nan)
            values = np.stack([self._gammas.get(step, blank) for step in settings.measure_at])
            described = {"long_name": "bias strength", "units": "1"}
            variables["gamma"] = (("measured_step", "layer"), values, described)
            coordinates |= {
                "measured_step": list(settings.measure_at),
                "layer": np.arange(1, len(self._layers) + 1),
                "name": ("layer", self._layers),
            }
        return xr.Dataset(variables, coordinates, self._attributes())

    def _identity(self) -> dict[str, Any]:
        """All that must be the same for a run to go on, as numbers and texts."""
        settings = asdict(self._settings)
        del settings["steps"]
        settings["measure_at"] = list(self._settings.measure_at)
        hyper = {
            name: value for name, value in self._optimizer.defaults.items() if isinstance(value, (int, float, str))
        }
        data = self._data
        contents = [
            _checkpoint.fingerprint(part) for part in (data.inputs, data.labels, data.test_inputs, data.test_labels)
        ]
        return {
            **_checkpoint.described(self._inner),
            "data": f"{data!r}, checksums {contents}",
            **settings,
            "optimizer's settings": str(hyper),
        }

    def _attributes(self) -> dict[str, Any]:
        settings = self._settings
        model = self._inner
        return {
            "model": type(model).__name__,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "data": self._data.name,
            "inputs": len(self._data),
            "evaluated": len(self._shown),
            "steps": settings.steps,
            "stopped_at": self.stopped_at,
            "optimizer": settings.optimizer,
            "lr": self._optimizer.param_groups[0]["lr"],
            "batch": settings.batch,
            "momentum": settings.momentum,
            "weight_decay": settings.weight_decay,
            "seed": settings.seed,
            "igbfast_version": __version__,
            "torch_version": str(torch.__version__),
        }


def _measured(model: torch.nn.Module, inputs: Any, labels: Any) -> tuple[list[str], NDArray[np.float64]]:
    """Names and gamma of the layers in evaluation mode."""
    with modes_kept(model):
        model.eval()
        gamma = diagnose(model, inputs, labels).dataset["gamma"]
    return [str(name) for name in gamma["name"].values], gamma.values.astype(np.float64)


def _made_optimizer(optimizer: Any, settings: Settings, model: torch.nn.Module) -> Any:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
    if optimizer == "adam":
        return torch.optim.Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    made = optimizer(parameters)
    if not isinstance(made, torch.optim.Optimizer):
        raise TypeError(f"optimizer must return a torch.optim.Optimizer, got {_checks.shown(made)}")
    return made


def _checked_steps(steps: Any, epochs: Any, per_epoch: int) -> int:
    if (steps is None) == (epochs is None):
        raise ValueError(f"steps or epochs must be given, and not both, got steps={steps!r} and epochs={epochs!r}")
    if steps is not None:
        return _checks.integer("steps", steps, 0)
    return _checks.integer("epochs", epochs, 0) * per_epoch


def _tensors(arrays: Any) -> dict[Any, Any]:
    return {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}


def _arrays(tensors: Any) -> dict[Any, Any]:
    return {key: tensor.numpy() for key, tensor in tensors.items()}
