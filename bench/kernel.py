"""`igb.kernel` for n inputs, beside the same recursion in NumPy and SciPy, in one run.

    python -m bench.kernel                          1,000 inputs, depth 100
    python -m bench.kernel --inputs 200 --depth 20  small, to try it

NumPy's recursion takes the textbook formulas for ReLU and erf, and for any other phi Gauss-Hermite quadrature with 60 x
60 nodes for each pair, which leaves it at some 8 digits for tanh; it is timed on a part of the pairs. The floor is what
the arithmetic alone takes: the multiply-adds of a pair, at the rate of a matrix product that stays in the cache.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import ndtr

import igbfast as igb

Floats = NDArray[np.float64]

SIGMA_W2, SIGMA_B2 = 1.76, 0.05
NODES = 60
QUADRATURE: dict[str, Callable[[Floats], Floats]] = {"tanh": np.tanh, "gelu": lambda x: x * ndtr(x)}
# Multiply-adds for a pair, about: three for every term of a series, else those of the closed form.
OPERATIONS = {"tanh": 3 * 45, "gelu": 3 * 70, "erf": 120, "relu": 45}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    x = np.random.default_rng(0).standard_normal((args.inputs, 64))
    x *= np.random.default_rng(1).uniform(0.8, 1.2, size=(args.inputs, 1))
    pairs = args.inputs * (args.inputs - 1) / 2 * args.depth
    rate = multiply_adds_per_second()
    table = Table("phi", "seconds", "ns a pair", "NumPy, ns a pair", "ratio", "floor, seconds")
    for name in ("tanh", "erf", "relu", "gelu"):
        ens = igb.Ensemble(name, SIGMA_W2, SIGMA_B2)
        seconds = median(partial(igb.kernel, ens, inputs=x, depth=args.depth, progress=False), args.repeats)
        reference = numpy_seconds_a_pair(name, x, args.repeats)
        floor = OPERATIONS[name] * pairs / rate
        row = (seconds, 1e9 * seconds / pairs, 1e9 * reference, reference * pairs / seconds, floor)
        table.add_row(name, *(f"{value:,.3g}" for value in row))
    console = Console()
    console.print(f"{args.inputs:,} inputs, depth {args.depth}, {igb.get_num_threads()} threads, {rate / 1e9:.0f} G/s")
    console.print(table)


def median(run: Callable[[], Any], repeats: int) -> float:
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def multiply_adds_per_second() -> float:
    a = np.random.default_rng(0).standard_normal((1500, 1500))
    return 1500.0**3 / median(lambda: a @ a, 5)


def numpy_seconds_a_pair(name: str, x: Floats, repeats: int) -> float:
    k = SIGMA_W2 * (x @ x.T) / x.shape[1] + SIGMA_B2
    if name in QUADRATURE:
        count = min(len(x), 40)
        k = k[:count, :count]
        return median(lambda: quadrature_step(QUADRATURE[name], k), repeats) / (count * (count + 1) / 2)
    step = relu_step if name == "relu" else erf_step
    return median(lambda: step(k), repeats) / (len(x) * (len(x) + 1) / 2)


def relu_step(k: Floats) -> Floats:
    root = np.sqrt(k.diagonal())
    size = np.outer(root, root)
    c = np.clip(k / size, -1.0, 1.0)
    result: Floats = SIGMA_W2 * size * (np.sqrt(1.0 - c * c) + (np.pi - np.arccos(c)) * c) / (2.0 * np.pi) + SIGMA_B2
    return result


def erf_step(k: Floats) -> Floats:
    root = np.sqrt(1.0 + 2.0 * k.diagonal())
    result: Floats = SIGMA_W2 * 2.0 / np.pi * np.arcsin(2.0 * k / np.outer(root, root)) + SIGMA_B2
    return result


def quadrature_step(phi: Callable[[Floats], Floats], k: Floats) -> Floats:
    z, w = np.polynomial.hermite_e.hermegauss(NODES)
    w = w / w.sum()
    row, column = np.triu_indices(len(k))
    root_a, root_b = np.sqrt(k[row, row]), np.sqrt(k[column, column])
    c = np.clip(k[row, column] / (root_a * root_b), -1.0, 1.0)
    v = root_b[:, None, None] * (c[:, None, None] * z[:, None] + np.sqrt(1.0 - c * c)[:, None, None] * z)
    result: Floats = SIGMA_W2 * np.einsum("pi,i,pij,j->p", phi(root_a[:, None] * z), w, phi(v), w) + SIGMA_B2
    return result


if __name__ == "__main__":
    main()
