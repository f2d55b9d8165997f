"""Squared gradients at the first over the last hidden layer of deep models: PyTorch's initialisation against `init_`.

    python -m bench.initialisation                 five networks of each kind, about ten minutes: a table
    python -m bench.initialisation --networks 1 --depth 20      small, to try it

Gradients of the cross-entropy with the labels of handwritten digits, by automatic differentiation with respect to the
outputs of the modules themselves, in double precision (in single precision those of the default initialisation come out
as zero), on digits that `init_` has not seen. Two ratios: of the mean square per unit, and of the sum over the units;
they differ where layers differ in size, as after pools.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn

import igbfast as igb
import igbfast.torch as igt

console = Console(highlight=False, width=130)


@dataclass(frozen=True)
class Kind:
    """A model as one would write it, and the layers between which gradients are compared."""

    name: str
    make: Callable[[], nn.Module]
    first: str
    last: str
    images: bool = False


def mlp(activation: type[nn.Module], depth: int, width: int) -> nn.Module:
    """Plain linear layers."""
    layers: list[nn.Module] = [nn.Linear(64, width), activation()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def cnn(depth: int, channels: int) -> nn.Module:
    """3 x 3 convolutions with circular padding, ReLU, and two max pools of 2 x 2 on the way."""
    layers: list[nn.Module] = []
    for layer in range(depth):
        into = 1 if layer == 0 else channels
        layers += [nn.Conv2d(into, channels, 3, padding=1, padding_mode="circular"), nn.ReLU()]
        if layer in (depth // 3, 2 * depth // 3):
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def vit(depth: int, width: int) -> nn.Module:
    """A vision transformer without normalisation or skips, GELU, in PyTorch's own initialisation."""
    model = igt.ViT(igb.Ensemble("gelu", sigma_w2=1.0), width=width, depth=depth, patch=2, image=(1, 8, 8))
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.reset_parameters()
    return model


def kinds(depth: int, width: int) -> Iterator[Kind]:
    """The four kinds of models; convolutions are half as deep, transformer blocks a fifth."""
    for activation in (nn.Tanh, nn.ReLU):
        name = f"{activation.__name__} MLP, {depth} layers of {width}"
        yield Kind(name, partial(mlp, activation, depth, width), "0", str(2 * (depth - 1)))
    half, fifth = depth // 2, depth // 5
    convolutions = [i for i, m in enumerate(cnn(half, 2)) if isinstance(m, nn.Conv2d)]
    name = f"ReLU CNN, {half} layers of 64 channels, 2 max pools"
    yield Kind(name, partial(cnn, half, 64), "0", str(convolutions[-1]), images=True)
    name = f"vanilla GELU ViT, {fifth} blocks of 128"
    yield Kind(name, partial(vit, fifth, 128), "embedding", f"blocks.{fifth - 1}.mlp.second", images=True)


def ratios(model: nn.Module, kind: Kind, inputs: Any, labels: Any) -> tuple[float, float]:
    """Squared gradients at the first layer over those at the last: means per unit, and sums."""
    outputs: dict[str, Any] = {}
    handles = []
    for name in (kind.first, kind.last):

        def keep(module: Any, args: Any, output: Any, name: str = name) -> None:
            output.retain_grad()
            outputs[name] = output

        handles.append(model.get_submodule(name).register_forward_hook(keep))
    nn.functional.cross_entropy(model(inputs), labels, reduction="sum").backward()
    for handle in handles:
        handle.remove()
    model.zero_grad()
    first, last = (outputs[name].grad.square() for name in (kind.first, kind.last))
    return float(first.mean() / last.mean()), float(first.sum() / last.sum())


WAYS = ("PyTorch's", "init_(model)", "init_(model, inputs=...)")


def measured(kind: Kind, way: str, seed: int) -> tuple[float, float]:
    """The two ratios of one network."""
    digits = igt.data.digits(images=kind.images).to(dtype=torch.float64)
    torch.manual_seed(seed)
    model = kind.make().double()
    if way == WAYS[1]:
        igt.init_(model, example=digits.inputs[:64])
    elif way == WAYS[2]:
        igt.init_(model, inputs=digits.inputs[:128], labels=digits.labels[:128])
    return ratios(model, kind, digits.test_inputs[:128], digits.test_labels[:128])


def shown(values: NDArray[np.float64]) -> str:
    """The geometric mean, its spread as a factor, and how many lie within a factor of three."""
    logs = np.log10(values)
    within = int(np.sum(np.abs(logs) <= np.log10(3.0)))
    mean = f"{10 ** logs.mean():.2g}"
    spread = "" if len(logs) == 1 else f" ×/÷ {10 ** logs.std(ddof=1):.2f}"
    return f"{mean}{spread}, {within} of {len(values)}" if within else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", type=int, default=5, help="networks of each kind")
    parser.add_argument("--depth", type=int, default=100, help="layers of the MLPs")
    parser.add_argument("--width", type=int, default=500, help="nodes of their layers")
    options = parser.parse_args()
    table = Table(*("model", "initialisation", "per unit", "summed over units"), box=None, pad_edge=False)
    for kind in kinds(options.depth, options.width):
        for way in WAYS:
            found = np.array([measured(kind, way, seed) for seed in range(options.networks)])
            table.add_row(kind.name, way, shown(found[:, 0]), shown(found[:, 1]))
            console.print(f"[dim]{kind.name}, {way}[/]")
    console.print(table)
    console.print("geometric mean ×/÷ spread of one network, and how many lie within a factor of 3")


if __name__ == "__main__":
    main()
