"""Training with a log of how the initial bias is absorbed.

A network that has not been trained gives most inputs to a few classes, and training begins by undoing this. `train` is
a plain loop, one optimizer step on the cross-entropy of one batch after the other, that watches it: the share of inputs
that each class gets, what each class loses, which gradients reach the first layer, and gamma by layer.
"""

from __future__ import annotations

import contextlib
import csv
import inspect
import io
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from .. import _checks, _saving
from .._progress import progress_bar
from .._report import Report
from ..validation import save_netcdf
from ._batches import unwrapped
from ._evaluation import modes_kept, own_randomness, predicted
from ._training_run import LOGGED, MAX_SEED, Run, Settings
from .data import Data

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Training", "select_initial", "train"]


_REDRAWN = 200  # times that a progress bar changes in a run; a redraw costs as much as a small step


@dataclass(frozen=True, eq=False)
class Training(Report):
    """What was logged while a model was trained, and the model.

    Print it for a table of some steps.
    """

    dataset: xr.Dataset
    """Over `step` (optimizer steps taken) and, where it says so, `class`: loss, accuracy, test_loss, test_accuracy,
    class_fraction, test_class_fraction, loss_class, accuracy_class, gradient_class, learning_rate; and over
    (`measured_step`, `layer`): gamma. The attributes say what was run."""
    model: torch.nn.Module
    """The model that was given, trained."""

    def absorbed(self, threshold: float | None = None) -> float:
        """The step from which on the initial bias is gone.

        The largest class fraction, the share of the training set that the favoured class gets, must have come down to
        the threshold and stay there. A single logged step above it does not count: each is replaced by the median of
        itself and its two neighbours. Time is told to the spacing of the log; `log_every="log"` is fine in the early
        steps, where it matters.

        Parameters
        ----------
        threshold : float, optional
            Above 0, at most 1. By default halfway between the largest class fraction at step 0 and the largest share
            that a class truly has, but not below the latter by less than three of its binomial standard deviations: a
            model without bias starts below, and has nothing to absorb.

        Returns
        -------
        float
            A logged step; 0 if there was nothing to absorb, nan if it was not absorbed by the last step, or training
            stopped because the loss was not finite.

        Raises
        ------
        ValueError, TypeError
            If `threshold` is not a number above 0 and at most 1.

        Examples
        --------
        >>> from igbfast.torch import data
        >>> model = torch.nn.Linear(20, 2)
        >>> with torch.no_grad():
        ...     model.bias.copy_(torch.tensor([0.0, 8.0]))  # gives all inputs to the second class
        Parameter containing:
        tensor([0., 8.], requires_grad=True)
        >>> run = train(model, data.blobs(200, features=20), steps=100, lr=0.1, log_every="log")
        >>> 0 < run.absorbed() < 100
        True
        """
        limit = self.threshold if threshold is None else _checks.positive_finite("threshold", threshold)
        if limit > 1.0:
            raise ValueError(f"threshold must be a share above 0, at most 1, got {_checks.shown(threshold)}")
        largest = self.dataset["class_fraction"].max("class", skipna=False).values
        padded = np.concatenate([largest[:1], largest, largest[-1:]])
        smoothed = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
        above = np.flatnonzero(~(smoothed <= limit))  # nan counts as above
        first = 0 if above.size == 0 else int(above[-1]) + 1
        return float(self.dataset["step"].values[first]) if first < len(smoothed) else float("nan")

    @property
    def threshold(self) -> float:
        """The largest class fraction at or below which the bias counts as absorbed, if nothing else is said."""
        initial = float(self.dataset["class_fraction"][0].max())
        fair = float(self.dataset["class_share"].max())
        deviation = np.sqrt(fair * (1.0 - fair) / self.dataset.attrs["evaluated"])
        return max((initial + fair) / 2.0, fair + 3.0 * float(deviation))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the dataset, whole or not at all.

        Parameters
        ----------
        path : path
            Ends in `.nc` for netCDF, which `xarray.load_dataset` reads back, or in `.csv` for a table with one row for
            each step, and a column for each class (`class_fraction_3`) and layer (`gamma_17`).

        Raises
        ------
        ValueError, OSError
            If the name has another ending, or the file cannot be written.
        """
        target = _saving.checked_target("path", path, (".nc", ".csv"))
        if target.suffix.lower() == ".nc":
            save_netcdf(self.dataset, target)
            return
        with _saving.whole_file(target) as draft:
            draft.write_text(_as_csv(self.dataset), encoding="utf-8")

    def plot(self) -> Figure:
        """The figure: loss, accuracy and the largest class fraction by step.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed; the message says how to get it.
        """
        from . import plot

        return plot.training(self)

    @property
    def sentence(self) -> str:
        """What happened, in words."""
        attrs, last = self.dataset.attrs, self.dataset.isel(step=-1)
        if attrs["stopped_at"] >= 0:
            return f"Stopped: the loss was not finite at step {attrs['stopped_at']}."
        first, when = float(self.dataset["class_fraction"][0].max()), self.absorbed()
        bias = f"{100 * first:.0f} % of the inputs went to one class at first, "
        bias += "which is not absorbed" if np.isnan(when) else f"absorbed by step {when:.0f}"
        if when == 0:
            bias = "there was no bias to absorb"
        tested = f", {100 * float(last['test_accuracy']):.1f} % on the test set" if "test_accuracy" in last else ""
        return f"Accuracy {100 * float(last['accuracy']):.1f} %{tested} after {attrs['steps']:,} steps; {bias}."

    def __repr__(self) -> str:
        attrs = self.dataset.attrs
        return f"<Training of {attrs['model']} on {attrs['data']}, {attrs['optimizer']}: {self.sentence}>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from ._training_table import training_table

        return training_table(self)


def train(
    model: torch.nn.Module,
    data: Data | Sequence[Any],
    *,
    steps: int | None = None,
    epochs: int | None = None,
    optimizer: str | Callable[..., Any] = "sgd",
    lr: float = 0.01,
    batch: int = 64,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    seed: int = 0,
    log_every: int | str = 10,
    evaluate_inputs: int | None = 2000,
    measure_at: Sequence[int] = (),
    measure_inputs: int = 200,
    gradients: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 0,
    resume: bool = False,
    device: Any = None,
    progress: bool | None = None,
) -> Training:
    """Train a classifier by cross-entropy, and log how its initial bias is absorbed.

    The model is trained in place. The same seed gives the same result to the last bit on the CPU (with the same number
    of threads), also with dropout and BatchNorm, whatever is logged, and also if the run was interrupted and resumed
    from its checkpoint. PyTorch's global random numbers begin at `seed` for the time of the call, and are afterwards as
    if it had not been.

    Parameters
    ----------
    model : torch.nn.Module
        Takes inputs of the data's shape, returns one output for each class. It is trained in training mode (modules
        that are in evaluation mode while the model is not stay so) and evaluated in evaluation mode, where BatchNorm
        uses its running averages, which at first know nothing of the data. It is left in the modes that it came in.
    data : Data, or (inputs, labels), or (inputs, labels, test_inputs, test_labels)
        What to learn. Without a test set there are no `test_` variables.
    steps, epochs : int, optional
        Optimizer steps, or rounds through the training set; one of them. 0 only evaluates.
    optimizer : {"sgd", "adam"} or callable, optional
        A callable takes the parameters and returns a `torch.optim.Optimizer`; then `lr`, `momentum` and `weight_decay`
        have no effect.
    lr, momentum, weight_decay : float, optional
        As in torch.optim.
    batch : int, optional
        Inputs in a batch. Every epoch is a new permutation of the training set, cut into batches of this size; what is
        left over waits for the next one. All inputs at most.
    seed : int, optional
        Of the permutations and of what the model draws itself, such as dropout.
    log_every : int or "log", optional
        Steps between entries of the log, which has step 0 and the last one too. "log": steps 0 to 10, then ever fewer,
        15 for each factor of ten: bias is absorbed in the first steps, and a fixed spacing wastes entries or misses it.
    evaluate_inputs : int or None, optional
        At most so many inputs of the training and of the test set are evaluated for each entry, drawn once, the same
        for all seeds; None for all of them.
    measure_at : sequence of int, optional
        Steps at which gamma of every layer is measured, as `diagnose` does.
    measure_inputs : int, optional
        With so many inputs of the training set, at least 2.
    gradients : bool, optional
        Whether to log `gradient_class`, which doubles the cost of an entry or so.
    checkpoint : path, optional
        File (`.pt`) from which the run can go on: written every `checkpoint_every` steps (0: not in between), at the
        end and on Ctrl-C.
    resume : bool, optional
        Go on from `checkpoint` if there is such a file, else begin. More steps may be asked for than at first.
    device : optional
        Moves the model there. By default it stays where it is; the data are moved to it batch by batch.
    progress : bool, optional
        None: a progress bar if the terminal is watched; True: always; False: none.

    Returns
    -------
    Training

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type, the model does not give one output for each class, or the
        checkpoint is of another model, other data or other settings.
    OSError
        If the checkpoint cannot be written.
    KeyboardInterrupt
        On Ctrl-C; with a checkpoint, after the step that is being taken has been finished and saved (a second Ctrl-C
        does not wait).

    Warns
    -----
    RuntimeWarning
        If the loss is not finite at some step. Training stops there, and all later entries of the log are nan.

    Examples
    --------
    >>> from igbfast.torch import data
    >>> model = torch.nn.Linear(20, 2)
    >>> run = train(model, data.blobs(500, features=20), steps=50, lr=0.1)
    >>> run.dataset.step.values
    array([ 0, 10, 20, 30, 40, 50])
    >>> bool(run.dataset.accuracy[-1] > 0.9)
    True
    >>> run.dataset.class_fraction.dims
    ('step', 'class')
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {_checks.shown(model)}")
    inner = unwrapped(model)
    if not any(parameter.requires_grad for parameter in inner.parameters()):
        raise ValueError("model must have parameters that require gradients, got one whose parameters are all frozen")
    data = as_data(data)
    settings = Settings.checked(
        data,
        steps=steps,
        epochs=epochs,
        optimizer=optimizer,
        lr=lr,
        batch=batch,
        momentum=momentum,
        weight_decay=weight_decay,
        seed=seed,
        log_every=log_every,
        evaluate_inputs=evaluate_inputs,
        measure_at=measure_at,
        measure_inputs=measure_inputs,
        gradients=gradients,
    )
    target, every = _checked_checkpoint(checkpoint, checkpoint_every, resume)
    require_fit(inner, data)
    if _checked_device(device) is not None:
        model.to(device)
    with (
        modes_kept(inner),
        own_randomness(inner, settings.seed),
        torch.inference_mode(False),
        torch.enable_grad(),
        progress_bar("training", progress) as show,
    ):
        if not model.training:
            model.train()
        run = Run(model, data, settings, optimizer)
        if target is not None and resume and target.exists():
            run.go_on_from(target)
        with _interrupts_held(target is not None) as interrupted:
            while True:
                run.log()
                stop = interrupted()
                if target is not None and (stop or run.finished or (every and run.step and run.step % every == 0)):
                    run.save(target)
                if stop:
                    raise KeyboardInterrupt
                if run.finished:
                    break
                run.take_step()
                if run.step % max(1, settings.steps // _REDRAWN) == 0:
                    show(run.step / settings.steps)
    if run.stopped_at >= 0:
        message = f"the loss is not finite at step {run.stopped_at}: training stopped there (a smaller lr may help)"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return Training(run.dataset(), model)


def select_initial(
    make_model: Callable[[Any], torch.nn.Module],
    data: Data | Sequence[Any] | torch.Tensor,
    *,
    largest_fraction: float | tuple[float, float] | str,
    tries: int = 100,
    seed: int = 0,
    return_tries: bool = False,
) -> Any:
    """A random initial state chosen by its bias: by the share of the inputs that its favoured class gets.

    Of one law of weights, some draws are more biased than others. To compare how laws train, the paper starts each of
    them from a state of a chosen largest class fraction.

    Parameters
    ----------
    make_model : callable
        Takes a `torch.Generator`, returns a new model: `lambda generator: MLP(ens, width=100, depth=20,
        generator=generator)`. PyTorch's global random numbers, for models that draw from them, begin at `seed` as well,
        and are afterwards as if this call had not been.
    data : Data, (inputs, labels) or tensor
        The inputs, of which all are classified.
    largest_fraction : float, (low, high) or "largest"
        A number: at least so much. Two: within these bounds. "largest": the most biased of all tries.
    tries : int, optional
        Draw no more than so many models.
    seed : int, optional
        Same seed, same models in the same order.
    return_tries : bool, optional
        Whether to return how many models were drawn, too.

    Returns
    -------
    torch.nn.Module, or (torch.nn.Module, int)
        The first model that fits.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type, or no model fits; then the message says what was seen.

    Examples
    --------
    >>> from igbfast.torch import data
    >>> def make_model(generator):
    ...     layers = torch.nn.Linear(20, 20), torch.nn.ReLU(), torch.nn.Linear(20, 2)
    ...     return torch.nn.Sequential(*layers)
    >>> blobs = data.blobs(500, features=20)
    >>> model, tries = select_initial(make_model, blobs, largest_fraction=0.9, return_tries=True)
    >>> given = model(blobs.inputs).argmax(1)
    >>> bool(given.bincount(minlength=2).max() >= 0.9 * 500)
    True
    """
    bounds = _checked_fraction(largest_fraction)
    tries = _checks.integer("tries", tries, 1)
    seed = _checks.integer("seed", seed, 0, MAX_SEED)
    if not callable(make_model):
        raise TypeError(f"make_model must be a function of a torch.Generator, got {_checks.shown(make_model)}")
    inputs = data if isinstance(data, torch.Tensor) else as_data(data).inputs
    generator = torch.Generator().manual_seed(seed)
    seen: list[float] = []
    best: Any = None
    with own_randomness(None, seed):
        for _ in range(tries):
            model = make_model(generator)
            if not isinstance(model, torch.nn.Module):
                raise TypeError(f"make_model must return a torch.nn.Module, got {_checks.shown(model)}")
            given = predicted(unwrapped(model), inputs)
            fraction = float(np.bincount(given[given >= 0], minlength=1).max() / len(inputs))
            best = model if not seen or fraction > max(seen) else best
            seen.append(fraction)
            if bounds is not None and bounds[0] <= fraction <= bounds[1]:
                return (model, len(seen)) if return_tries else model
    if bounds is None:
        return (best, tries) if return_tries else best
    raise ValueError(
        f"largest_fraction must be one that occurs: none of {tries} models lies within {bounds[0]:g} to {bounds[1]:g}, "
        f"theirs were {min(seen):.3g} to {max(seen):.3g}"
    )


def as_data(data: Any) -> Data:
    """Data, or what a tuple of (inputs, labels) and perhaps (test_inputs, test_labels) makes."""
    if isinstance(data, Data):
        return data
    if isinstance(data, (tuple, list)) and len(data) in (2, 4):
        return Data(*data)
    raise TypeError(
        "data must be a Data such as igbfast.torch.data.digits(), or (inputs, labels) with or without (test_inputs, "
        f"test_labels) after them, got {_checks.shown(data)}"
    )


def require_fit(model: torch.nn.Module, data: Data) -> None:
    """ValueError if the model does not take such inputs, or has not one output for each class."""
    try:
        predicted(model, data.inputs[:2], data.classes)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"model must take inputs of shape {data.shape}, but PyTorch says: {reason}") from None


def check_settings(data: Data, **options: Any) -> None:
    """Raises what `train` would raise about these of its arguments, before any work."""
    parameters = inspect.signature(train).parameters
    given = {name: options.get(name, parameters[name].default) for name in parameters if name not in ("model", "data")}
    _checks.integer("checkpoint_every", given.pop("checkpoint_every"), 0)
    _checked_device(given.pop("device"))
    Settings.checked(data, **given)


def _checked_checkpoint(path: Any, every: Any, resume: Any) -> tuple[Path | None, int]:
    every, resume = _checks.integer("checkpoint_every", every, 0), _checks.flag("resume", resume)
    if path is None and (resume or every):
        raise ValueError("checkpoint must name a file if checkpoint_every or resume is given, got None")
    return None if path is None else _saving.checked_target("checkpoint", path, (".pt",)), every


def _checked_device(device: Any) -> Any:
    """The device, if PyTorch can use it here; None for the model's own."""
    if device is not None:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"device must be one that PyTorch can use here, got {device!r}: {reason}") from None
    return device


def _checked_fraction(wanted: Any) -> tuple[float, float] | None:
    """Bounds of the largest class fraction; None to take the largest."""
    if isinstance(wanted, str):
        _checks.choice("largest_fraction, if a text,", wanted, ("largest",))
        return None
    pair = tuple(wanted) if isinstance(wanted, (tuple, list)) else (wanted, 1.0)
    if len(pair) != 2:
        raise ValueError(f"largest_fraction must be a number, (low, high) or 'largest', got {_checks.shown(wanted)}")
    low, high = (_checks.finite("largest_fraction", value, "a number, (low, high) or 'largest'") for value in pair)
    if not 0.0 <= low <= high <= 1.0:
        raise ValueError(f"largest_fraction must lie within 0 to 1, the low bound first, got {_checks.shown(wanted)}")
    return low, high


@contextlib.contextmanager
def _interrupts_held(held: bool) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed, asked between the steps: a checkpoint is of a whole step. A second one does not wait.

    Python tells its main thread alone of Ctrl-C; elsewhere, and where it is ignored, nothing is held.
    """
    before = signal.getsignal(signal.SIGINT)
    if not held or before in (None, signal.SIG_IGN) or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed = False

    def note(number: int, frame: Any) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _as_csv(dataset: xr.Dataset) -> str:
    """One row for each step that was logged or measured; a column for each number, class and layer."""
    columns: dict[str, dict[int, float]] = {}
    for name in (*LOGGED, "gamma"):
        if name not in dataset:
            continue
        along, *others = dataset[name].dims
        steps = dataset[along].values.tolist()
        for label in dataset[others[0]].values if others else [None]:
            values = dataset[name] if label is None else dataset[name].sel({others[0]: label})
            column = name if label is None else f"{name}_{label}"
            columns[column] = dict(zip(steps, values.values.tolist(), strict=True))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *columns])
    for step in sorted({step for column in columns.values() for step in column}):
        writer.writerow([step, *(column.get(step, "") for column in columns.values())])
    return text.getvalue()
