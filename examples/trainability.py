"""Deep networks that do not train as PyTorch initialises them, and do after `init_`: handwritten digits, same training.

    python examples/trainability.py --figure trainability.png

A tanh and a ReLU network of 50 layers, and a vision transformer of 10 blocks without normalisation or skips. For each:
what `diagnose` finds in the first layer, and the test accuracy before and after training. Needs `igbfast[torch]`. Takes
about two minutes; `--steps 20` is a taste of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import nn

import igbfast as igb
import igbfast.torch as igt

DEPTH, WIDTH, BLOCKS = 50, 128, 10


def mlp(activation: type[nn.Module]) -> nn.Module:
    """As one would write it: 50 linear layers of 128 nodes, and nothing else."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(64, WIDTH), activation()]
    for _ in range(DEPTH - 1):
        layers += [nn.Linear(WIDTH, WIDTH), activation()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def vision_transformer() -> nn.Module:
    """Patches of 2 x 2 pixels, four heads, tanh, no normalisation and no skips; PyTorch's own initialisation."""
    ens = igb.Ensemble("tanh", sigma_w2=1.0)
    model = igt.ViT(ens, width=64, depth=BLOCKS, heads=4, patch=2, image=(1, 8, 8))
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.reset_parameters()
    return model


# Name, model, whether it takes pictures, optimizer and learning rate (the same before and after).
MODELS: tuple[tuple[str, Callable[[], nn.Module], bool, str, float], ...] = (
    (f"tanh, {DEPTH} layers", lambda: mlp(nn.Tanh), False, "sgd", 0.01),
    (f"ReLU, {DEPTH} layers", lambda: mlp(nn.ReLU), False, "adam", 3e-4),
    (f"vanilla ViT, {BLOCKS} blocks", vision_transformer, True, "adam", 3e-4),
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=600, help="steps of training")
    parser.add_argument("--figure", type=Path, help="save a figure of the losses and accuracies")
    options = parser.parse_args(arguments)
    runs: dict[tuple[str, str], igt.Training] = {}
    print(f"{'model':22} {'initialisation':15} {'gradients that reach layer 1':>28} {'test accuracy':>18}")
    for name, make, pictures, optimizer, lr in MODELS:
        data = igt.data.digits(images=pictures)
        for initialised in (False, True):
            torch.manual_seed(0)
            model = make()
            if initialised:
                igt.init_(model, inputs=data.inputs[:256], labels=data.labels[:256])
            found = igt.diagnose(model, data.inputs[:512], data.labels[:512]).dataset.gradient
            run = igt.train(
                model, data, steps=options.steps, optimizer=optimizer, lr=lr, log_every="log", gradients=False
            )
            accuracy = run.dataset.test_accuracy.values
            how = "init_" if initialised else "PyTorch's"
            reach = float(found[0] / found[-2])
            print(f"{name:22} {how:15} {reach:28.1e} {accuracy[0]:8.1%} → {accuracy[-1]:7.1%}", flush=True)
            runs[name, how] = run
    if options.figure:
        draw(runs).savefig(options.figure, dpi=200)


def draw(runs: dict[tuple[str, str], igt.Training]) -> Figure:
    """Training loss and test accuracy by step: a colour for each model, dashed as PyTorch initialises it."""
    figure, panels = plt.subplots(1, 2, figsize=(8.0, 3.2), layout="constrained")
    colours = dict(zip([name for name, *_ in MODELS], ["#0072B2", "#D55E00", "#009E73"], strict=True))
    for (name, how), run in runs.items():
        line = {"color": colours[name], "linestyle": "-" if how == "init_" else "--", "label": f"{name}, {how}"}
        for panel, variable in zip(panels, ("loss", "test_accuracy"), strict=True):
            panel.plot(run.dataset.step + 1, run.dataset[variable], **line)
    panels[0].set(ylabel="training loss", ylim=(0.0, None))
    panels[1].set(ylabel="test accuracy", ylim=(0.0, 1.0))
    panels[1].axhline(0.1, color="#767676", linestyle=":", linewidth=1.0)
    for panel in panels:
        panel.set(xlabel="step + 1", xscale="log")
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


if __name__ == "__main__":
    main()
