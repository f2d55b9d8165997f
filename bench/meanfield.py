"""Mean-field theory beside the route that scripts take, SciPy's quad and dblquad, in one run.

    python -m bench.meanfield             a table
    python -m bench.meanfield --layers 5  with more layers of the SciPy recursion (3 if not given; its time is scaled)

The SciPy recursion is the textbook's: q' by quad, q_ab' by dblquad over independent normals, with its default
tolerances (1.5e-8), for one trajectory of tanh.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.integrate import dblquad, quad

import igbfast as igb

DEPTH = 100
SIGMA_W2, SIGMA_B2 = 1.76, 0.05
GRID = (np.linspace(0.1, 4.0, 200), np.linspace(0.0, 1.0, 200))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=3, help="layers of the SciPy recursion to time")
    layers = parser.parse_args().layers
    table = Table("what", "igbfast", "SciPy", "times faster", title="Mean-field theory, medians")

    def add(what: str, seconds: float, reference: float | None = None) -> None:
        ratio = "" if reference is None else f"{reference / seconds:,.0f}"
        table.add_row(what, _shown(seconds), "" if reference is None else _shown(reference), ratio)

    reference, error = _scipy_trajectory(layers)
    tanh = igb.Ensemble("tanh", SIGMA_W2, SIGMA_B2)
    add(f"propagate, tanh, depth {DEPTH}", _median(lambda: igb.propagate(tanh, DEPTH), 50), reference * DEPTH / layers)
    for ens in (
        igb.Ensemble("gelu", SIGMA_W2, SIGMA_B2),
        igb.Ensemble("elu", 1.2, SIGMA_B2),
        igb.Ensemble("tanh", SIGMA_W2, SIGMA_B2, pool=igb.MaxPool(2)),
    ):
        name = f"{ens.activation}" + ("" if ens.pool is None else f", {ens.pool}")
        add(f"propagate, {name}, depth {DEPTH}", _median(lambda ens=ens: igb.propagate(ens, DEPTH), 5))  # type: ignore[misc]
    for name, pool in (
        ("tanh", None),
        ("gelu", None),
        ("hardtanh", None),
        ("relu", igb.MaxPool(2)),
        ("tanh", igb.MaxPool(2)),
    ):
        label = name + ("" if pool is None else f", {pool}")
        runs = 1 if pool is not None else 3
        add(
            f"phase_diagram, {label}, 200 x 200",
            _median(lambda name=name, pool=pool: igb.phase_diagram(name, *GRID, pool=pool), runs),  # type: ignore[misc]
        )
    Console().print(table)
    Console().print(f"q and c of SciPy's layer {layers} and ours differ by {error:.1e}.")


def _scipy_trajectory(layers: int) -> tuple[float, float]:
    """Seconds for so many layers, and the difference from ours in q and c."""
    start = time.perf_counter()
    q, q_ab = SIGMA_W2 + SIGMA_B2, SIGMA_B2
    for _ in range(layers):
        root, c = np.sqrt(q), q_ab / q
        rest = np.sqrt(1.0 - c * c)
        square = quad(lambda z, r=root: _normal(z) * np.tanh(r * z) ** 2, -10.0, 10.0)[0]
        product = dblquad(
            lambda y, x, r=root, c=c, w=rest: _normal(x) * _normal(y) * np.tanh(r * x) * np.tanh(r * (c * x + w * y)),
            *(-10.0, 10.0, -10.0, 10.0),
        )[0]
        q, q_ab = SIGMA_W2 * square + SIGMA_B2, SIGMA_W2 * product + SIGMA_B2
    seconds = time.perf_counter() - start
    last = igb.propagate(igb.Ensemble("tanh", SIGMA_W2, SIGMA_B2), layers + 1).isel(layer=-1)
    return seconds, max(abs(q - float(last.q)), abs(q_ab / q - float(last.c)))


def _normal(z: float) -> float:
    return float(np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi))


def _median(run: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1.0 else f"{1e3 * seconds:.2f} ms"


if __name__ == "__main__":
    main()
