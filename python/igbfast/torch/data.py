"""Labelled data for training and diagnosis: what comes with scikit-learn, what is drawn, and what is read from files.

Everything arrives in one shape, a `Data` of training and test inputs with integer labels, checked once when it is made.
Nothing is downloaded: `mnist`, `fashion_mnist`, `cifar10` and `cifar100` read a folder that you name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import torch

from .. import _checks
from . import _cifar, _idx

__all__ = ["Data", "blobs", "cifar10", "cifar100", "digits", "fashion_mnist", "gaussian", "load", "mnist"]


@dataclass(frozen=True, eq=False, repr=False)
class Data:
    """Inputs with their classes, some to train on and some to test on.

    Parameters
    ----------
    inputs : tensor or array, shape (n, ...)
        Training inputs, all finite: (n, features), or images (n, channels, height, width). A tensor of floating point
        keeps its dtype; everything else (arrays, integers) becomes float32. Values are taken as they are: no scaling.
    labels : tensor or array of integers, shape (n,)
        The class of each, from 0 to classes - 1; becomes int64.
    test_inputs, test_labels : optional
        The same for the test, shape (m, ...); without them m = 0.
    classes : int, optional
        Number of classes, at least 2; by default the largest label plus one.
    name : str
        What `repr` and the logs call it.
    class_names : sequence of str, optional
        One name for each class; by default "0", "1", ...

    Raises
    ------
    TypeError, ValueError
        Where shapes, counts or types do not fit, a label is out of range or an input is not finite.

    Notes
    -----
    Every method returns a new `Data`, so that they chain; tensors which do not change are shared, not copied.

    Examples
    --------
    >>> data = Data([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [0, 1, 1], name="three points")
    >>> data
    <Data three points: 3 training and 0 test inputs of shape (2,), 2 classes>
    >>> data.inputs.dtype, data.labels.dtype
    (torch.float32, torch.int64)
    """

    inputs: Any
    labels: Any
    test_inputs: Any = None
    test_labels: Any = None
    classes: Any = None
    name: str = "data"
    class_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        inputs = _inputs_tensor("inputs", self.inputs)
        labels = _labels_tensor("labels", self.labels, inputs, "inputs")
        if len(inputs) == 0:
            raise ValueError("inputs must hold at least one input, got none")
        if (self.test_inputs is None) != (self.test_labels is None):
            raise ValueError("test_inputs and test_labels must be given together, got only one of them")
        test_inputs = inputs[:0] if self.test_inputs is None else _inputs_tensor("test_inputs", self.test_inputs)
        test_labels = labels[:0]
        if self.test_labels is not None:
            test_labels = _labels_tensor("test_labels", self.test_labels, test_inputs, "test_inputs")
        if test_inputs.shape[1:] != inputs.shape[1:]:
            raise ValueError(
                f"test_inputs must have the shape of the inputs, (m, {_inner(inputs)}), got {tuple(test_inputs.shape)}"
            )
        largest = max(int(part.max()) for part in (labels, test_labels) if len(part))
        classes = max(2, largest + 1) if self.classes is None else _checks.integer("classes", self.classes, 2)
        _check_range("labels", labels, classes)
        _check_range("test_labels", test_labels, classes)
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a str, got {_checks.shown(self.name)}")
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "test_inputs", test_inputs.to(inputs.device, inputs.dtype))
        object.__setattr__(self, "test_labels", test_labels.to(inputs.device))
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "class_names", _names_of(self.class_names, classes))

    def __repr__(self) -> str:
        dtype = "" if self.inputs.dtype == torch.float32 else f", {str(self.inputs.dtype).removeprefix('torch.')}"
        device = "" if self.inputs.device.type == "cpu" else f", on {self.inputs.device}"
        return (
            f"<Data {self.name}: {len(self.inputs)} training and {len(self.test_inputs)} test inputs "
            f"of shape {self.shape}, {self.classes} classes{dtype}{device}>"
        )

    def __len__(self) -> int:
        """The number of training inputs."""
        return len(self.inputs)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.inputs.shape[1:])

    @property
    def features(self) -> int:
        """Numbers in one input.

        >>> digits(images=True).features
        64
        """
        return int(np.prod(self.shape))

    @property
    def counts(self) -> Any:
        """Training inputs of each class, int64, shape (classes,).

        >>> blobs(10, features=2, classes=3).counts.tolist()
        [4, 3, 3]
        """
        return torch.bincount(self.labels, minlength=self.classes)

    def flat(self) -> Data:
        """Each input as one row, shape (n, features).

        >>> digits(images=True).flat().shape
        (64,)
        """
        return replace(self, inputs=self.inputs.flatten(1), test_inputs=self.test_inputs.flatten(1))

    def to(self, device: Any = None, dtype: Any = None) -> Data:
        """On another device, or with inputs of another floating point dtype; labels stay int64.

        >>> digits().to("cpu", torch.float64)
        <Data digits: 1438 training and 359 test inputs of shape (64,), 10 classes, float64>
        """
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"dtype must be a floating point torch.dtype, got {_checks.shown(dtype)}")
        device = self.inputs.device if device is None else torch.device(device)
        dtype = self.inputs.dtype if dtype is None else dtype
        return replace(
            self,
            inputs=self.inputs.to(device, dtype),
            labels=self.labels.to(device),
            test_inputs=self.test_inputs.to(device, dtype),
            test_labels=self.test_labels.to(device),
        )

    def normalised(self, over: str | None = "features") -> Data:
        """Inputs shifted and scaled.

        Parameters
        ----------
        over : {"features", "channels", "inputs", None}
            "features": every feature has mean 0 and variance 1 over the training inputs. "channels": every channel of
            images (n, channels, ...) has, over inputs and positions; rows (n, features) are one channel. "inputs":
            every input is divided by its own root mean square, so that q0 = 1, where theory starts (`igb.propagate`).
            None: unchanged.

        Returns
        -------
        Data
            The test inputs are transformed by the numbers of the training inputs. What does not vary has no variance to
            scale: a constant feature becomes 0 (in the training inputs), an input of zeros stays.

        Notes
        -----
        A pixel at the rim that is lit in three images of 60,000 reaches 140 under "features". For images of this kind
        "channels" or "inputs" is the better choice.

        Examples
        --------
        >>> data = digits().normalised("inputs")
        >>> bool(torch.allclose(data.inputs.square().mean(1), torch.ones(len(data))))
        True
        """
        if over is None:
            return self
        _checks.choice("over", over, _NORMALISATIONS)
        if over == "inputs":
            return replace(self, inputs=_unit_mean_square(self.inputs), test_inputs=_unit_mean_square(self.test_inputs))
        flat = self.inputs.ndim == 2
        dims = [0] if over == "features" else [dim for dim in range(self.inputs.ndim) if dim != 1 or flat]
        mean, std = _mean_and_std(self.inputs, dims)
        return replace(self, inputs=(self.inputs - mean) / std, test_inputs=(self.test_inputs - mean) / std)

    def subset(self, count: int, seed: int = 0, *, test: int | None = None) -> Data:
        """`count` training inputs drawn without replacement, and `test` test inputs (None: all of them).

        >>> digits().subset(100, seed=3)
        <Data digits: 100 training and 359 test inputs of shape (64,), 10 classes>
        """
        count = _checks.integer("count", count, 1, len(self.inputs))
        generator = _generator(seed)
        chosen = torch.randperm(len(self.inputs), generator=generator)[:count].to(self.inputs.device)
        data = replace(self, inputs=self.inputs[chosen], labels=self.labels[chosen])
        if test is None:
            return data
        test = _checks.integer("test", test, 0, len(self.test_inputs))
        chosen = torch.randperm(len(self.test_inputs), generator=generator)[:test].to(self.inputs.device)
        return replace(data, test_inputs=self.test_inputs[chosen], test_labels=self.test_labels[chosen])

    def parity(self) -> Data:
        """Two classes instead of many: 0 where the label is even, 1 where it is odd.

        >>> digits().parity()
        <Data digits, parity: 1438 training and 359 test inputs of shape (64,), 2 classes>
        """
        return replace(
            self,
            labels=self.labels % 2,
            test_labels=self.test_labels % 2,
            classes=2,
            name=f"{self.name}, parity",
            class_names=("even", "odd"),
        )


def digits(test: float = 0.2, seed: int = 0, images: bool = False) -> Data:
    """Handwritten digits of 8 x 8 pixels that come with scikit-learn: 1797 of them, pixels in [0, 1].

    Parameters
    ----------
    test : float
        The share kept for the test, from 0 to below 1.
    seed : int
        Which ones these are.
    images : bool
        Inputs of shape (1, 8, 8) instead of (64,).

    Raises
    ------
    ImportError
        Without scikit-learn.

    Examples
    --------
    >>> digits()
    <Data digits: 1438 training and 359 test inputs of shape (64,), 10 classes>
    """
    share = _checks.non_negative_finite("test", test)
    images, generator = _checks.flag("images", images), _generator(seed)
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("digits() needs scikit-learn: pip install 'igbfast[torch]'") from None
    pixels, labels = load_digits(return_X_y=True)
    held = round(share * len(labels))
    if held >= len(labels):
        raise ValueError(f"test must be a share from 0 to below 1, got {_checks.shown(test)}")
    inputs = torch.from_numpy((pixels / 16.0).astype(np.float32))
    if images:
        inputs = inputs.reshape(-1, 1, 8, 8)
    order = torch.randperm(len(inputs), generator=generator)
    return _split(inputs[order], torch.from_numpy(labels)[order], held, classes=10, name="digits")


def gaussian(count: int, features: int, classes: int = 10, seed: int = 0, *, test: int | None = None) -> Data:
    """Independent standard normal inputs, which theory assumes (q0 = 1, c0 = 0), with classes assigned at random.

    Parameters
    ----------
    count, features, classes : int
        Training inputs, numbers in each, classes (each has count / classes of them, up to one).
    seed : int
        Same seed: the same inputs.
    test : int, optional
        Further inputs for the test; count // 4 by default. Nothing that was learned helps there.

    Examples
    --------
    >>> gaussian(1000, features=50)
    <Data gaussian: 1000 training and 250 test inputs of shape (50,), 10 classes>
    """
    count, features = _checks.integer("count", count, 1), _checks.integer("features", features, 1)
    classes, generator = _checks.integer("classes", classes, 2), _generator(seed)
    held = count // 4 if test is None else _checks.integer("test", test, 0)
    inputs = torch.randn(held + count, features, generator=generator)
    return _split(inputs, _even_labels(held, count, classes, generator), held, classes=classes, name="gaussian")


def blobs(
    count: int, features: int, classes: int = 2, distance: float = 4.0, seed: int = 0, *, test: int | None = None
) -> Data:
    """One Gaussian cloud of unit variance for each class: the simplest data that can be learned.

    Parameters
    ----------
    count, features, classes : int
        Training inputs, numbers in each, classes (each has count / classes of them, up to one).
    distance : float
        Root mean square distance between the centres of two classes, in standard deviations of a cloud. The centres'
        mean is 0. With two classes no classifier errs less often than Phi(-distance / 2): 2.3 % at 4.
    seed : int
        Same seed: the same centres and inputs.
    test : int, optional
        Further inputs for the test; count // 4 by default.

    Examples
    --------
    >>> data = blobs(20_000, features=3, distance=8.0)
    >>> centres = torch.stack([data.inputs[data.labels == k].mean(0) for k in range(2)])
    >>> round(float(torch.dist(*centres)), 1)
    8.0
    """
    count, features = _checks.integer("count", count, 1), _checks.integer("features", features, 1)
    classes, distance = _checks.integer("classes", classes, 2), _checks.non_negative_finite("distance", distance)
    generator = _generator(seed)
    held = count // 4 if test is None else _checks.integer("test", test, 0)
    centres = torch.randn(classes, features, generator=generator)
    centres -= centres.mean(0)
    # K centres around 0: the mean over pairs of |c_i - c_j|^2 is 2 / (K - 1) times the sum of |c_i|^2.
    centres *= distance / (2.0 * centres.square().sum() / (classes - 1)).sqrt()
    labels = _even_labels(held, count, classes, generator)
    inputs = centres[labels] + torch.randn(held + count, features, generator=generator)
    return _split(inputs, labels, held, classes=classes, name="blobs")


def mnist(folder: str | PathLike[str]) -> Data:
    """Handwritten digits from the four IDX files of MNIST, gzipped or not: images (1, 28, 28), pixels in [0, 1].

    Parameters
    ----------
    folder : path
        Where train-images-idx3-ubyte, train-labels-idx1-ubyte and the two t10k-... lie (also with `.idx`, with `.gz`),
        or the folder above torchvision's MNIST/raw. They come from
        https://ossci-datasets.s3.amazonaws.com/mnist/ (http://yann.lecun.com/exdb/mnist).

    Raises
    ------
    FileNotFoundError
        Names the files that are missing.
    ValueError
        Names the file that is damaged, and how.

    Examples
    --------
    >>> mnist("no/such/folder")
    Traceback (most recent call last):
        ...
    FileNotFoundError: there is no file or folder 'no/such/folder'; MNIST comes from https://ossci-datasets...
    """
    return _from_idx(_idx.MNIST, folder, ())


def fashion_mnist(folder: str | PathLike[str]) -> Data:
    """Clothes from the four IDX files of Fashion-MNIST, gzipped or not: images (1, 28, 28), pixels in [0, 1].

    Parameters
    ----------
    folder : path
        As for `mnist` (torchvision's is FashionMNIST/raw). The files have MNIST's names, so they need a folder of their
        own; they come from https://github.com/zalandoresearch/fashion-mnist.

    Raises
    ------
    FileNotFoundError, ValueError
        As `mnist`.

    Examples
    --------
    >>> fashion_mnist("no/such/folder")
    Traceback (most recent call last):
        ...
    FileNotFoundError: there is no file or folder 'no/such/folder'; Fashion-MNIST comes from https://github.com/zalandoresearch/...
    """
    return _from_idx(_idx.FASHION_MNIST, folder, _FASHION)


def cifar10(folder: str | PathLike[str]) -> Data:
    """Photographs of ten classes, CIFAR-10: images (3, 32, 32), pixels in [0, 1].

    Parameters
    ----------
    folder : path
        cifar-10-batches-py or cifar-10-batches-bin, the folder where one of them or its archive
        (cifar-10-python.tar.gz, cifar-10-binary.tar.gz) lies, or the archive itself, which is read without being
        unpacked. All come from https://www.cs.toronto.edu/~kriz/cifar.html.

    Raises
    ------
    FileNotFoundError
        Names the files that are missing.
    ValueError
        Names the file that is damaged, and how. The pickles of the Python version are read as plain data: one that
        asks for anything else is refused, and nothing of it runs.

    Examples
    --------
    >>> cifar10("no/such/folder")
    Traceback (most recent call last):
        ...
    FileNotFoundError: there is no file or folder 'no/such/folder'; CIFAR-10 comes from https://www.cs.toronto.edu/~kriz/...
    """
    return _from_cifar(_cifar.read(folder, _cifar.CIFAR10), 10, "CIFAR-10")


def cifar100(folder: str | PathLike[str], labels: str = "fine") -> Data:
    """Photographs of a hundred classes, CIFAR-100: images (3, 32, 32), pixels in [0, 1].

    Parameters
    ----------
    folder : path
        As for `cifar10`: cifar-100-python, cifar-100-binary, or an archive.
    labels : {"fine", "coarse"}
        The 100 classes, or the 20 that each hold five of them.

    Raises
    ------
    FileNotFoundError, ValueError
        As `cifar10`.

    Examples
    --------
    >>> cifar100("no/such/folder", labels="course")
    Traceback (most recent call last):
        ...
    ValueError: labels must be one of 'fine', 'coarse', got 'course'; did you mean 'coarse'?
    """
    fine = _checks.choice("labels", labels, ("fine", "coarse")) == "fine"
    read = _cifar.read(folder, _cifar.CIFAR100_FINE if fine else _cifar.CIFAR100_COARSE)
    return _from_cifar(read, 100 if fine else 20, "CIFAR-100" if fine else "CIFAR-100, coarse")


_NORMALISATIONS = ("features", "channels", "inputs")

_LOADERS: dict[str, Callable[..., Data]] = {
    loader.__name__: loader for loader in (digits, gaussian, blobs, mnist, fashion_mnist, cifar10, cifar100)
}


def needs_folder(name: str) -> bool:
    """Whether the data of that name lie in files of the user's."""
    return name in _LOADERS and "folder" in inspect.signature(_LOADERS[name]).parameters


def load(name: str, folder: str | PathLike[str] | None = None, **options: Any) -> Data:
    """The data of that name: one of the functions of this module, for where the name is a setting.

    Parameters
    ----------
    name : {"digits", "gaussian", "blobs", "mnist", "fashion_mnist", "cifar10", "cifar100"}
        Which.
    folder : path, optional
        Where the files lie: needed by the last four, refused by the others.
    **options
        What the function takes.

    Raises
    ------
    TypeError, ValueError
        For an unknown name or option (with the nearest known one), or one that is missing.

    Examples
    --------
    >>> load("digits", test=0.5)
    <Data digits: 899 training and 898 test inputs of shape (64,), 10 classes>
    """
    loader = _LOADERS[_checks.choice("name", name, _LOADERS)]
    known = inspect.signature(loader).parameters
    if needs_folder(name) != (folder is not None):
        raise ValueError(f"folder must {'name where the files lie' if folder is None else 'be None'} for {name!r}")
    if folder is not None:
        options = {"folder": folder, **options}
    for option in options:
        _checks.choice(f"an option of {name!r}", option, known)
    missing = [key for key, value in known.items() if value.default is inspect.Parameter.empty and key not in options]
    if missing:
        raise TypeError(f"{name!r} needs {' and '.join(missing)}")
    return loader(**options)


_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def _from_idx(source: _idx.Source, folder: str | PathLike[str], class_names: Sequence[str]) -> Data:
    images, labels, test_images, test_labels = _idx.read_four(folder, source)
    return Data(
        _pixels(images[:, None]), labels, _pixels(test_images[:, None]), test_labels, 10, source.name, class_names
    )


def _from_cifar(read: _cifar.Read, classes: int, name: str) -> Data:
    images, labels, test_images, test_labels, class_names = read
    return Data(_pixels(images), labels, _pixels(test_images), test_labels, classes, name, class_names)


def _pixels(images: np.ndarray[Any, Any]) -> Any:
    """Bytes as float32 in [0, 1]."""
    return torch.from_numpy(images.astype(np.float32)).div_(255.0)


def _split(inputs: Any, labels: Any, held: int, **what: Any) -> Data:
    """The first `held` for the test, the rest for training."""
    return Data(inputs[held:], labels[held:], inputs[:held], labels[:held], **what)


def _even_labels(held: int, count: int, classes: int, generator: Any) -> Any:
    """Labels in random order, as even as can be, in the test part and in the training part; shape (held + count,)."""
    parts = [(torch.arange(size) % classes)[torch.randperm(size, generator=generator)] for size in (held, count)]
    return torch.cat(parts)


def _generator(seed: object) -> Any:
    return torch.Generator().manual_seed(_checks.integer("seed", seed, 0, 2**63 - 1))


def _mean_and_std(inputs: Any, dims: list[int]) -> tuple[Any, Any]:
    """Over these dimensions, summed in float64; std 1 where nothing varies, so that it may be divided by."""
    pieces = inputs.split(1024)  # float64 needs twice the memory, so a piece at a time
    mean = sum(piece.double().mean(dims, keepdim=True) * len(piece) for piece in pieces) / len(inputs)
    square = sum((piece.double() - mean).square_().mean(dims, keepdim=True) * len(piece) for piece in pieces)
    varies = inputs.amax(dims, keepdim=True) > inputs.amin(dims, keepdim=True)
    std = torch.where(varies, square / len(inputs), 1.0).sqrt()
    return mean.to(inputs.dtype), std.to(inputs.dtype)


def _unit_mean_square(inputs: Any) -> Any:
    rows = inputs.flatten(1)
    q = rows.square().mean(1, keepdim=True)
    return (rows / torch.where(q > 0, q, 1.0).sqrt()).reshape(inputs.shape)


def _inner(inputs: Any) -> str:
    return ", ".join(str(size) for size in inputs.shape[1:])


def _inputs_tensor(name: str, values: Any) -> Any:
    """Inputs as a finite tensor of floating point, shape (n, ...)."""
    if not isinstance(values, torch.Tensor):
        array = _checks.real_array(name, values)
        with np.errstate(over="ignore"):  # what does not fit becomes inf, and is reported below
            values = torch.from_numpy(np.array(array, dtype=np.float32))
    elif values.is_complex():
        raise TypeError(f"{name} must be real numbers, got dtype {values.dtype}")
    values = values.detach() if values.requires_grad else values
    values = values if values.is_floating_point() else values.to(torch.float32)
    if values.ndim < 2 or 0 in values.shape[1:]:
        raise ValueError(f"{name} must have a shape (inputs, features) or (inputs, ...), got {tuple(values.shape)}")
    if not bool(torch.isfinite(values).all()):
        first = int(torch.isfinite(values).flatten(1).all(1).logical_not().nonzero()[0])
        raise ValueError(f"{name} must be finite numbers, got nan or infinity in the input at index {first}")
    return values


def _labels_tensor(name: str, values: Any, inputs: Any, of: str) -> Any:
    """Labels as int64, one for each of the inputs."""
    if not isinstance(values, torch.Tensor):
        array = np.asarray(values)
        if array.dtype.kind not in "iub" and array.size:
            raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
        values = torch.from_numpy(np.array(array, dtype=np.int64))
    elif values.is_floating_point() or values.is_complex():
        raise TypeError(f"{name} must be integers, got dtype {values.dtype}")
    if tuple(values.shape) != (len(inputs),):
        raise ValueError(
            f"{name} must have shape ({len(inputs)},), one for each of the {of}, got {tuple(values.shape)}"
        )
    return values.to(inputs.device, torch.int64)


def _check_range(name: str, labels: Any, classes: int) -> None:
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(f"{name} must be from 0 to {classes - 1}, got {int(labels[first])} at index {first}")


def _names_of(names: Sequence[str], classes: int) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"class_names must be a sequence of str, got {_checks.shown(names)}")
    if len(names) not in (0, classes):
        raise ValueError(f"class_names must be {classes} names, one for each class, got {len(names)}")
    return tuple(names) or tuple(str(label) for label in range(classes))
