"""igbfast against NumPy (the paper's algorithm) and PyTorch, in one run: a table, results/bench.json, results/bench.md.

    python -m bench.compare                       the flagship: tanh, width 10,000, depth 100, 100 inputs
    python -m bench.compare --million             and width 1,000,000, with its peak memory
    python -m bench.compare --width 1000 --depth 10 --layers 2      small, to try it

The references are timed on a few layers (every layer costs the same) and taken times the depth. Every time is the
median of repeats. Ratios compare what ran in this run on this machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import igbfast as igb
from igbfast import _core

from . import reference_numpy
from .alone import seconds_and_peak

SIGMA_W2, SIGMA_B2 = 1.76, 0.05  # tanh near its edge of chaos
console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Row:
    """One line of the table: how long igbfast takes for what the reference takes `reference_seconds` for."""

    what: str
    seconds: float
    reference: str = ""
    reference_seconds: float | None = None
    count: int | None = None  # of the numbers made in that time: shown as a rate
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return None if self.reference_seconds is None else self.reference_seconds / self.seconds


@dataclass(frozen=True)
class Size:
    """How large, and how often."""

    width: int
    depth: int
    inputs: int
    layers: int
    repeats: int


def main() -> None:
    args = parse_arguments()
    size = Size(args.width, args.depth, args.inputs, args.layers, args.repeats)
    torch = import_torch()
    rows = list(normals_rows(size, torch))
    rows += forward_rows(size, torch)
    if args.million:
        rows.append(million_row(size))
    show(rows)
    save(rows, size, torch, args.output)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=10_000)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--layers", type=int, default=3, help="layers that the references are timed on")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--million", action="store_true", help="also run width 1,000,000 by gram (about a minute)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of bench.json and bench.md")
    return parser.parse_args()


def import_torch() -> ModuleType | None:
    """reference_torch, or None if PyTorch is not installed."""
    try:
        from . import reference_torch
    except ImportError as error:
        console.print(f"PyTorch is missing ({error}): going on without it.")
        return None
    return reference_torch


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    run()  # the first call wakes threads and touches memory
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def normals_rows(size: Size, torch: ModuleType | None) -> Iterator[Row]:
    """Standard normals: by us on one thread and on all, by the reference as it comes."""
    console.print("standard normals …")
    rows, columns = 64, 2**15  # small enough that the memory is not new each time
    count = rows * columns
    threads = igb.get_num_threads()
    for dtype in ("float32", "float64"):
        if torch is not None:
            name = f"PyTorch {dtype}"
            reference = median_seconds(partial(torch.normals, count, dtype), 2 * size.repeats)
        else:
            name = "NumPy float64"
            reference = median_seconds(partial(np.random.RandomState(0).randn, count), 2 * size.repeats)
        for used in sorted({1, threads}):
            igb.set_num_threads(used)
            seconds = median_seconds(partial(draw, rows, columns, dtype), 10 * size.repeats)
            yield Row(f"normals, {dtype}, {used} thread{'s' if used > 1 else ''}", seconds, name, reference, count)
    igb.set_num_threads(threads)


def draw(rows: int, columns: int, dtype: str) -> object:
    return _core.normals(seed=0, network=0, layer=1, stream="weights", rows=rows, columns=columns, dtype=dtype)


def forward_rows(size: Size, torch: ModuleType | None) -> Iterator[Row]:
    """One network: `direct` by the layer, `gram` as a whole, against the references' layers."""
    console.print(f"NumPy, {size.layers} layers …")
    with_numpy = reference_numpy.forward(size.width, size.layers, size.inputs, sigma_w2=SIGMA_W2, sigma_b2=SIGMA_B2)
    numpy_layer = statistics.median(layer.seconds for layer in with_numpy)
    torch_layer = None
    if torch is not None:
        console.print(f"PyTorch, {size.layers} layers …")
        with_torch = torch.forward(size.width, size.layers + 1, size.inputs, sigma_w2=SIGMA_W2, sigma_b2=SIGMA_B2)
        torch_layer = statistics.median(layer.seconds for layer in with_torch[1:])

    for dtype in ("float32", "float64"):
        console.print(f"direct, {dtype} …")
        depth = min(size.depth, size.layers)
        repeats = max(1, size.repeats // 2)
        layer = median_seconds(partial(simulate, size, depth, "direct", dtype), repeats) / depth
        what = f"direct, {dtype}, one layer"
        yield Row(what, layer, "NumPy float64", numpy_layer)
        if torch_layer is not None:
            yield Row(what, layer, "PyTorch float32", torch_layer)
    for dtype in ("float32", "float64"):
        console.print(f"gram, {dtype} …")
        total = median_seconds(partial(simulate, size, size.depth, "gram", dtype), size.repeats)
        what = f"gram, {dtype}, {size.depth} layers"
        yield Row(what, total, "NumPy float64", numpy_layer * size.depth)
        if torch_layer is not None:
            yield Row(what, total, "PyTorch float32", torch_layer * size.depth)

    gammas = f"igbfast {simulate(size, size.layers, 'gram', 'float64').gamma.values[0, -1]:.4g}"
    gammas += f", NumPy {with_numpy[-1].gamma:.4g}"
    if torch is not None:
        gammas += f", PyTorch {with_torch[size.layers - 1].gamma:.4g}"
    console.print(f"gamma of layer {size.layers}, one network each: {gammas}")


def simulate(size: Size, depth: int, method: str, dtype: str) -> Any:
    ens = igb.Ensemble("tanh", sigma_w2=SIGMA_W2, sigma_b2=SIGMA_B2)
    return igb.simulate(
        ens, width=size.width, depth=depth, inputs=size.inputs, method=method, dtype=dtype, progress=False
    )


def million(depth: int, inputs: int) -> str:
    """What `seconds_and_peak` runs for a network of width 1,000,000."""
    return f"""
ens = igb.Ensemble("tanh", sigma_w2={SIGMA_W2}, sigma_b2={SIGMA_B2})
run = lambda: igb.simulate(ens, width=1_000_000, depth={depth}, inputs={inputs}, method="gram", progress=False)
"""


def million_row(size: Size) -> Row:
    console.print("gram, width 1,000,000 …")
    seconds, note = seconds_and_peak(million(size.depth, size.inputs))
    return Row("gram, float32, width 1,000,000", seconds, note=note)


HEADINGS = ("what", "igbfast", "reference", "times faster")


def cells(row: Row) -> tuple[str, str, str, str]:
    """One line of the table, as text."""
    ours = amount(row.seconds, row.count) + (f", {row.note}" if row.note else "")
    if row.reference_seconds is None or row.ratio is None:
        return row.what, ours, "", ""
    return row.what, ours, f"{row.reference}: {amount(row.reference_seconds, row.count)}", f"{row.ratio:,.1f}"


def amount(seconds: float, count: int | None) -> str:
    """A time, or the rate at which so many numbers were made in it."""
    if count is not None:
        return f"{count / seconds / 1e6:,.0f} M/s"
    if seconds >= 100.0:
        return f"{seconds:,.0f} s"
    return f"{seconds:.3g} s" if seconds >= 1.0 else f"{seconds * 1e3:.3g} ms"


def show(rows: list[Row]) -> None:
    table = Table(title=f"igbfast {igb.__version__}, {igb.get_num_threads()} threads")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading == "times faster" else "left")
    for row in rows:
        table.add_row(*cells(row))
    terminal = Console(highlight=False)
    Console(highlight=False, width=max(terminal.width, 110)).print(table)


def save(rows: list[Row], size: Size, torch: ModuleType | None, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "config": _core.config(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": None if torch is None else torch.torch.__version__,
        "size": asdict(size),
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
    }
    (folder / "bench.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    lines = ["| " + " | ".join(line) + " |" for line in (HEADINGS, ("---",) * len(HEADINGS), *map(cells, rows))]
    (folder / "bench.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    console.print(f"Saved {folder / 'bench.json'} and {folder / 'bench.md'}.")


if __name__ == "__main__":
    main()
