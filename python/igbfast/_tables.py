"""Tables for the terminal: theory beside simulation, the measured layers of a simulation, what was built."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .phases import PHASES
from .validation import JUDGED, LIMIT

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .ensemble import Ensemble
    from .fixed_points import FixedPoint
    from .validation import Validation

__all__ = [
    "configuration_table",
    "fixed_point_table",
    "network_words",
    "number",
    "phase_table",
    "simulation_table",
    "validation_table",
    "with_error",
]

_TWO_TABLES = 104  # columns that two quantities side by side take
_COLOURS = {"passed": "green", "failed": "bold red", "undecided": "yellow"}


def shown_layers(depth: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... up to the last layer."""
    layers = [step * 10**power for power in range(len(str(depth))) for step in (1, 2, 5)]
    return [layer for layer in layers if layer < depth] + [depth]


def number(value: float, digits: int = 5) -> str:
    """A number to so many significant digits, with an exponent only where that is shorter."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value == 0.0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{decimals}f}"
    return f"{value:.{digits - 2}e}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def with_error(value: float, error: float) -> str:
    """Value and standard error, the error to two digits: `0.72413 ± 0.00042`, `(7.10 ± 0.85)e29`."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return number(value)
    size = max(abs(value), abs(error))
    if error == 0.0 or error < 1e-7 * size:
        return f"{number(value)} ± {number(error, 2)}"
    exponent = 0 if 1e-3 <= size < 1e5 else math.floor(math.log10(size))
    scale = 10.0**exponent
    decimals = max(0, 1 - math.floor(math.log10(error / scale)))
    text = f"{value / scale:.{decimals}f} ± {error / scale:.{decimals}f}"
    return f"({text})e{exponent}" if exponent else text


def validation_table(validation: Validation, width: int) -> Iterable[RenderableType]:
    """Heading, tables as wide as fits, and the verdict."""
    attrs = validation.dataset.attrs
    yield Text(f"{_ensemble_words(attrs)}: theory against simulation", style="bold")
    yield Text(_run_words(attrs))
    side_by_side = 4 if width >= 200 else 2 if width >= _TWO_TABLES else 1
    for first in range(0, len(JUDGED), side_by_side):
        yield ""
        yield _comparison_table(validation.dataset, JUDGED[first : first + side_by_side])
    yield ""
    yield Text("expected: theory with the effect of the finite width, measured on narrower networks", style="dim")
    yield Text("z: simulation less expected, in standard errors", style="dim")
    yield Text(validation.sentence, style=_COLOURS[validation.verdict])


def simulation_table(dataset: xr.Dataset) -> Iterable[RenderableType]:
    """Measured layers: means over the networks with their errors, or the one network with its own."""
    from .simulation import network_mean

    several = dataset.sizes["network"] > 1
    mean = network_mean(dataset) if several else dataset.isel(network=0)
    shown = [*JUDGED, "gradient"] if "gradient" in mean else list(JUDGED)
    table = _table(["layer", *shown])
    for layer in shown_layers(dataset.sizes["layer"]):
        at = mean.sel(layer=layer)
        table.add_row(str(layer), *(with_error(float(at[name]), float(at[f"{name}_se"])) for name in shown))
    yield Text(f"{_ensemble_words(dataset.attrs)}: simulation", style="bold")
    yield Text(_run_words(dataset.attrs))
    yield ""
    yield table
    yield ""
    errors = "over independent networks" if several else "over the nodes of this one network alone"
    yield Text(f"± is one standard error {errors}.", style="dim")


def fixed_point_table(ens: Ensemble, point: FixedPoint) -> Iterable[RenderableType]:
    """Where one network ends: the phase, the numbers, and how it gets there in words."""
    attrs = {"activation": ens.activation, "sigma_w2": ens.sigma_w2, "sigma_b2": ens.sigma_b2, **ens.extras}
    yield Text(f"{_ensemble_words(attrs)}: limit of infinite depth", style="bold")
    yield Text(str(point))
    if len(point.all_q) > 1:
        each = (f"{number(at.q)} ({'stable' if at.stable else 'unstable'})" for at in point.all_q)
        yield Text(f"fixed points of q: {', '.join(each)}")


def phase_table(diagram: xr.Dataset) -> Iterable[RenderableType]:
    """The lines at some sigma_b2, and how much of the diagram each phase takes."""
    lines = {name: words for name, words in _LINES.items() if np.isfinite(diagram[name]).any()}
    table = _table(["sigma_b2", *lines.values()])
    for index in _spread(diagram.sizes["sigma_b2"], 9):
        at = diagram.isel(sigma_b2=index)
        values = (float(at[name]) for name in lines)
        cells = ["none" if math.isnan(value) else number(value, 10) for value in values]
        table.add_row(number(float(at["sigma_b2"])), *cells)
    yield Text(f"{network_words(diagram.attrs)}: phase diagram", style="bold")
    yield Text(" x ".join(f"{_range_words(diagram[name])}" for name in ("sigma_w2", "sigma_b2")))
    yield ""
    yield table if lines else Text("No edge of chaos and no neutrality line.")
    yield ""
    phase = diagram["phase"]
    for code, name in enumerate(PHASES):
        share = float((phase == code).mean())
        if share > 0.0:
            yield Text(f"{100.0 * share:5.1f} %  {name}")


_LINES = {
    "edge_of_chaos": "edge of chaos",
    "edge_of_chaos_variance": "stable variance",
    "neutrality_line": "neutrality line",
}


def _spread(count: int, most: int) -> list[int]:
    """Indices of at most so many of `count` entries, evenly spread, with the first and the last."""
    shown = min(count, most)
    return sorted({round(i * (count - 1) / max(1, shown - 1)) for i in range(shown)})


def _range_words(values: xr.DataArray) -> str:
    low, high = number(float(values.min())), number(float(values.max()))
    return (
        f"{values.name} = {low}" if values.size == 1 else f"{values.name} from {low} to {high} ({values.size} values)"
    )


def configuration_table(entries: Mapping[str, object]) -> Table:
    """Two columns: what, and what was found."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in entries.items():
        table.add_row(name, _words(value))
    return table


def _comparison_table(dataset: xr.Dataset, names: Sequence[str]) -> Table:
    columns = ("theory", "expected", "simulation", "z")
    headings = [f"{name if column == 'theory' else ''}\n{column}" for name in names for column in columns]
    table = _table(["\nlayer", *headings])
    for layer in shown_layers(dataset.sizes["layer"]):
        at = dataset.sel(layer=layer)
        cells: list[str | Text] = [str(layer)]
        for name in names:
            z = float(at[f"{name}_z"])
            style = "bold red" if abs(z) > LIMIT else "yellow" if math.isnan(z) else ""
            theory, shift = float(at[f"{name}_theory"]), float(at[f"{name}_shift"])
            cells += [number(theory), number(theory + shift)]
            cells.append(with_error(float(at[name]), float(at[f"{name}_se"])))
            cells.append(Text(f"{z:+.1f}" if math.isfinite(z) else "nan", style=style))
        table.add_row(*cells)
    return table


def _table(headings: Iterable[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1), header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _ensemble_words(attrs: Mapping[str, object]) -> str:
    return f"{network_words(attrs)}, sigma_w2 = {attrs['sigma_w2']:g}, sigma_b2 = {attrs['sigma_b2']:g}"


def network_words(attrs: Mapping[str, object]) -> str:
    """The activation, and what makes the network more than a plain one."""
    words = [str(attrs["activation"])]
    if "pool" in attrs:
        words.append(str(attrs["pool"]))
    if "residual" in attrs:
        words.append(f"residual = {attrs['residual']:g}")
    if attrs.get("layernorm"):
        words.append("LayerNorm")
    if attrs.get("weights", "gaussian") != "gaussian":
        words.append(f"{attrs['weights']} weights")
    return ", ".join(words)


def _run_words(attrs: Mapping[str, object]) -> str:
    networks = "1 network" if attrs["networks"] == 1 else f"{attrs['networks']:,} networks"
    size = f"width {attrs['width']:,}, depth {attrs['depth']:,}, {attrs['inputs']:,} inputs"
    return f"{networks} of {size} ({attrs['method']}, {attrs['dtype']})"


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return str(value)
