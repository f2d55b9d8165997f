"""How far each stage of `simulate` is from its floor on this machine: a table, results/simulation.json.

    python -m bench.simulation                        tanh, width 10,000, 100 inputs; gradients; a few layers of direct
    python -m bench.simulation --million              and width 1,000,000, depth 100, with its peak memory
    python -m bench.simulation --stream               and 200,000 inputs of 784 features, width 2,000, depth 10
    python -m bench.simulation --width 1000 --depth 10      small, to try it

The floor of a stage is what it would take at the rate of its primitive, measured in this run: standard normals, square
matrix products by NumPy's BLAS, NumPy's tanh in the cache. A stage's own time is measured where it can be told apart,
by leaving it out, or by what is added when it comes in. Every time is a median of repeats; on a machine that is busy
with other work none of them means much.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import igbfast as igb
from igbfast import _core

from .alone import seconds_and_peak
from .compare import SIGMA_B2, SIGMA_W2, amount, draw, median_seconds, million

console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Rates:
    """What this machine does in a second, on all threads."""

    normals: float
    operations: float
    """Of matrix products, multiplications and additions."""
    activations: float
    """tanh."""
    copied: float
    """Bytes read and written."""


@dataclass(frozen=True)
class Stage:
    """One line of the table; seconds of one layer, or of all."""

    engine: str
    what: str
    floor: float | None
    seconds: float | None
    note: str = ""

    @property
    def share(self) -> float | None:
        """Of the floor in the time taken."""
        return self.floor / self.seconds if self.floor and self.seconds else None


@dataclass(frozen=True)
class Size:
    """How large, and how often."""

    width: int
    depth: int
    inputs: int
    repeats: int


def main() -> None:
    args = parse_arguments()
    size = Size(args.width, args.depth, args.inputs, args.repeats)
    rates = measure_rates(size)
    stages = [*gram_stages(size, rates), *direct_stages(size, rates)]
    if args.million:
        stages.append(alone("gram", "width 1,000,000, depth 100", million(100, 100)))
    if args.stream:
        stages.append(alone("direct", "200,000 inputs of 784 features, width 2,000, depth 10", STREAM))
    show(stages, rates)
    save(stages, rates, size, args.output)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=10_000)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--million", action="store_true", help="also run width 1,000,000 by gram (about a minute)")
    parser.add_argument("--stream", action="store_true", help="also send 200,000 inputs through direct (minutes)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of simulation.json")
    return parser.parse_args()


# ---- Floors ----------------------------------------------------------------------------------------------------------


def measure_rates(size: Size) -> Rates:
    console.print("rates of this machine …")
    repeats = 4 * size.repeats
    rows, columns = 64, 2**15
    normals = rows * columns / median_seconds(partial(draw, rows, columns, "float32"), repeats)
    n = 2048
    a = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32)
    operations = 2.0 * n**3 / median_seconds(lambda: a @ a, size.repeats)
    block, result = a[:32].ravel(), np.empty(32 * n, np.float32)  # they stay in the cache
    one = block.size / median_seconds(lambda: np.tanh(block, result), repeats)  # by one thread
    source = np.zeros(2**26, np.float32)
    target = np.empty_like(source)
    copied = 2.0 * source.nbytes / median_seconds(lambda: np.copyto(target, source), size.repeats)
    return Rates(normals, operations, one * igb.get_num_threads(), copied)


# ---- Stages ----------------------------------------------------------------------------------------------------------


def gram_stages(size: Size, rates: Rates) -> Iterator[Stage]:
    """One layer, forward, and what gradients add; triangles count half of a square."""
    console.print("gram …")
    n, b, per = size.width, size.inputs, 1.0 / size.depth
    forward = seconds(size, "gram", size.depth) * per
    linear = seconds(size, "gram", size.depth, activation="linear") * per
    both = seconds(size, "gram", size.depth, gradients="cross_entropy") * per
    floors = {
        "normals": n * b / rates.normals,
        "products: Z L^T, y^T y, x^T x": 3.0 * n * b**2 / rates.operations,
        "phi and its differences": n * b / rates.activations,
        "factor of K, one thread, float64": b**3 / 3.0 / (rates.operations / igb.get_num_threads() / 2.0),
    }
    for what, floor in floors.items():
        yield Stage("gram", what, floor, max(forward - linear, 0.0) if what.startswith("phi") else None)
    yield Stage("gram", "a layer forward", sum(floors.values()), forward)
    more = {
        "normals: Z again, E twice": 3.0 * n * b / rates.normals,
        "products: y, x^T E, x A, E B, Z^T d, d^T d": 10.0 * n * b**2 / rates.operations,
        "phi and its slopes once more": n * b / rates.activations,
    }
    for what, floor in more.items():
        yield Stage("gram", what, floor, None)
    yield Stage("gram", "what gradients add to a layer", sum(more.values()), both - forward)
    ratio = f"{both / forward:.2f} times the forward pass alone"
    yield Stage("gram", f"forward and gradients, {size.depth} layers", None, both * size.depth, ratio)


def direct_stages(size: Size, rates: Rates) -> Iterator[Stage]:
    """One layer: weights alone are told by a run on two inputs, whose product is next to nothing."""
    console.print("direct …")
    n, b, depth = size.width, size.inputs, min(size.depth, 4)
    layer = layer_seconds(size, "direct", depth)
    drawn = layer_seconds(size, "direct", depth, inputs=2)
    both = layer_seconds(size, "direct", depth, gradients="cross_entropy")
    floors = {
        "weights": n**2 / rates.normals,
        "product": 2.0 * n**2 * b / rates.operations,
        "weights packed for the product": 0.0,
        "phi and its differences": n * b / rates.activations,
    }
    times = {"weights": drawn, "product": layer - drawn}
    for what, floor in floors.items():
        yield Stage("direct", what, floor, times.get(what))
    whole = sum(floors.values())
    yield Stage("direct", "a layer forward", whole, layer)
    more = floors["weights"] + floors["product"] + floors["phi and its differences"]
    yield Stage("direct", "what gradients add to a layer", more, both - layer)


def layer_seconds(size: Size, method: str, depth: int, **changes: Any) -> float:
    """The time of one layer, without what a run of any depth takes."""
    return (seconds(size, method, depth, **changes) - seconds(size, method, 1, **changes)) / (depth - 1)


def seconds(size: Size, method: str, depth: int, activation: str = "tanh", **changes: Any) -> float:
    ens = igb.Ensemble(activation, sigma_w2=SIGMA_W2 if activation == "tanh" else 1.0, sigma_b2=SIGMA_B2)
    settings: Any = {"width": size.width, "depth": depth, "inputs": size.inputs, "method": method} | changes
    return median_seconds(lambda: igb.simulate(ens, progress=False, **settings), size.repeats)


STREAM = """
ens = igb.Ensemble("relu", sigma_w2=2.0, sigma_b2=0.1)
chunks = (np.random.default_rng(i).random((1000, 784), np.float32) for i in range(200))
run = lambda: igb.simulate(ens, width=2000, depth=10, inputs=chunks, method="direct", progress=False)
"""


def alone(engine: str, what: str, setup: str) -> Stage:
    console.print(f"{what} …")
    taken, note = seconds_and_peak(setup)
    return Stage(engine, what, None, taken, note)


# ---- The table -------------------------------------------------------------------------------------------------------


def show(stages: list[Stage], rates: Rates) -> None:
    said = (
        f"normals {rates.normals / 1e6:,.0f} M/s, products {rates.operations / 1e9:,.0f} GFLOP/s, "
        f"tanh {rates.activations / 1e6:,.0f} M/s, copies {rates.copied / 1e9:,.0f} GB/s"
    )
    table = Table(title=f"igbfast {igb.__version__}, {igb.get_num_threads()} threads, float32\n{said}")
    for heading in ("engine", "stage", "floor", "measured", "share of the floor"):
        table.add_column(heading, justify="left" if heading in ("engine", "stage") else "right")
    for stage in stages:
        share = "" if stage.share is None else f"{stage.share:.0%}"
        floor, taken = ("" if value is None else amount(value, None) for value in (stage.floor, stage.seconds))
        table.add_row(stage.engine, stage.what, floor, taken, share or stage.note)
    terminal = Console(highlight=False)
    Console(highlight=False, width=max(terminal.width, 120)).print(table)


def save(stages: list[Stage], rates: Rates, size: Size, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "config": _core.config(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "size": asdict(size),
        "rates": asdict(rates),
        "stages": [{**asdict(stage), "share": stage.share} for stage in stages],
    }
    (folder / "simulation.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    console.print(f"Saved {folder / 'simulation.json'}.")


if __name__ == "__main__":
    main()
