"""Are short runs biased? The share of runs in which a class is never predicted, by number of steps and phase."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ... import _checks, guessing
from ..._figure import STYLE, require_matplotlib, require_variable
from ...ensemble import Ensemble
from ...meanfield import propagate
from ..models import MLP
from ..plot import add_footnote, draw_expected, draw_over_steps, set_steps
from ._experiment import EVALUATED, attributes, generator, measured, seeds_of, trained
from ._starts import PHASES, prepared, starts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PAPER", "figure", "run", "verdict"]

PAPER = {"data": "fashion_mnist", "width": 1000, "depth": 100, "steps": 5000, "lr": 0.001, "seeds": 50}

_KEPT = ("test_accuracy", "test_class_fraction")


def run(
    *,
    activation: str = "tanh",
    sigma_b2: float = 0.3,
    width: int = 100,
    depth: int = 20,
    data: str = "digits",
    folder: str | PathLike[str] | None = None,
    steps: int = 100,
    lr: float = 0.01,
    batch: int = 64,
    optimizer: str = "sgd",
    seeds: int = 20,
    seed: int = 0,
    device: Any = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Train many networks from each phase, and count the classes that they never predict.

    Parameters
    ----------
    activation : str, optional
        One that has an edge of chaos and a neutrality line, such as tanh or erf.
    sigma_b2 : float, optional
        Variance of the biases of all networks; the weights' are those of the experiment `training`.
    width, depth : int, optional
        Of the MLP.
    data, folder : str, path, optional
        What to learn, by its name in `igbfast.torch.data`, and where its files lie.
    steps, lr, batch, optimizer
        As `igbfast.torch.train` has them.
    seeds, seed : int, optional
        Networks of each phase, and the first one's seed.
    device : optional
        Where to train.
    progress : bool, optional
        As `igbfast.simulate` has it.

    Returns
    -------
    xarray.Dataset
        Over (`phase`, `seed`, `step`): missing, the number of classes that no input of the test set is given to;
        test_accuracy; test_class_fraction, also over `class`. missing_theory over `phase`: the share of untrained
        networks of infinite width that miss a class of as many independent inputs.

    Examples
    --------
    >>> from igbfast.torch import experiments
    >>> ds = experiments.short_runs.run(width=20, depth=3, steps=5, seeds=2)
    >>> ds.missing.dims
    ('phase', 'seed', 'step')
    """
    options = dict(locals())
    steps = _checks.integer("steps", steps, 1)
    places, source = starts(activation, sigma_b2), prepared(data, folder)
    how: dict[str, Any] = {"steps": steps, "lr": lr, "batch": batch, "optimizer": optimizer, "device": device}

    def measure(phase: str, number: int) -> xr.Dataset:
        model = MLP(
            Ensemble(activation, places[phase], sigma_b2), width=width, depth=depth, features=source.features,
            classes=source.classes, generator=generator(number),
        )  # fmt: skip
        return trained(model, source, _KEPT, seed=number, gradients=False, **how)[0]

    ds = measured(measure, {"phase": PHASES, "seed": seeds_of(seeds, seed)}, progress)
    shares = ds["test_class_fraction"]
    ds["missing"] = (shares == 0.0).sum("class").where(shares.notnull().all("class"))
    ds["sigma_w2"] = ("phase", [places[phase] for phase in PHASES])
    inputs = min(EVALUATED, len(source.test_inputs))
    ensembles = [Ensemble(activation, places[phase], sigma_b2) for phase in PHASES]
    ds["missing_theory"] = ("phase", [_missing_at_first(ens, depth, source.classes, inputs) for ens in ensembles])
    return ds.assign_attrs(attributes("short_runs", options))


def _missing_at_first(ens: Ensemble, depth: int, classes: int, inputs: int, networks: int = 4000) -> float:
    """The share of untrained networks of infinite width that give none of so many independent inputs to some class.

    Given a network, the counts of the classes are multinomial; a Poisson law of each is near enough.
    """
    gamma = float(propagate(ens, depth + 1)["gamma"][-1])  # of the outputs
    shares = guessing.sample(gamma, classes=classes, size=networks)
    none_missing = np.prod(-np.expm1(-inputs * shares), axis=-1)
    return float(1.0 - none_missing.mean())


def figure(dataset: xr.Dataset) -> Figure:
    """The share of runs with a class that is never predicted, how many classes these are, and the accuracy, by step.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `run` returned. Bands are standard errors over the seeds; open points at step 0 are theory of untrained
        networks.

    Returns
    -------
    matplotlib.figure.Figure
        Made by pyplot, so `matplotlib.pyplot.show()` shows it.
    """
    require_matplotlib()
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    require_variable(dataset, "missing", "experiments.short_runs.run")
    panels = (
        (
            "share of runs in which\na class is never predicted",
            (dataset["missing"] > 0.0).where(dataset["missing"] >= 0.0),
        ),
        ("classes never predicted", dataset["missing"]),
        ("test accuracy", dataset["test_accuracy"]),
    )
    with mpl.rc_context(STYLE):
        shown = plt.figure(figsize=(9.6, 3.4), layout="constrained")
        axes = shown.subplots(1, 3)
        for ax, (words, values) in zip(axes, panels, strict=True):
            for index, phase in enumerate(PHASES):
                label = rf"{phase}, $\sigma_w^2 = {float(dataset.sigma_w2.sel(phase=phase)):.2f}$"
                draw_over_steps(ax, values.sel(phase=phase), label, index)
            ax.set_ylabel(words)
            set_steps(ax)
        handles, labels = axes[0].get_legend_handles_labels()
        for index, theory in enumerate(dataset["missing_theory"].values):
            draw_expected(axes[0], theory, index)
        axes[0].set_ylim(-0.03, 1.03)
        axes[2].set_ylim(0.0, 1.0)
        shown.legend(handles, labels, loc="outside upper center", ncols=4, handlelength=3.0)
        add_footnote(shown, dataset, f"learning rate {dataset.attrs['lr']:g}; open points: theory, untrained")
    return shown


def verdict(dataset: xr.Dataset) -> str:
    """How many runs miss a class, at first, after a tenth of the steps, and at last."""
    last = int(dataset["step"][-1])
    steps = dict.fromkeys(int(dataset["step"].sel(step=at, method="nearest")) for at in (0, last // 10, last))
    missing = dataset["missing"]
    lines = ["Runs in which some class is never predicted:"]
    for phase in PHASES:
        parts = []
        for step in steps:
            at = missing.sel(phase=phase, step=step).dropna("seed")
            parts.append(f"{int((at > 0).sum())} of {at.size} after {step} steps")
        theory = float(dataset["missing_theory"].sel(phase=phase))
        lines.append(f"{phase}: {', '.join(parts)} (untrained, theory: a share of {theory:.2f}).")
    return "\n".join(lines)
