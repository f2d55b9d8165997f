"""A run of training as a TOML file: which model, on which data, how it is trained, what is kept.

[model]       the kind, the law that its parameters are drawn by, its sizes
[data]        the name and its options, how inputs are prepared
[training]    what `train` takes
[selection]   the largest class fraction that the initial state shall have; optional
[output]      the files; optional
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import _checks, _saving
from .._figure import require_matplotlib
from ..ensemble import Ensemble
from ..phases import edge_of_chaos
from ..pools import AvgPool, MaxPool, MinPool, Pool
from . import data as datasets
from . import models, training
from ._evaluation import own_randomness
from ._training_run import MAX_SEED
from .data import Data
from .training import Training

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["EXAMPLE", "Spec", "read_spec", "run_spec"]

EXAMPLE = """\
# Training of a deep tanh network at its edge of chaos, from a biased initial state.

[model]
kind = "mlp"               # mlp, cnn, vit, mixer, or timm with a name
activation = "tanh"
sigma_w2 = "critical"      # a number, or "critical": where gradients are stable
sigma_b2 = 0.05
width = 100
depth = 20
seed = 0                   # of the initial parameters

[data]
name = "digits"            # digits, gaussian, blobs; mnist, fashion_mnist, cifar10, cifar100 from a folder
normalise = ["features", "inputs"]

[training]
steps = 300                # or epochs
optimizer = "sgd"          # or "adam"
lr = 0.01
batch = 64
seed = 0                   # of the batches
log_every = "log"          # or a number of steps

[selection]                # leave it out to take the first initial state
largest_fraction = 0.6     # at least so much, [low, high], or "largest"
tries = 50

[output]                   # beside this file
dataset = "digits.nc"
table = "digits.csv"
figure = "digits.png"
model = "digits.pt"
checkpoint = "digits.checkpoint.pt"
"""
"""A file to begin with."""

_KINDS: dict[str, Any] = {"mlp": models.MLP, "cnn": models.CNN, "vit": models.ViT, "mixer": models.MLPMixer}
_POOLS: dict[str, type[Pool]] = {"max": MaxPool, "min": MinPool, "avg": AvgPool}
_LAW = ("activation", "sigma_w2", "sigma_b2", "pool", "residual", "layernorm", "weights")
_PREPARING = ("subset", "parity", "normalise")
_FROM_DATA = ("ens", "features", "image", "classes", "generator", "device")  # of a model, which no file says
_OUTSIDE = ("model", "data", "checkpoint", "resume", "progress")  # of train, said elsewhere
_SELECTION = ("largest_fraction", "tries")
_SUFFIXES = {
    "dataset": (".nc",),
    "table": (".csv",),
    "figure": (".png", ".pdf"),
    "model": (".pt",),
    "checkpoint": (".pt",),
}

_DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Spec:
    """A run of training that is written down, with all names checked.

    `read_spec` makes one from a file. The sections are as in the file.
    """

    model: Mapping[str, Any]
    """`kind`; of all but timm models the law, `activation`, `sigma_w2` (a number or "critical"), `sigma_b2`, `pool`
    ("max:2"), `residual`, `layernorm`, `weights`; the model's own arguments; `dtype`; `seed`. Of timm models `name` and
    `options`."""
    data: Mapping[str, Any]
    """`name`, `folder` and what else the data set takes; `subset`, `parity` and `normalise`, done in this order."""
    training: Mapping[str, Any]
    """Arguments of `train`."""
    selection: Mapping[str, Any]
    """`largest_fraction` and `tries`; empty to take the first initial state."""
    output: Mapping[str, Path]
    """`dataset`, `table`, `figure`, `model` and `checkpoint`: files to write."""
    text: str = ""
    """The file, which the dataset keeps."""
    name: str = "the specification"
    """What errors call it: the path of the file."""

    @property
    def ens(self) -> Ensemble | None:
        """The law of the parameters, with sigma_w2 as a number; None for a timm model.

        Raises
        ------
        ValueError
            If sigma_w2 is "critical" and there is no such value.
        """
        if self.model["kind"] == "timm":
            return None
        law = {key: self.model[key] for key in _LAW if key in self.model}
        law["pool"] = _pool(law.get("pool"))
        if law["sigma_w2"] == "critical":
            law["sigma_w2"] = _critical(law)
        return Ensemble(**law)

    def make_data(self) -> Data:
        """The data, prepared.

        Raises
        ------
        ValueError, OSError, ImportError
            If something is missing or does not fit.
        """
        options = {key: value for key, value in self.data.items() if key not in _PREPARING}
        data = datasets.load(**options)
        if "subset" in self.data:
            data = data.subset(self.data["subset"])
        if _checks.flag("parity", self.data.get("parity", False)):
            data = data.parity()
        wanted = self.data.get("normalise", [])
        for over in [wanted] if isinstance(wanted, str) else wanted:
            data = data.normalised(_checks.choice("normalise", over, datasets._NORMALISATIONS))
        return data

    def make_model(self, data: Data, generator: Any = None) -> torch.nn.Module:
        """A model with as many inputs and classes as the data have.

        Parameters
        ----------
        data : Data
            What it shall learn.
        generator : torch.Generator, optional
            Where its parameters come from; by default one that begins at the model's `seed`.

        Raises
        ------
        ValueError, TypeError, ImportError
            If the model cannot be made so.
        """
        kind = self.model["kind"]
        if kind == "timm":
            return models.timm_model(self.model["name"], classes=data.classes, **self.model.get("options", {}))
        if generator is None:
            generator = torch.Generator().manual_seed(self.seed)
        own = {key: value for key, value in self.model.items() if key not in (*_LAW, "kind", "seed", "dtype")}
        dtype = getattr(torch, _checks.choice("dtype", self.model.get("dtype", "float32"), _DTYPES))
        shape = {"features": data.features} if kind == "mlp" else {"image": _image(kind, data)}
        return _KINDS[kind](self.ens, **own, **shape, classes=data.classes, generator=generator, dtype=dtype)

    @property
    def seed(self) -> int:
        """Of the initial parameters."""
        return _checks.integer("seed", self.model.get("seed", 0), 0, MAX_SEED)


def read_spec(path: str | PathLike[str]) -> Spec:
    """A run of training from a TOML file; docs/training.md shows one.

    Parameters
    ----------
    path : path
        The file. Paths in it are relative to its folder.

    Returns
    -------
    Spec

    Raises
    ------
    ValueError
        If it is not TOML, a section or key is unknown (with the nearest known one) or missing, or a value of the law is
        out of range; the message names file and section. Sizes are checked when the model is made.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "run.toml")
    ...     _ = path.write_text('''
    ... [model]
    ... kind = "mlp"
    ... activation = "relu"
    ... sigma_w2 = "critical"
    ... width = 50
    ... depth = 5
    ... [data]
    ... name = "digits"
    ... [training]
    ... steps = 100
    ... ''')
    ...     spec = read_spec(path)
    >>> spec.ens
    Ensemble('relu', sigma_w2=2.0, sigma_b2=0.0)
    >>> spec.output["dataset"].name
    'run.nc'
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from None
    with _prefixed(str(path)):
        _known("section", content, ("model", "data", "training", "selection", "output"))
        for name, section in content.items():
            if not isinstance(section, dict):
                raise ValueError(f"{name} must be a section, [{name}], got {_checks.shown(section)}")
        output = content.get("output", {"dataset": f"{path.stem}.nc"})
        return Spec(
            _section("model", content, _checked_model),
            _section("data", content, lambda section: _checked_data(section, path.parent)),
            _section("training", content, _checked_training),
            _section("selection", content | {"selection": content.get("selection", {})}, _checked_selection),
            _section("output", {"output": output}, lambda section: _checked_output(section, path.parent)),
            text,
            str(path),
        )


def run_spec(
    spec: Spec,
    *,
    resume: bool = False,
    progress: bool | None = None,
    announce: Callable[[str], None] | None = None,
) -> Training:
    """Do what a specification says, and write its files.

    Parameters
    ----------
    spec : Spec
        What to do.
    resume : bool, optional
        Go on from the checkpoint of `[output]` if there is one.
    progress : bool, optional
        None: a progress bar if the terminal is watched; True: always; False: none.
    announce : callable, optional
        Takes, before the training begins, a few lines about what is trained on what.

    Returns
    -------
    Training
        With the specification's text, the ensemble and the number of initial states tried in the attributes.

    Raises
    ------
    ValueError, ImportError
        If anything in the specification does not fit; before any work but reading the data and choosing the start.
    OSError
        If a file cannot be written.
    KeyboardInterrupt
        On Ctrl-C; after the checkpoint has been written, if there is one.
    """
    files = checked_files(spec)
    if resume and "checkpoint" not in files:
        raise ValueError("resume needs a checkpoint in [output]")
    start = prepared(spec)
    if announce is not None:
        announce(start.words)
    with _prefixed("[training]"):
        run = training.train(
            start.model,
            start.data,
            **spec.training,
            checkpoint=files.get("checkpoint"),
            resume=resume,
            progress=progress,
        )
    run.dataset.attrs.update(start.attributes)
    _write(run, files)
    return run


def checked_files(spec: Spec) -> dict[str, Path]:
    """The files of `[output]`, if all can be written; OSError, ValueError or ImportError that names the key if not."""
    files = {
        name: _saving.checked_target(f"[output] {name}", path, _SUFFIXES[name]) for name, path in spec.output.items()
    }
    if "figure" in files:
        require_matplotlib()
    return files


@dataclass(frozen=True)
class Start:
    """The data, and the model in its initial state."""

    spec: Spec
    data: Data
    model: torch.nn.Module
    tries: int
    """Initial states that were drawn until one fitted."""

    @property
    def words(self) -> str:
        """A few lines about what is trained on what."""
        data, size = self.data, sum(parameter.numel() for parameter in self.model.parameters())
        ens, shape = self.spec.ens, " x ".join(str(n) for n in self.data.shape)
        law = f", {_shown_law(ens)}" if ens is not None else f" {self.spec.model.get('name', '')}"
        tried = f", initial state {self.tries}, the first that fits" if self.spec.selection else ""
        if self.spec.selection.get("largest_fraction") == "largest":
            tried = f", the most biased of {self.tries} initial states"
        lines = [
            f"model      {self.spec.model['kind']} of {size:,} parameters{law}{tried}",
            f"data       {data.name}: {len(data):,} inputs of {shape} and {len(data.test_inputs):,} for the test, "
            f"{data.classes} classes",
            "training   " + ", ".join(f"{key} = {value}" for key, value in self.spec.training.items()),
        ]
        return "\n".join(lines)

    @property
    def attributes(self) -> dict[str, Any]:
        ens = self.spec.ens
        return {"spec": self.spec.text, "tries": self.tries, **({} if ens is None else {"ensemble": repr(ens)})}


def prepared(spec: Spec) -> Start:
    """Data and initial state; every argument of the training is checked before a state is chosen."""
    with _prefixed(spec.name):
        with _prefixed("[data]"):
            data = spec.make_data()
        with _prefixed("[training]"):
            training.check_settings(data, **spec.training)
        with _prefixed("[model]"), own_randomness(None, spec.seed):  # which timm models draw from
            model, tries = spec.make_model(data), 1
            training.require_fit(model, data)
        if spec.selection:
            with _prefixed("[selection]"):
                model, tries = training.select_initial(
                    lambda generator: spec.make_model(data, generator),
                    data,
                    seed=spec.seed,
                    return_tries=True,
                    **spec.selection,
                )
    return Start(spec, data, model, tries)


def _write(run: Training, files: Mapping[str, Path]) -> None:
    """All files but the checkpoint, which is there."""
    for name in ("dataset", "table"):
        if name in files:
            run.save(files[name])
    if "model" in files:
        with _saving.whole_file(files["model"]) as draft:
            torch.save(run.model.state_dict(), draft)
    if "figure" in files:
        import matplotlib.pyplot as plt

        figure = run.plot()
        with _saving.whole_file(files["figure"]) as draft:
            figure.savefig(draft, dpi=200)
        plt.close(figure)


def _section(name: str, content: Mapping[str, Any], check: Callable[[dict[str, Any]], Any]) -> Any:
    if name not in content:
        raise ValueError(f"section [{name}] is missing")
    with _prefixed(f"[{name}]"):
        return check(dict(content[name]))


def _checked_model(section: dict[str, Any]) -> dict[str, Any]:
    _needed(section, ["kind"])
    kind = _checks.choice("kind", section["kind"], (*_KINDS, "timm"))
    if kind == "timm":
        _known("key", section, ("kind", "name", "options", "seed"))
        _needed(section, ["name"])
        return section
    parameters = inspect.signature(_KINDS[kind]).parameters
    own = [name for name in parameters if name not in _FROM_DATA]
    _known("key", section, ("kind", *_LAW, *own, "seed"))
    blank = inspect.Parameter.empty
    _needed(section, ["activation", "sigma_w2", *(name for name in own if parameters[name].default is blank)])
    if isinstance(section["sigma_w2"], str):
        _checks.choice("sigma_w2, if a text,", section["sigma_w2"], ("critical",))
    spec = Spec(section, {}, {}, {}, {})
    return {**section, "seed": spec.seed} if spec.ens else section


def _checked_data(section: dict[str, Any], folder: Path) -> dict[str, Any]:
    _needed(section, ["name"])
    loader = getattr(datasets, _checks.choice("name", section["name"], datasets._LOADERS))
    _known("key", section, ("name", *inspect.signature(loader).parameters, *_PREPARING))
    if "folder" in section:
        section["folder"] = folder / _text("folder", section["folder"])
    return section


def _checked_training(section: dict[str, Any]) -> dict[str, Any]:
    _known("key", section, (name for name in inspect.signature(training.train).parameters if name not in _OUTSIDE))
    return section


def _checked_selection(section: dict[str, Any]) -> dict[str, Any]:
    _known("key", section, _SELECTION)
    if section:
        _needed(section, ["largest_fraction"])
    return section


def _checked_output(section: dict[str, Any], folder: Path) -> dict[str, Path]:
    _known("key", section, _SUFFIXES)
    files = {name: folder / _text(name, value) for name, value in section.items()}
    for name, file in files.items():
        if file.suffix.lower() not in _SUFFIXES[name]:
            raise ValueError(f"{name} must end in {' or '.join(_SUFFIXES[name])}, got {section[name]!r}")
    if len(set(files.values())) < len(files):
        raise ValueError("model and checkpoint must be two files")
    return files


def _shown_law(ens: Ensemble) -> str:
    """The law of the parameters in a few words, its numbers in a few digits."""
    numbers = f"sigma_w2 = {ens.sigma_w2:.6g}, sigma_b2 = {ens.sigma_b2:.6g}"
    return ", ".join([str(ens.activation), numbers, *(f"{name} = {value}" for name, value in ens.extras.items())])


# What a layer's size is called in models of the other kind.
_OTHER_WORDS = {"width": "channels", "channels": "width"}


def _known(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    words = list(known)
    for name in given:
        if name not in words:
            other = _OTHER_WORDS.get(name)
            meant = f"; did you mean {other!r}?" if other in words else _checks.nearest(name, words)
            raise ValueError(f"{what} {name!r} is unknown{meant} (known: {', '.join(words)})")


def _needed(section: Mapping[str, Any], keys: Iterable[str]) -> None:
    missing = [key for key in keys if key not in section]
    if missing:
        raise ValueError(f"{' and '.join(repr(key) for key in missing)} must be given")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a path, got {_checks.shown(value)}")
    return value


def _pool(text: object) -> Pool | None:
    if text is None:
        return None
    kind, _, size = text.partition(":") if isinstance(text, str) else ("", "", "")
    if kind not in _POOLS or not size.isdecimal():
        raise ValueError(
            f"pool must be 'max:K', 'min:K' or 'avg:K' with a number K of nodes, got {_checks.shown(text)}"
        )
    return _POOLS[kind](int(size))


def _critical(law: Mapping[str, Any]) -> float:
    """sigma_w2 at the edge of chaos of a plain network."""
    if law.get("residual") is not None or law.get("layernorm"):
        raise ValueError("sigma_w2 must be a number with residual or layernorm, which have no edge of chaos to take")
    sigma_b2 = law.get("sigma_b2", 0.0)
    sigma_w2 = float(edge_of_chaos(law["activation"], sigma_b2, pool=law["pool"]))
    if not np.isfinite(sigma_w2):
        raise ValueError(
            f"sigma_w2 must be a number: {law['activation']} has no edge of chaos at sigma_b2={sigma_b2:g}"
        )
    return sigma_w2


def _image(kind: str, data: Data) -> tuple[int, ...]:
    if len(data.shape) != 3:
        hint = "; give images = true in [data]" if data.name.startswith("digits") else ""
        raise ValueError(f"kind {kind!r} needs images as inputs, got {data.name} of shape {data.shape}{hint}")
    return data.shape


@contextlib.contextmanager
def _prefixed(where: str) -> Iterator[None]:
    """Puts the place into errors of usage, and makes wrong types and missing files wrong values of the file."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise ValueError(f"{where} {error}" if where.startswith("[") else f"{where}: {error}") from None
