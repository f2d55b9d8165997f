"""What an initialisation did, layer by layer, and what it could not do."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .._report import Report
from .._tables import number

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType, RenderResult

__all__ = ["InitReport", "InitRow"]

_MOST_LINES = 24  # of a table with one line for each layer; more layers are grouped
_COLOURS = {"set": "", "assumed": "yellow", "could not": "bold red"}
_REST = "its layer did not run as a product with the inputs"


@dataclass(frozen=True)
class InitRow:
    """One layer."""

    layer: int
    """Its number, counted from 1 in order of execution."""
    name: str
    """Of the module whose weights it uses."""
    kind: str
    """linear, conv or product."""
    status: str
    """set; assumed (set, but what lies before it is not fully known); or could not."""
    source: str
    """Where its signal comes from: input, layer, normalisation, attention, sum or other."""
    activation: str
    """The function before it; "unknown" where it could not be told."""
    pool: str
    """The pool before it; empty without."""
    weights: str
    """How they were drawn, or of which layer they are."""
    fan_in: int
    """Numbers that one node adds up."""
    sigma_w2: float
    """Variance of the weights times the fan-in (less what lies in a convolution's zero padding); nan where not set."""
    sigma_b2: float
    """Variance of the biases; nan where not set."""
    rule: str
    """Where sigma_w2 comes from."""
    q: float
    """Mean square of its output: measured if inputs were given, else by theory."""
    factor: float
    """What measurement multiplied the drawn weights by; 1 without."""
    gradient_before: float
    """Squared gradients, summed over its nodes, of the model as it came; nan where not measured."""
    gradient: float
    """The same, of the model as it is now."""
    note: str
    """What was assumed, or why it could not be set."""


@dataclass(frozen=True)
class InitReport(Report):
    """What `init_` did. Print it for the table."""

    model: str
    """Class of the model."""
    rows: tuple[InitRow, ...]
    """One for each layer, in order of execution."""
    left: tuple[tuple[str, str], ...]
    """Parameters that belong to no layer, which stay as they are: name and reason."""
    notes: tuple[str, ...]
    """What concerns the model as a whole."""
    weights: str
    """gaussian or orthogonal."""
    kind: str
    """What shall be stable: gradient or variance."""
    measured: bool
    """Whether inputs were given, so that everything was measured and corrected."""
    branches: int
    """Number of residual branches."""
    dry_run: bool
    """Whether the model was left as it was."""

    @property
    def missing(self) -> tuple[str, ...]:
        """What was not set, or only on an assumption, each with its reason; empty if all is well."""
        rows = [f"layer {r.layer} ({r.name}): {r.status}: {r.note}" for r in self.rows if r.status != "set"]
        return (*rows, *(f"{name}: {why}" for name, why in self.left if why == _REST))

    def assert_complete(self) -> None:
        """Raise an AssertionError that lists what was not set, or only on an assumption, if there is such a thing.

        Examples
        --------
        >>> import torch
        >>> from igbfast.torch import init_
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> init_(model).assert_complete()
        >>> _ = model[0].weight.requires_grad_(False)
        >>> init_(model).assert_complete()
        Traceback (most recent call last):
        ...
        AssertionError: 1 of 2 layers of Sequential is not known to be critical:
        layer 1 (0): could not: frozen: its requires_grad is False
        """
        if self.missing:
            rows = sum(row.status != "set" for row in self.rows)
            verb = "is" if rows == 1 else "are"
            raise AssertionError(
                f"{rows} of {len(self.rows)} layers of {self.model} {verb} not known to be critical:\n"
                + "\n".join(self.missing)
            )

    @property
    def gradient_ratio(self) -> float:
        """Squared gradients of the first layer over those of the last but one; nan if not measured."""
        return _ratio([row.gradient for row in self.rows])

    @property
    def gradient_ratio_before(self) -> float:
        """The same, of the model as it came."""
        return _ratio([row.gradient_before for row in self.rows])

    @property
    def sentence(self) -> str:
        """What was done in words."""
        done, layers = sum(row.status != "could not" for row in self.rows), len(self.rows)
        what = f"{done} of {layers} layer{'s' * (layers != 1)} {'would be set' if self.dry_run else 'set'}"
        unseen = sum(why == _REST for _, why in self.left)
        if unseen:
            what += f" (not {unseen} {'matrix' if unseen == 1 else 'matrices'} in which no layer is seen)"
        return f"{what}, {self.weights} weights, stable {'gradients' if self.kind == 'gradient' else 'variance'}"

    def __repr__(self) -> str:
        return f"<InitReport of {self.model}: {self.sentence}>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(f"{self.model}: {self.sentence}", style="bold")
        yield ""
        yield _table(self)
        yield from _remarks(self)


def _ratio(gradients: Sequence[float]) -> float:
    hidden = gradients[:-1]
    return hidden[0] / hidden[-1] if len(hidden) > 1 and hidden[-1] > 0.0 else math.nan


def _table(report: InitReport) -> Table:
    groups = [[row] for row in report.rows] if len(report.rows) <= _MOST_LINES else _alike(report.rows)
    columns = ["layer", "name", "sees", "sigma_w2", "sigma_b2", "q"]
    if report.measured:
        columns += ["gradient\nbefore", "gradient"]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=True, padding=(0, 1, 0, 1), header_style="bold")
    for column in columns:
        words = column in ("name", "sees")
        table.add_column(column, justify="left" if words else "right", no_wrap=not words, overflow="fold", min_width=5)
    for group in groups:
        cells = [_numbers([row.layer for row in group]), _names(group), _seen(group[0])]
        if group[0].status == "could not":
            cells += ["could not", "", ""]
        else:
            cells += [_range([getattr(row, name) for row in group]) for name in ("sigma_w2", "sigma_b2", "q")]
        if report.measured:
            cells += [_range([getattr(row, name) for row in group], 3) for name in ("gradient_before", "gradient")]
        table.add_row(*cells, style=_COLOURS[group[0].status])
    return table


def _alike(rows: Iterable[InitRow]) -> list[list[InitRow]]:
    """Layers of one kind together, in the order of their first."""
    groups: dict[tuple[str, ...], list[InitRow]] = {}
    for row in rows:
        pattern = re.sub(r"\d+", "#", row.name)
        drawn = re.sub(r"\d+", "#", row.weights)
        key = (pattern, row.kind, row.status, row.source, row.activation, row.pool, drawn, row.rule, row.note)
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _seen(row: InitRow) -> str:
    words = [row.source if row.activation in ("linear", "unknown") else f"{row.source}, {row.activation}"]
    return ", ".join([*words, *([row.pool] if row.pool else [])])


def _names(group: Sequence[InitRow]) -> str:
    """The name, with * for the numbers that differ."""
    parts = [re.split(r"(\d+)", row.name) for row in group]
    return "".join(texts[0] if len(set(texts)) == 1 else "*" for texts in zip(*parts, strict=True))


def _numbers(numbers: Sequence[int]) -> str:
    """`7`, `2-50`, `3, 7, … 79`."""
    if len(numbers) == 1:
        return str(numbers[0])
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers)) if len(numbers) <= 3 else f"{numbers[0]}, {numbers[1]}, … {numbers[-1]}"


def _range(values: Sequence[float], digits: int = 5) -> str:
    """One number, or from the smallest to the largest in fewer digits."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    if number(low, digits) == number(high, digits):
        return number(low, digits)
    short = [number(end, 3) for end in (low, high)]
    return " to ".join(short) if float(short[0]) < float(short[1]) else short[1]


def _remarks(report: InitReport) -> Iterator[RenderableType]:
    """What is assumed, what could not be done, what stays; then what concerns the whole."""
    lines = []
    for note in dict.fromkeys(row.note for row in report.rows if row.note):
        rows = [row for row in report.rows if row.note == note]
        lines.append((f"layer{'s' * (len(rows) > 1)} {_numbers([row.layer for row in rows])}: {note}", rows[0].status))
    shared = [row for row in report.rows if row.weights.startswith("those of")]
    for why in dict.fromkeys(why for _, why in report.left):
        names = [name for name, reason in report.left if reason == why]
        shown = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        lines.append((f"left as they are: {shown}: {why}", "could not" if why == _REST else "set"))
    lines += [(note, "set") for note in report.notes]
    if report.measured and not report.branches and not math.isnan(report.gradient_ratio):
        before, after = number(report.gradient_ratio_before, 3), number(report.gradient_ratio, 3)
        lines.append((f"squared gradients, first layer over last but one: {after} ({before} before)", "set"))
    if lines or shared:
        yield ""
    for line, status in lines:
        yield Text(line, style=_COLOURS[status])
