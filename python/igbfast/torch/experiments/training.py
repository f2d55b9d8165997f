"""Does the most biased start learn fastest? tanh networks trained from each phase, at the same sigma_b2."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ... import _checks, guessing
from ..._figure import STYLE, require_matplotlib, require_variable
from ...ensemble import Ensemble
from ...meanfield import propagate
from ..models import MLP
from ..plot import (
    add_footnote,
    draw_expected,
    draw_fair_share,
    draw_over_steps,
    draw_points,
    mark_plainly,
    set_steps,
    with_error,
)
from ._experiment import attributes, generator, measured, numbers, seeds_of, trained
from ._starts import PHASES, prepared, starts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PAPER", "figure", "run", "verdict"]

PAPER = {
    "data": "fashion_mnist",
    "width": 1000,
    "depth": 100,
    "steps": 20_000,
    "learning_rates": (1e-4, 3e-4, 1e-3, 3e-3),
    "seeds": 10,
}

_KEPT = ("loss", "accuracy", "test_loss", "test_accuracy", "class_fraction")


def run(
    *,
    activation: str = "tanh",
    sigma_b2: float = 0.3,
    width: int = 100,
    depth: int = 40,
    data: str = "digits",
    folder: str | PathLike[str] | None = None,
    steps: int = 250,
    learning_rates: Sequence[float] | float = (0.003, 0.01, 0.03),
    batch: int = 64,
    optimizer: str = "sgd",
    absorbed_below: float = 0.2,
    seeds: int = 5,
    seed: int = 0,
    device: Any = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Train networks from an ordered, a critical, a chaotic and a neutral start, with the same sigma_b2 and biases.

    Parameters
    ----------
    activation : str, optional
        One that has an edge of chaos and a neutrality line, such as tanh or erf.
    sigma_b2 : float, optional
        Variance of the biases of all networks. The weights' are half of the edge of chaos, the edge, the geometric mean
        of the edge and the neutrality line, and twice the latter.
    width, depth : int, optional
        Of the MLP.
    data, folder : str, path, optional
        What to learn, by its name in `igbfast.torch.data`, and where its files lie. Inputs are centred and have q0 = 1.
    steps, batch, optimizer
        As `igbfast.torch.train` has them.
    learning_rates : float or sequence of float, optional
        Every phase is trained with each: what is compared is the same rate for all, and the best of them for each.
    absorbed_below : float, optional
        The initial bias counts as absorbed when the largest class fraction stays below it.
    seeds, seed : int, optional
        Networks of each kind, and the first one's seed: all phases and rates share their random numbers.
    device : optional
        Where to train.
    progress : bool, optional
        As `igbfast.simulate` has it.

    Returns
    -------
    xarray.Dataset
        Over (`learning_rate`, `phase`, `seed`, `step`): loss, accuracy, test_loss, test_accuracy, largest_fraction;
        absorbed (step, nan if it was not), speed (mean test accuracy over all steps), and sigma_w2, gamma (of the
        outputs, theory) by phase.

    Examples
    --------
    >>> from igbfast.torch import experiments
    >>> ds = experiments.training.run(width=20, depth=3, steps=5, learning_rates=0.1, seeds=2)
    >>> dict(ds.test_accuracy.sizes)
    {'learning_rate': 1, 'phase': 4, 'seed': 2, 'step': 6}
    """
    options = dict(locals())
    rates, places = numbers("learning_rates", learning_rates), starts(activation, sigma_b2)
    absorbed_below = _checks.positive_finite("absorbed_below", absorbed_below)
    steps = _checks.integer("steps", steps, 1)
    source = prepared(data, folder)
    how: dict[str, Any] = {"steps": steps, "batch": batch, "optimizer": optimizer, "device": device}

    def measure(rate: float, phase: str, number: int) -> xr.Dataset:
        model = MLP(
            Ensemble(activation, places[phase], sigma_b2), width=width, depth=depth, features=source.features,
            classes=source.classes, generator=generator(number),
        )  # fmt: skip
        part, result = trained(model, source, _KEPT, lr=rate, seed=number, gradients=False, **how)
        return part.assign(absorbed=result.absorbed(absorbed_below))

    over = {"learning_rate": rates, "phase": PHASES, "seed": seeds_of(seeds, seed)}
    ds = measured(measure, over, progress)
    ds["largest_fraction"] = ds["class_fraction"].max("class", skipna=False)
    ds["speed"] = ds["test_accuracy"].fillna(0.0).integrate("step") / steps
    ds["sigma_w2"] = ("phase", [places[phase] for phase in PHASES])
    limits = [propagate(Ensemble(activation, places[phase], sigma_b2), depth + 1) for phase in PHASES]
    ds["gamma"] = ("phase", [float(limit["gamma"][-1]) for limit in limits])
    return ds.assign_attrs(attributes("training", options))


def best_rates(dataset: xr.Dataset) -> xr.Dataset:
    """Of each phase, the runs with the learning rate at which its mean test accuracy over all steps is largest."""
    best = dataset["speed"].mean("seed").argmax("learning_rate")
    return dataset.isel(learning_rate=best)


def figure(dataset: xr.Dataset) -> Figure:
    """Loss, accuracy and largest class fraction over the steps, with each phase's best learning rate, and all rates.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `run` returned. Bands and bars are standard errors over the seeds.

    Returns
    -------
    matplotlib.figure.Figure
        Made by pyplot, so `matplotlib.pyplot.show()` shows it.
    """
    require_matplotlib()
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    require_variable(dataset, "absorbed", "experiments.training.run")
    best, attrs = best_rates(dataset), dataset.attrs
    with mpl.rc_context(STYLE):
        shown = plt.figure(figsize=(7.6, 5.8), layout="constrained")
        loss, accuracy, largest, rates = shown.subplots(2, 2).flat
        for index, phase in enumerate(PHASES):
            at = best.sel(phase=phase)
            label = rf"{phase}, $\sigma_w^2 = {float(at.sigma_w2):.2f}$"
            for ax, name in ((loss, "loss"), (accuracy, "test_accuracy"), (largest, "largest_fraction")):
                draw_over_steps(ax, at[name], label, index)
            draw_points(rates, _beside(dataset, index), dataset["speed"].sel(phase=phase), label, index, linestyle="-")
        for ax, words in ((loss, "training loss"), (accuracy, "test accuracy"), (largest, "largest class fraction")):
            set_steps(ax)
            ax.set_ylabel(words)
        accuracy.set_ylim(0.0, 1.0)
        loss.set_ylim(0.0, 1.6 * float(np.log(dataset.sizes["class"])))
        rates.set(xscale="log", xlabel="learning rate", ylabel="mean test accuracy of all steps", ylim=(0.0, 1.0))
        mark_plainly(rates, dataset["learning_rate"].values.tolist())
        for index, gamma in enumerate(dataset["gamma"].values):
            share = guessing.expected_maximum(gamma, classes=dataset.sizes["class"])
            draw_expected(largest, share, index)
        draw_fair_share(accuracy, dataset)
        draw_fair_share(largest, dataset)
        draw_fair_share(rates, dataset)
        largest.axhline(attrs["absorbed_below"], color="0.46", linewidth=0.8, linestyle="--", zorder=0)
        shown.legend(*loss.get_legend_handles_labels(), loc="outside upper center", ncols=2, handlelength=3.0)
        add_footnote(shown, dataset, "the best learning rate of each phase; open points: theory")
    return shown


def _beside(dataset: xr.Dataset, index: int) -> NDArray[np.float64]:
    """Learning rates, shifted a little so that points do not hide one another."""
    rates: NDArray[np.float64] = dataset["learning_rate"].values * 1.04 ** (index - 1.5)
    return rates


def verdict(dataset: xr.Dataset) -> str:
    """Who learned fastest, with which bias at first, and when it was absorbed."""
    best, means = best_rates(dataset), dataset["speed"].mean("seed")
    *_, second, fastest = (PHASES[at] for at in np.argsort(best["speed"].mean("seed").values))
    lead = with_error(best["speed"].sel(phase=fastest) - best["speed"].sel(phase=second))
    same = [PHASES[at] == fastest for at in means.argmax("phase").values]  # at each rate
    lines = [
        f"Fastest, each phase with its best learning rate: {fastest}, by {lead} of test accuracy, mean of all steps, "
        f"over {second}. With the same rate for all, {fastest} is fastest at {sum(same)} of {len(same)} rates."
    ]
    for phase in PHASES:
        at = best.sel(phase=phase)
        first, last = with_error(at["largest_fraction"][:, 0]), with_error(at["test_accuracy"][:, -1])
        lines.append(
            f"{phase} (lr {float(at.learning_rate):g}): largest class {first} at first, "
            f"{_absorption(at['absorbed'].values)}, test accuracy {last} at last."
        )
    return "\n".join(lines)


def _absorption(steps: NDArray[np.float64]) -> str:
    done = steps[np.isfinite(steps)]
    if not done.size:
        return "not absorbed by any network"
    if done.size == steps.size:
        return f"absorbed, median step {np.median(done):,.0f} ({done.min():,.0f} to {done.max():,.0f})"
    share = f"absorbed by {done.size} of {steps.size} networks"
    median = np.median(np.where(np.isfinite(steps), steps, np.inf))
    if np.isinf(median):
        return f"{share}, from step {done.min():,.0f}"
    return f"{share}, median step {median:,.0f} (from {done.min():,.0f})"
