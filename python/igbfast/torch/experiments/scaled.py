"""What does scaling a trained model's weights do to its bias, and to how fast it learns another task?"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
import xarray as xr

from ... import _checks
from ..._figure import STYLE, require_matplotlib, require_variable
from ...ensemble import Ensemble
from ...phases import edge_of_chaos
from ..data import Data
from ..initialisation import scale_
from ..models import MLP, timm_model
from ..plot import add_footnote, draw_fair_share, draw_over_steps, set_steps, with_error
from ._experiment import attributes, generator, measured, numbers, seeds_of, trained
from ._starts import prepared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PAPER", "figure", "halves", "run", "verdict"]

PAPER = {
    "model": "vit_large_patch16_224",
    "data": "cifar100",
    "steps": 5000,
    "lr": 1e-4,
    "optimizer": "adam",
    "seeds": 3,
}

_KEPT = ("loss", "test_loss", "test_accuracy", "class_fraction", "gradient_class")


def run(
    *,
    model: str = "mlp",
    factors: Sequence[float] | float = (0.5, 1.0, 1.5),
    pretrained: bool = True,
    activation: str = "tanh",
    sigma_b2: float = 0.05,
    width: int = 100,
    depth: int = 20,
    data: str = "digits",
    folder: str | PathLike[str] | None = None,
    first_steps: int = 400,
    steps: int = 200,
    lr: float = 0.003,
    batch: int = 64,
    optimizer: str = "sgd",
    seeds: int = 5,
    seed: int = 0,
    device: Any = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Train a model on one task, scale its weights, give it a new head, and train it on another.

    Parameters
    ----------
    model : str, optional
        "mlp": an MLP from its edge of chaos is trained on the first half of the classes, and then learns to tell the
        other half. The name of a timm model: that model learns all classes, from images of the size it is made for.
    factors : float or sequence of float, optional
        What the weights are multiplied by (not biases, not normalisations, not the new head).
    pretrained : bool, optional
        Whether the timm model comes with its trained weights, which timm downloads.
    activation, sigma_b2, width, depth : optional
        Of the MLP.
    data, folder : str, path, optional
        By its name in `igbfast.torch.data`, and where its files lie.
    first_steps : int, optional
        Steps of the first training, of the MLP.
    steps, lr, batch, optimizer
        As `igbfast.torch.train` has them, for both.
    seeds, seed : int, optional
        Models (of timm: new heads), and the first one's seed. All factors share a model and a head.
    device : optional
        Where to train.
    progress : bool, optional
        As `igbfast.simulate` has it.

    Returns
    -------
    xarray.Dataset
        Over (`factor`, `seed`, `step`): loss, test_loss, test_accuracy, largest_fraction; gradient_class (of the first
        layer), also over `class`; speed, the mean test accuracy of all steps, over (`factor`, `seed`); first_accuracy
        of the first task over `seed` (nan for timm models).

    Examples
    --------
    >>> from igbfast.torch import experiments
    >>> ds = experiments.scaled.run(width=20, depth=3, first_steps=5, steps=5, seeds=2)
    >>> ds.speed.dims
    ('factor', 'seed')
    """
    options = dict(locals())
    scales, steps = numbers("factors", factors), _checks.integer("steps", steps, 1)
    how: dict[str, Any] = {"lr": lr, "batch": batch, "optimizer": optimizer, "device": device}
    first: Data | None = None
    if model == "mlp":
        first, second = halves(prepared(data, folder))
        ens = Ensemble(activation, float(edge_of_chaos(activation, sigma_b2)), sigma_b2)
    else:
        second = prepared(data, folder, images=True)

    def measure(number: int) -> xr.Dataset:
        accuracy = float("nan")
        if first is None:
            learned = _timm(model, second, pretrained)
        else:
            sizes = {"features": first.features, "classes": first.classes, "width": width, "depth": depth}
            learned = MLP(ens, generator=generator(number), **sizes)
            part, _ = trained(learned, first, _KEPT[:3], steps=first_steps, seed=number, gradients=False, **how)
            accuracy = float(part["test_accuracy"][-1])

        def relearned(factor: float) -> xr.Dataset:
            scaled = scale_(copy.deepcopy(learned), factor)
            new_head_(scaled, second.classes, generator(number, 1))
            return trained(scaled, second, _KEPT, steps=steps, seed=number, **how)[0]

        return measured(relearned, {"factor": scales}, False).assign(first_accuracy=accuracy)

    ds = measured(measure, {"seed": seeds_of(seeds, seed)}, progress).transpose("factor", "seed", ...)
    ds["largest_fraction"] = ds["class_fraction"].max("class", skipna=False)
    ds["speed"] = ds["test_accuracy"].fillna(0.0).integrate("step") / steps
    return ds.assign_attrs(attributes("scaled", options))


def _timm(name: str, data: Data, pretrained: bool) -> Any:
    """A timm model that takes the data's images, whatever the size that it was trained on."""
    model = timm_model(name, classes=data.classes, pretrained=pretrained, in_chans=data.shape[0])
    size = model.pretrained_cfg.get("input_size", (3, 224, 224))[1:]
    return torch.nn.Sequential(torch.nn.Upsample(tuple(size), mode="bilinear"), model)


def halves(data: Data) -> tuple[Data, Data]:
    """The inputs of the first half of the classes, and those of the other half, numbered from 0."""
    middle = data.classes // 2
    return _only(data, range(middle)), _only(data, range(middle, data.classes))


def _only(data: Data, classes: range) -> Data:
    def inside(labels: Any) -> Any:
        return (labels >= classes.start) & (labels < classes.stop)

    train_on, test_on = inside(data.labels), inside(data.test_labels)
    return replace(
        data,
        inputs=data.inputs[train_on],
        labels=data.labels[train_on] - classes.start,
        test_inputs=data.test_inputs[test_on],
        test_labels=data.test_labels[test_on] - classes.start,
        classes=len(classes),
        class_names=data.class_names[classes.start : classes.stop],
        name=f"{data.name}, classes {classes.start} to {classes.stop - 1}",
    )


def new_head_(model: Any, classes: int, random: Any) -> None:
    """Another last layer, of weights N(0, 1 / fan_in) and no biases, in place of the `head` or what timm calls so."""
    timm = [module for module in model.modules() if hasattr(module, "get_classifier")]
    old = timm[0].get_classifier() if timm else model.head
    head = torch.nn.Linear(old.in_features, classes).to(old.weight.device, old.weight.dtype)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=random) / old.in_features**0.5)
        head.bias.zero_()
    for module in model.modules():
        for name, child in module.named_children():
            if child is old:
                setattr(module, name, head)
                return


def figure(dataset: xr.Dataset) -> Figure:
    """Largest class fraction, training loss and test accuracy over the steps, for each factor.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `run` returned. Bands are standard errors over the seeds.

    Returns
    -------
    matplotlib.figure.Figure
        Made by pyplot, so `matplotlib.pyplot.show()` shows it.
    """
    require_matplotlib()
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    require_variable(dataset, "speed", "experiments.scaled.run")
    with mpl.rc_context(STYLE):
        shown = plt.figure(figsize=(9.6, 3.4), layout="constrained")
        axes = shown.subplots(1, 3)
        names = {
            "largest_fraction": "largest class fraction",
            "loss": "training loss",
            "test_accuracy": "test accuracy",
        }
        for ax, (name, words) in zip(axes, names.items(), strict=True):
            for index, factor in enumerate(dataset["factor"].values):
                draw_over_steps(ax, dataset[name].sel(factor=factor), f"weights × {factor:g}", index)
            ax.set_ylabel(words)
            set_steps(ax)
        for ax in (axes[0], axes[2]):
            ax.set_ylim(0.0, 1.03)
            draw_fair_share(ax, dataset)
        axes[1].set_ylim(bottom=0.0)
        shown.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, handlelength=3.0)
        add_footnote(shown, dataset, f"learning rate {dataset.attrs['lr']:g}", model=dataset.attrs["model"])
    return shown


def verdict(dataset: xr.Dataset) -> str:
    """The bias and the gradients after scaling, and how far learning came, for each factor."""
    lines = []
    for factor in dataset["factor"].values:
        at = dataset.sel(factor=factor)
        gradient = float(at["gradient_class"].isel(step=0).mean("class").median())
        bias, speed, last = (
            with_error(values) for values in (at["largest_fraction"][:, 0], at["speed"], at["test_accuracy"][:, -1])
        )
        lines.append(
            f"Weights × {factor:g}: largest class {bias} at first, squared gradients of the first layer "
            f"{gradient:.1e}; test accuracy {speed} as the mean of all steps, {last} at last."
        )
    fastest = float(dataset["factor"][int(dataset["speed"].mean("seed").values.argmax())])
    return "\n".join([*lines, f"Weights × {fastest:g} learn fastest."])
