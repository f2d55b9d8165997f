"""The table of a training in the terminal: some steps of its log, from the first to the last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from .._tables import _table, number

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .training import Training

__all__ = ["training_table"]

_ROWS = 12


def training_table(run: Training) -> Iterable[RenderableType]:
    """Heading, the logged steps that are nearest to evenly spread in the logarithm, and what happened, in words."""
    dataset, attrs = run.dataset, run.dataset.attrs
    tested, gradients = "test_accuracy" in dataset, "gradient_class" in dataset
    table = _table(
        ["\nstep", "\nloss", "\naccuracy", *(["test\naccuracy"] if tested else []), "largest\nclass", "its\nshare"]
        + (["gradients,\nleast class", "\nlargest class"] if gradients else [])
    )
    for index in _spread_in_the_logarithm(dataset["step"].values):
        at = dataset.isel(step=index)
        fractions = at["class_fraction"].values
        alive = np.isfinite(fractions).all()
        cells = [f"{int(at['step']):,}", number(float(at["loss"])), _percent(float(at["accuracy"]))]
        cells += [_percent(float(at["test_accuracy"]))] if tested else []
        cells += [str(int(fractions.argmax())) if alive else "", _percent(float(fractions.max()))]
        if gradients:
            squares = at["gradient_class"].values[dataset["class_share"].values > 0]
            cells += [number(float(squares.min()), 3), number(float(squares.max()), 3)]
        table.add_row(*cells)
    yield Text(
        f"{attrs['model']} ({attrs['parameters']:,} parameters) on {attrs['data']}: {attrs['optimizer']}, lr "
        f"{attrs['lr']:g}, batches of {attrs['batch']}",
        style="bold",
    )
    yield ""
    yield table
    yield ""
    yield Text(run.sentence, style="yellow" if attrs["stopped_at"] >= 0 else "green")


def _percent(share: float) -> str:
    return "nan" if np.isnan(share) else f"{100.0 * share:.1f} %"


def _spread_in_the_logarithm(steps: NDArray[np.int64]) -> list[int]:
    """Indices of at most so many steps, the first and the last among them."""
    if len(steps) <= _ROWS:
        return list(range(len(steps)))
    wanted = np.geomspace(1.0, steps[-1] + 1.0, _ROWS) - 1.0
    return sorted({int(np.abs(steps - step).argmin()) for step in wanted})
