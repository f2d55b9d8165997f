"""What a simulation costs a GPU, stage by stage, on paper: operations, bytes, and the time below which it cannot be.

    python -m bench.gpu_model             the tables of docs/gpu.md, by the data sheet of an H100
    python -m bench.gpu_model --write docs/gpu.md

A stage takes at least as long as its slowest resource: bytes over bandwidth, operations of matrix products over their
rate, instructions over the rate at which they are issued; and starting its kernels. bench.gpu_check measures the rates
and the stages on the GPU at hand.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Instructions of one thread, counted in what nvcc 13 makes of csrc/core for sm_90 (PTX, float32).
NORMAL = 62.0  # of four: ten rounds of Philox 137, two Box-Muller pairs 128
ACTIVATION = 90.0  # tanh: an exact difference and its slope 74, sums and addresses the rest
CONTRAST = 30.0  # a pair of inputs, in float64: counted as two each

COLUMNS_OF_A_BLOCK = 128  # inputs that one block of draw_rows works on (csrc/cuda/gram_rows.cu)
INPUTS_OF_A_CHUNK = 16_384  # gpu/_direct.py


@dataclass(frozen=True)
class Rates:
    """What a GPU does in a second."""

    name: str
    bandwidth: float
    """Bytes read or written."""
    float32: float
    """Multiplications and additions of float32 products, in full float32."""
    float64: float
    """The same of float64."""
    instructions: float
    """Of all threads together."""
    start: float
    """Seconds that it takes to start a kernel, from Python."""
    wait: float
    """Seconds that it takes to hear from the device."""


H100 = Rates("H100 SXM by its data sheet", 3.35e12, 66.9e12, 66.9e12, 132 * 128 * 1.755e9, 5e-6, 20e-6)


@dataclass(frozen=True)
class Stage:
    """One stage of one layer of one network."""

    name: str
    float32: float = 0.0
    float64: float = 0.0
    instructions: float = 0.0
    bytes: float = 0.0
    kernels: int = 1
    waits: int = 0

    def times(self, rates: Rates) -> dict[str, float]:
        """Seconds by resource."""
        return {
            "bandwidth": self.bytes / rates.bandwidth,
            "float32 products": self.float32 / rates.float32,
            "float64 products": self.float64 / rates.float64,
            "instructions": self.instructions / rates.instructions,
            "starting kernels": self.kernels * rates.start + self.waits * rates.wait,
        }

    def bound(self, rates: Rates) -> tuple[str, float]:
        """The slowest resource, and its seconds: the floor."""
        times = self.times(rates)
        slowest = max(times, key=lambda name: times[name])
        return slowest, times[slowest]


def gram(width: int, inputs: int) -> list[Stage]:
    """One layer drawn from its exact law (gpu/forward_gram.py), float32."""
    w, n = float(width), float(inputs)
    again = (-(-inputs // COLUMNS_OF_A_BLOCK) + 1) / 2  # every block of columns draws the rows it needs
    # Half of the products, those with a triangle, each an instruction beside those of the normals.
    drawn = NORMAL * w * n * again + w * n * n / 2
    return [
        Stage("rows drawn and transformed", w * n * n, 0.0, drawn, 4 * w * n + 4 * n * n),
        Stage("products of y", 2 * w * n * n, 0.0, 0.0, 4 * w * n + 12 * n * n, 3),
        Stage("activation and statistics", 0.0, 0.0, ACTIVATION * w * n, 8 * w * n, 3),
        Stage("products of x", 2 * w * n * n, 0.0, 0.0, 4 * w * n + 12 * n * n, 3),
        Stage("contrasts of the pairs", 0.0, 0.0, 2 * CONTRAST * n * n / 2, 8 * n * n / 2, 2),
        Stage("factor of the covariance", 0.0, n**3 / 3, 0.0, 40 * n * n, 8, 1),
    ]


def direct(width: int, inputs: int) -> list[Stage]:
    """One layer with every weight drawn (gpu/forward_direct.py), float32."""
    w, n = float(width), float(inputs)
    chunks = -(-inputs // INPUTS_OF_A_CHUNK)  # every chunk draws the weights it needs
    return [
        Stage("weights drawn", 0.0, 0.0, chunks * NORMAL * w * w, chunks * 4 * w * w, chunks),
        Stage("product", 2 * w * w * n, 0.0, 0.0, chunks * 4 * w * w + 8 * w * n, chunks),
        Stage("sums over the nodes", 0.0, 0.0, 10 * w * n, 4 * w * n, 2 * chunks),
        Stage("activation and statistics", 0.0, 0.0, ACTIVATION * w * n, 8 * w * n, 3 * chunks),
        Stage("records of the nodes", 0.0, 0.0, chunks * 30 * w, chunks * 200 * w, 12 * chunks),
    ]


ENGINES = {"gram": gram, "direct": direct}


def table(engine: str, width: int, depth: int, inputs: int, rates: Rates) -> list[str]:
    """One line for each stage, for all the layers."""
    stages = ENGINES[engine](width, inputs)
    lines = [
        "| stage | operations of products | instructions | bytes | bound by | floor |",
        "| --- | ---: | ---: | ---: | --- | ---: |",
    ]
    whole = 0.0
    for stage in stages:
        bound, seconds = stage.bound(rates)
        whole += seconds * depth
        amounts = (depth * (stage.float32 + stage.float64), depth * stage.instructions, depth * stage.bytes)
        cells = [stage.name, *(_amount(amount) for amount in amounts), bound, _time(seconds * depth)]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(f"| **all {depth} layers** | | | | | **{_time(whole)}** |")
    return lines


def _amount(value: float) -> str:
    """1.2e10 as 1.2 x 10^10."""
    if not value:
        return ""
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits} x 10^{int(exponent)}"


def _time(seconds: float) -> str:
    if seconds >= 1.0:
        return f"{seconds:,.3g} s"
    return f"{seconds / 1e-3:,.0f} ms" if seconds >= 0.1 else f"{seconds / 1e-3:,.2g} ms"


CASES = (("gram", 100), ("direct", 100), ("gram", 10_000), ("direct", 10_000), ("direct", 1_000_000))


def tables(width: int, depth: int, rates: Rates, cases: Iterable[tuple[str, int]] = CASES) -> str:
    """The tables of docs/gpu.md."""
    parts = []
    for engine, inputs in cases:
        parts += [f"{inputs:,} inputs, `{engine}`:", "", *table(engine, width, depth, inputs, rates), ""]
    return "\n".join(parts)


_BEGIN, _END = "<!-- model -->", "<!-- end of model -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=10_000)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the marks in this file")
    options = parser.parse_args()
    made = tables(options.width, options.depth, H100)
    if options.write is None:
        print(made)
        return
    before, _, rest = options.write.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    options.write.write_text(f"{before}{_BEGIN}\n\n{made}\n{_END}{after}")


if __name__ == "__main__":
    main()
