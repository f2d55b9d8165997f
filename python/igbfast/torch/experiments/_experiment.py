"""What an experiment is, and how its runs are put together into one dataset."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import xarray as xr

from ... import __version__, _checks
from ..._progress import progress_bar
from ..training import Training, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EVALUATED", "Experiment", "attributes", "generator", "measured", "numbers", "seeds_of", "trained"]


@dataclass(frozen=True)
class Experiment:
    """One question to networks, with its answer as numbers, as a figure, and in words."""

    run: Callable[..., xr.Dataset]
    """Takes options by name, returns what was measured; the dataset's attributes hold all settings."""
    figure: Callable[[xr.Dataset], Figure]
    """Draws what `run` returned."""
    verdict: Callable[[xr.Dataset], str]
    """What it shows, in a sentence or two that are computed from the data."""
    help: str
    """One line of what is asked."""
    paper: Mapping[str, Any]
    """Options of a run with the published experiments' data, which lie in a folder, at sizes for a GPU."""

    @property
    def defaults(self) -> dict[str, Any]:
        """Every option of `run` with its default, but for `progress`."""
        options = inspect.signature(self.run).parameters.values()
        return {option.name: option.default for option in options if option.name != "progress"}


def seeds_of(seeds: int, seed: int) -> list[int]:
    """`seeds` numbers, from `seed` on."""
    return list(range(_checks.integer("seed", seed, 0), seed + _checks.integer("seeds", seeds, 1)))


def generator(seed: int, stream: int = 0) -> Any:
    """Random numbers of their own for each seed, and for each stream of a seed."""
    return torch.Generator().manual_seed(1_000_003 * stream + seed)


def numbers(name: str, values: Sequence[float] | float) -> tuple[float, ...]:
    """Positive numbers, each once and in order, of which there is at least one: a single one stands for itself."""
    given = (values,) if isinstance(values, (int, float, str)) else tuple(values)
    if not given:
        raise ValueError(f"{name} must be at least one number, got none")
    return tuple(sorted({_checks.positive_finite(name, value) for value in given}))


EVALUATED = 500
"""Inputs, at most, that a training's log is about."""


def trained(model: Any, data: Any, keep: Sequence[str], **options: Any) -> tuple[xr.Dataset, Training]:
    """The variables to keep of one training, and the training; one that explodes has nan from there on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the loss is not finite", category=RuntimeWarning)
        how: dict[str, Any] = {"log_every": "log", "evaluate_inputs": EVALUATED, "progress": False} | options
        run = train(model, data, **how)
    return run.dataset[list(keep)], run


def measured(
    measure: Callable[..., xr.Dataset], over: Mapping[str, Sequence[Any]], progress: bool | None
) -> xr.Dataset:
    """measure(*point) at every point of a grid, put together along dimensions with the names of its axes."""
    points = list(itertools.product(*over.values()))
    with progress_bar("experiment", progress) as show:
        parts = []
        for done, point in enumerate(points):
            show(done / len(points))
            parts.append(measure(*point))
    for name, values in reversed(list(over.items())):  # the last axis is the one that runs fastest
        rows = [parts[i : i + len(values)] for i in range(0, len(parts), len(values))]
        along = xr.Variable(name, list(values))
        parts = [xr.concat(row, along, join="exact", combine_attrs="drop") for row in rows]
    return parts[0]


def attributes(experiment: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a dataset keeps them, and as a file can."""
    kept = {
        name: value if isinstance(value, (int, float, str)) and not isinstance(value, bool) else str(value)
        for name, value in options.items()
        if name != "progress"
    }
    return {"experiment": experiment, "igbfast": __version__, "torch": str(torch.__version__)} | kept
