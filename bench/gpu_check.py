"""On a machine with a GPU: builds igbfast for it, runs the test suite on it, times every kernel; one table, one file.

    python -m bench.gpu_check                    all of it; results/gpu_check.json
    python -m bench.gpu_check --only time        or: build, test
    python -m bench.gpu_check --host FOLDER      tries the timing, small, with the kernels compiled for the host

A kernel is held against its floor: bytes over bandwidth, operations of products over their rate, instructions over the
rate at which threads issue them (bench/gpu_model.py), with bandwidth and products measured here, in this run. The
flagship is held against PyTorch on the same GPU. Every time is a median of repeats. Without a GPU it says so, and that
is no error.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from . import gpu_model
from .gpu_model import Rates, Stage

ROOT = Path(__file__).parent.parent
SIGMA_W2, SIGMA_B2 = 1.76, 0.05  # tanh near its edge of chaos
console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Size:
    """How large, and how often."""

    width: int = 10_000
    depth: int = 100
    inputs: int = 100
    many: int = 10_000
    networks: int = 16
    points: int = 100_000
    """Of Gaussian integrals."""
    product: int = 8192
    copied: int = 1 << 30
    repeats: int = 5


SMALL = Size(256, 2, 10, 70, 2, 40, 64, 1 << 12, 1)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    seconds: float
    floor: float | None = None
    bound: str = ""
    note: str = ""


# ---- Build and test --------------------------------------------------------------------------------------------------


def build() -> None:
    """The package with its CUDA half, into this Python's environment."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", str(ROOT), "-C", "cmake.define.IGBFAST_CUDA=ON"]
    subprocess.run(command, check=True)


def test() -> int:
    """The whole suite, with device="cuda" on the GPU; pytest's exit status."""
    environment = os.environ | {"IGBFAST_TEST_DEVICE": "cuda"}
    return subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=ROOT, env=environment, check=False).returncode


# ---- Rates -----------------------------------------------------------------------------------------------------------


class Clock:
    """Median seconds of what runs on a device."""

    def __init__(self, device: Any, repeats: int) -> None:
        self.on_gpu = device.torch.type == "cuda"
        self.device = device.torch
        self.repeats = repeats

    def __call__(self, run: Callable[[], object], calls: int = 1) -> float:
        """Of one of so many calls, the first not counted."""
        run()
        return statistics.median(self._once(run, calls) / calls for _ in range(self.repeats))

    def _once(self, run: Callable[[], object], calls: int) -> float:
        import torch

        if self.on_gpu:
            torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        for _ in range(calls):
            run()
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


def measured_rates(device: Any, size: Size, clock: Clock) -> tuple[Rates, dict[str, float]]:
    """What this GPU does in a second, and its rates of products in less than full float32."""
    import torch

    from igbfast.gpu import _products

    here, n = device.torch, size.product
    source = torch.zeros(size.copied, dtype=torch.uint8, device=here)
    target = torch.empty_like(source)
    bandwidth = 2 * size.copied / clock(lambda: target.copy_(source), 10)

    def products(dtype: Any, kind: str = "full") -> float:
        a = torch.ones(n, n, dtype=dtype, device=here)
        with _products.precision(kind):
            return 2 * n**3 / float(clock(lambda: a @ a, 3))

    one = torch.zeros(1, device=here)
    start = clock(lambda: one.add_(1.0), 100)
    wait = clock(lambda: one.item(), 100)
    name = torch.cuda.get_device_name(here) if clock.on_gpu else "the host"
    rates = Rates(
        name,
        bandwidth,
        products(torch.float32),
        products(torch.float64),
        _instructions(here) if clock.on_gpu else gpu_model.H100.instructions,
        start,
        wait,
    )
    less = {"tf32": products(torch.float32, "tf32"), "bfloat16": products(torch.bfloat16)}
    return rates, less


def _instructions(here: Any) -> float:
    """That all threads together can issue in a second: 128 for every multiprocessor and tick."""
    import torch

    properties = torch.cuda.get_device_properties(here)
    kilohertz = float(getattr(properties, "clock_rate", 1_755_000))  # PyTorch says it since 2.6; else that of an H100
    return 128.0 * float(properties.multi_processor_count) * kilohertz * 1e3


# ---- Kernels ---------------------------------------------------------------------------------------------------------


def kernel_rows(device: Any, size: Size, rates: Rates, clock: Clock) -> Iterator[Row]:
    """Every kernel by itself, at the flagship's size and at many inputs."""
    yield from _weights(device, size, rates, clock)
    for inputs in (size.inputs, size.many):
        yield from _layer(device, size, inputs, rates, clock)
    yield from _integrals(device, size, rates, clock)


def _row(stage: Stage, seconds: float, rates: Rates) -> Row:
    bound, floor = stage.bound(rates)
    return Row(stage.name, seconds, floor, bound)


def _weights(device: Any, size: Size, rates: Rates, clock: Clock) -> Iterator[Row]:
    import torch

    from igbfast.gpu import _sampling

    w = size.width
    stream = _sampling.StreamId(0, 0, 1, _sampling.Stream.WEIGHTS)
    for law in ("gaussian", "uniform", "rademacher"):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            out = torch.empty(1, w, w, dtype=dtype, device=device.torch)
            seconds = clock(partial(_sampling.fill_weights, device, law, stream, out))
            each = gpu_model.NORMAL if law == "gaussian" else 0.0
            name = f"{law} weights, {str(dtype).removeprefix('torch.')}"
            yield _row(Stage(name, 0.0, 0.0, each * w * w, out.element_size() * w * w), seconds, rates)


def _layer(device: Any, size: Size, inputs: int, rates: Rates, clock: Clock) -> Iterator[Row]:
    """The steps of one layer of one network, in float32."""
    import torch

    from igbfast import Ensemble
    from igbfast.gpu import _gram, _layer, _sampling
    from igbfast.gpu._layout import whole_layer

    w, n = float(size.width), float(inputs)
    slab = whole_layer(1, size.width)
    stream = _sampling.StreamId(0, 0, 1, _sampling.Stream.GRAM)
    tile = torch.empty(1, inputs, slab.rows, device=device.torch)
    units = torch.ones(1, 2, dtype=torch.float64, device=device.torch)
    phi = Ensemble("tanh", sigma_w2=SIGMA_W2).activation._core_phi(100.0)
    nonlinearity = _layer.Nonlinearity(device, phi)

    def timed(stage: Stage, run: Callable[[], object]) -> Row:
        named = Stage(f"{stage.name}, {inputs:,} inputs", *list(asdict(stage).values())[1:])
        return _row(named, clock(run), rates)

    of_gram = {stage.name: stage for stage in gpu_model.gram(size.width, inputs)}
    of_direct = {stage.name: stage for stage in gpu_model.direct(size.width, inputs)}
    factor = torch.eye(inputs, device=device.torch)[None].contiguous()
    stage = of_gram["rows drawn and transformed"]
    yield timed(stage, lambda: _gram.draw_rows(device, stream, slab, factor, True, tile))
    _sampling.fill_nodes(device, stream, slab, inputs, tile)
    yield timed(of_direct["sums over the nodes"], lambda: _layer.sum_columns(device, slab, tile))
    x = tile.clone()
    stage = of_gram["activation and statistics"]
    yield timed(stage, lambda: _layer.apply_nonlinearity(nonlinearity, slab, x, None, units, units))
    x.copy_(tile)
    stage = Stage("activation with slopes", 0.0, 0.0, gpu_model.ACTIVATION * w * n, 12 * w * n, 3)
    yield timed(stage, lambda: _layer.apply_nonlinearity(nonlinearity, slab, x, None, units, units, True))
    products = torch.eye(inputs, dtype=torch.float64, device=device.torch)[None].contiguous()
    stage = of_gram["contrasts of the pairs"]
    yield timed(stage, lambda: _gram.contrasts(device, products, units, w, torch.float32))


def _integrals(device: Any, size: Size, rates: Rates, clock: Clock) -> Iterator[Row]:
    import numpy as np

    import igbfast as igb

    q = np.geomspace(1e-2, 1e2, size.points)
    for name in ("relu", "erf", "tanh", "gelu"):

        def run(name: str = name) -> object:
            return igb.moments(name, q, 0.5, device="cuda")

        yield Row(f"moments of {name}, {size.points:,} points", clock(run))


# ---- Runs ------------------------------------------------------------------------------------------------------------


def run_rows(device: Any, size: Size, rates: Rates, clock: Clock) -> Iterator[Row]:
    """Whole simulations, against the sum of their floors and against PyTorch on the same GPU."""
    import torch

    import igbfast as igb

    ens = igb.Ensemble("tanh", sigma_w2=SIGMA_W2, sigma_b2=SIGMA_B2)

    def simulation(inputs: int, networks: int, method: str, products: str = "full") -> Row:
        def run() -> object:
            return igb.simulate(
                ens,
                width=size.width,
                depth=size.depth,
                inputs=inputs,
                networks=networks,
                method=method,
                device="cuda",
                products=products,
                progress=False,
            )

        stages = gpu_model.ENGINES[method](size.width, inputs)
        floor = size.depth * sum(stage.bound(rates)[1] for stage in stages)
        what = f"simulate, {method}, {inputs:,} inputs, networks={networks}"
        if products != "full":
            return Row(f"{what}, {products}", clock(run))
        return Row(what, clock(run), floor if networks == 1 else None)

    by_torch = clock(lambda: _by_torch(torch, device.torch, size, size.inputs))
    yield Row(f"PyTorch, {size.inputs:,} inputs", by_torch, note="randn, matmul, var_mean")
    for method, networks in (("gram", 1), ("direct", 1), ("gram", size.networks)):
        row = simulation(size.inputs, networks, method)
        yield Row(row.what, row.seconds, row.floor, note=f"PyTorch / igbfast: {networks * by_torch / row.seconds:.2f}")
    if clock.on_gpu:
        yield simulation(size.many, 1, "direct")
        yield simulation(size.many, 1, "direct", "tf32")
        yield simulation(size.many, 1, "direct", "bfloat16")


def _by_torch(torch: Any, here: Any, size: Size, inputs: int) -> float:
    """The flagship as one would write it for speed."""
    w = size.width
    x = torch.randn(w, inputs, device=here)
    gamma = torch.zeros((), device=here)
    for _ in range(size.depth):
        y = torch.matmul(torch.randn(w, w, device=here), x).mul_((SIGMA_W2 / w) ** 0.5)
        y += SIGMA_B2**0.5 * torch.randn(w, 1, device=here)
        variance, centre = torch.var_mean(y, dim=1)
        gamma = centre.var() / variance.mean()
        x = torch.tanh(y)
    return float(gamma)


# ---- The table -------------------------------------------------------------------------------------------------------


def shown(rows: list[Row], rates: Rates, less: dict[str, float]) -> Table:
    title = (
        f"{rates.name}: {rates.bandwidth / 1e12:.2f} TB/s, products {rates.float32 / 1e12:.1f} Tflop/s in float32, "
        f"{rates.float64 / 1e12:.1f} in float64, {less['tf32'] / 1e12:.0f} in TF32, {less['bfloat16'] / 1e12:.0f} in "
        f"bfloat16; {rates.start * 1e6:.1f} us to start a kernel"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("what", no_wrap=True)
    for name in ("time", "floor", "of it"):
        table.add_column(name, justify="right")
    table.add_column("bound by")
    table.add_column("")
    for row in rows:
        floor = "" if row.floor is None else _time(row.floor)
        share = "" if row.floor is None else f"{100 * row.floor / row.seconds:.0f} %"
        table.add_row(row.what, _time(row.seconds), floor, share, row.bound, row.note)
    return table


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def measure(device: Any, size: Size, output: Path | None) -> list[Row]:
    """Times everything, shows the table and writes the file."""
    clock = Clock(device, size.repeats)
    rates, less = measured_rates(device, size, clock)
    rows = [*kernel_rows(device, size, rates, clock), *run_rows(device, size, rates, clock)]
    console.print(shown(rows, rates, less))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        found = {"rates": asdict(rates) | {"products": less}, "rows": [asdict(row) for row in rows]}
        output.write_text(json.dumps(found, indent=2))
        console.print(f"written to {output}")
    return rows


def kernels_for_the_host(folder: Path) -> Any:
    """The module _cuda_host in that folder; None if there is none."""
    for path in sorted(folder.glob("_cuda_host*.so")):
        spec = importlib.util.spec_from_file_location("_cuda_host", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return None


def on_host(folder: Path) -> Any:
    """A device of the host's memory, with the kernels compiled for the host; device="cuda" is it from now on."""
    import torch

    from igbfast.gpu import _device

    kernels = kernels_for_the_host(folder)
    if kernels is None:
        sys.exit(f"no kernels compiled for the host in {folder}: `make test` builds them")
    device = _device.Device(torch.device("cpu"), kernels)
    _device.find = lambda _: [device]  # type: ignore[assignment]
    return device


def found_gpu() -> Any:
    """The GPU, or None, once it is said why there is none."""
    from igbfast.gpu import _device

    try:
        return _device.find("cuda")[0]
    except (RuntimeError, ImportError, OSError) as error:
        console.print(f"nothing to check here: {error}")
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("build", "test", "time"), help="one of the three steps")
    parser.add_argument("--output", type=Path, default=ROOT / "results/gpu_check.json", metavar="FILE")
    parser.add_argument("--host", type=Path, metavar="FOLDER", help="of _cuda_host: tries the timing without a GPU")
    options = parser.parse_args()
    if options.host is not None:
        measure(on_host(options.host), SMALL, None)
        return 0
    if options.only in (None, "build"):
        build()
    device = found_gpu()
    if device is None or options.only == "build":
        return 0
    failed = test() if options.only in (None, "test") else 0
    if options.only in (None, "time"):
        measure(device, Size(), options.output)
    return failed


if __name__ == "__main__":
    sys.exit(main())
