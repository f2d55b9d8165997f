"""CIFAR-10 and CIFAR-100 as their makers publish them: Python pickles or binary records, in a folder or an archive.

Layouts: https://www.cs.toronto.edu/~kriz/cifar.html. An archive is read as a stream and never unpacked to disk. Pickles
are programs; these are read by an interpreter that knows nothing but dictionaries, lists, numbers and arrays of bytes.
"""

from __future__ import annotations

import io
import math
import pickle
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from . import _files

__all__ = ["CIFAR10", "CIFAR100_COARSE", "CIFAR100_FINE", "Read", "Source", "read"]

Array = np.ndarray[Any, np.dtype[Any]]

_PIXELS = 3 * 32 * 32
_LARGEST_FILE = 1 << 28  # CIFAR-100's training file has 0.16 GB
_LARGEST_ARCHIVE = 1 << 29  # 0.19 GB when unpacked


class Read(NamedTuple):
    """Images uint8 (n, 3, 32, 32), labels int64 (n,); the classes' names, or () where the file of names is missing."""

    images: Array
    labels: Array
    test_images: Array
    test_labels: Array
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """One of the two ways in which the same images are published."""

    folder: str
    archives: tuple[str, ...]
    training: tuple[str, ...]
    test: str
    names: str
    images_of: Callable[[bytes], tuple[Array, Array]]  # the bytes of a file -> pixels (n, 3072), labels (n,)
    names_of: Callable[[bytes], tuple[str, ...]]

    @property
    def needed(self) -> tuple[str, ...]:
        return (*self.training, self.test)


@dataclass(frozen=True)
class Source(_files.Source):
    """CIFAR-10, or CIFAR-100 with one of its two sets of labels."""

    classes: int
    ratio: int  # training images for each test image
    layouts: tuple[Layout, ...]


def read(folder: object, source: Source) -> Read:
    """Everything, from the first place of `_places` that has any of the files; errors name the file."""
    path = _files.path_of(folder, source)
    for place in _places(path, source):
        images: dict[str, tuple[Array, Array]] = {}
        names: dict[str, tuple[str, ...]] = {}
        files = _in_folder(place, source) if place.is_dir() else _in_archive(place, source)
        for layout, name, where, raw in files:
            if name == layout.names:
                names[name] = _class_names(raw, where, layout, source)
            else:
                images[name] = _images(raw, where, layout, source)
        if images:
            return _together(images, names, place, source)
    if path.is_file():
        raise _files.missing(source.layouts[0].needed, path, source)
    places = [place for layout in source.layouts for place in (layout.folder, layout.archives[0])]
    raise _files.missing([" or ".join(places)], path, source)


def _together(
    images: dict[str, tuple[Array, Array]], names: dict[str, tuple[str, ...]], place: Path, source: Source
) -> Read:
    layout = max(source.layouts, key=lambda layout: sum(name in images for name in layout.needed))
    absent = [name for name in layout.needed if name not in images]
    if absent:
        raise _files.missing(absent, place, source)
    parts = [images[name] for name in layout.training]
    count, tested = sum(len(labels) for _, labels in parts), len(images[layout.test][1])
    # A file of plain records that was cut between two of them looks whole; its count gives it away.
    if any(len(labels) * len(parts) != source.ratio * tested for _, labels in parts):
        counts = ", ".join(f"{name} {len(images[name][1])}" for name in layout.needed)
        rule = f"{source.ratio // len(parts)} times as many images as {layout.test}" if len(parts) == 1 else "as many"
        raise _files.damaged(place, f"a training file must hold {rule}, got {counts} (an interrupted download?)")
    pixels = np.concatenate([part for part, _ in parts]) if len(parts) > 1 else parts[0][0]
    labels = np.concatenate([part for _, part in parts])
    return Read(
        pixels.reshape(count, 3, 32, 32),
        labels,
        images[layout.test][0].reshape(tested, 3, 32, 32),
        images[layout.test][1],
        names.get(layout.names, ()),
    )


# --- where the files lie -------------------------------------------------------------------------------------------


def _places(path: Path, source: Source) -> Iterator[Path]:
    """The folders and archives that may hold the files: the path itself, then what usually lies in it."""
    yield path
    if path.is_dir():
        for layout in source.layouts:
            if (path / layout.folder).is_dir():
                yield path / layout.folder
        for layout in source.layouts:
            yield from (path / archive for archive in layout.archives if (path / archive).is_file())


Found = tuple[Layout, str, str, bytes]


def _in_folder(folder: Path, source: Source) -> Iterator[Found]:
    """The files of one layout: the one of which most are there."""
    layout = max(source.layouts, key=lambda layout: sum((folder / name).is_file() for name in layout.needed))
    for name in (*layout.needed, layout.names):
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                raw = file.read(_LARGEST_FILE + 1)
            if len(raw) > _LARGEST_FILE:
                raise _files.damaged(path, f"too large for a file of {source.name}, over {_LARGEST_FILE} bytes")
            yield layout, name, str(path), raw


def _in_archive(archive: Path, source: Source) -> Iterator[Found]:
    """The wanted files of a tar archive, gzipped or not, in its order."""
    wanted = {name: layout for layout in source.layouts for name in (*layout.needed, layout.names)}
    seen: set[str] = set()
    try:
        with _files.opened(archive) as file:
            bounded = _Bounded(file, archive, source)
            with tarfile.open(fileobj=cast(BinaryIO, bounded), mode="r|") as tar:
                for member in tar:
                    name = member.name.rpartition("/")[2]
                    if name not in wanted or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                        continue  # links too: a published archive has none
                    where = f"{archive}: {member.name}"
                    if name in seen:
                        raise _files.damaged(where, f"the archive holds a second {name}")
                    if member.size > _LARGEST_FILE:
                        raise _files.damaged(where, f"{member.size} bytes, too large for a file of {source.name}")
                    seen.add(name)
                    content = tar.extractfile(member)
                    yield wanted[name], name, where, b"" if content is None else content.read()
            while bounded.read(1 << 20):  # to the end, where gzip keeps its check sum
                pass
    except (tarfile.TarError, OverflowError) as error:
        raise _files.damaged(archive, f"not a tar archive, or a damaged one ({error})") from None


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than a real archive holds: a small file can unpack to a thousand times."""

    def __init__(self, file: BinaryIO, path: Path, source: Source) -> None:
        self.file, self.path, self.source, self.left = file, path, source, _LARGEST_ARCHIVE

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(self.left + 1 if size < 0 else min(size, self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise _files.damaged(self.path, f"unpacks to more than {_LARGEST_ARCHIVE} bytes; no {self.source.name}")
        return data


# --- what is in a file ---------------------------------------------------------------------------------------------


def _images(raw: bytes, where: str, layout: Layout, source: Source) -> tuple[Array, Array]:
    try:
        pixels, labels = layout.images_of(raw)
    except _ContentError as error:
        raise _files.damaged(where, str(error)) from None
    wrong = (labels < 0) | (labels >= source.classes)
    if wrong.any():
        first = int(np.argmax(wrong))
        allowed = f"labels must be from 0 to {source.classes - 1}"
        raise _files.damaged(where, f"{allowed}, got {labels[first]} at index {first}")
    return pixels, labels


def _class_names(raw: bytes, where: str, layout: Layout, source: Source) -> tuple[str, ...]:
    try:
        names = layout.names_of(raw)
    except _ContentError as error:
        raise _files.damaged(where, str(error)) from None
    if len(names) != source.classes:
        raise _files.damaged(where, f"must name {source.classes} classes, got {len(names)}")
    return names


class _ContentError(Exception):
    """What is wrong with a file's content; `_images` and `_class_names` add which file it is."""


def _records(labels: int, which: int) -> Callable[[bytes], tuple[Array, Array]]:
    """Reads records of so many bytes of labels, of which one is wanted, and 3072 of pixels."""

    def images_of(raw: bytes) -> tuple[Array, Array]:
        size = labels + _PIXELS
        if not raw or len(raw) % size:
            raise _ContentError(f"{len(raw)} bytes are not whole records of {size} (an interrupted download?)")
        records = np.frombuffer(raw, np.uint8).reshape(-1, size)
        return records[:, labels:], records[:, which].astype(np.int64)

    return images_of


def _lines(raw: bytes) -> tuple[str, ...]:
    return tuple(line.strip() for line in raw.decode("utf-8", "replace").splitlines() if line.strip())


def _pickled_images(key: bytes) -> Callable[[bytes], tuple[Array, Array]]:
    """Reads a dictionary of b"data", uint8 of shape (n, 3072), and n labels under `key`."""

    def images_of(raw: bytes) -> tuple[Array, Array]:
        content = _unpickled(raw)
        pixels, labels = _entry(content, b"data"), _entry(content, key)
        pixels = pixels.array if isinstance(pixels, _PickledArray) else None
        if pixels is None or pixels.ndim != 2 or pixels.shape[1] != _PIXELS or len(pixels) == 0:
            held = "none" if pixels is None else f"one of shape {pixels.shape}"
            raise _ContentError(f"b'data' must be an array of bytes of shape (n, {_PIXELS}), got {held}")
        if not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise _ContentError(f"{key!r} must be a list of integers")
        if len(labels) != len(pixels):
            raise _ContentError(f"it has {len(labels)} labels for {len(pixels)} images")
        largest = max(map(abs, labels))
        if largest > 255:
            raise _ContentError(f"a label of {largest} in {key!r}")
        return pixels, np.array(labels, np.int64)

    return images_of


def _pickled_names(key: bytes) -> Callable[[bytes], tuple[str, ...]]:
    def names_of(raw: bytes) -> tuple[str, ...]:
        names = _entry(_unpickled(raw), key)
        if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
            raise _ContentError(f"{key!r} must be a list of names")
        return tuple(name.decode("utf-8", "replace") for name in names)

    return names_of


def _entry(content: object, key: bytes) -> Any:
    if not isinstance(content, dict) or key not in content:
        raise _ContentError(f"not a file of CIFAR: its pickle must be a dictionary with {key!r}")
    return content[key]


# --- pickles, read as data -----------------------------------------------------------------------------------------


class _PickledType:
    """Stands for numpy.dtype: remembers what it was called with, does nothing.

    An object with `__setstate__` is the only kind whose attributes a pickle cannot set at will.
    """

    __slots__ = ("code",)

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which bytes do not have."""


class _PickledArray:
    """Stands for numpy's _reconstruct and what it returns: takes bytes in a shape, and nothing else.

    NumPy's own would take a state in which bytes pass for pointers to objects.
    """

    __slots__ = ("array",)

    def __init__(self, *_: object) -> None:
        self.array: Array | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran_order, data = state
        if not isinstance(dtype, _PickledType) or dtype.code not in (b"u1", "u1"):
            raise _ContentError("its pickle holds an array that is not of bytes (u1)")
        if not isinstance(data, bytes) or any(type(size) is not int or size < 0 for size in shape):
            raise _ContentError("its pickle holds an array of no sense")
        if math.prod(shape) != len(data):
            raise _ContentError(f"its pickle holds an array of shape {shape} with {len(data)} bytes")
        self.array = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran_order else "C")


_KNOWN: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy", "ndarray"): "numpy.ndarray",  # an argument of _reconstruct, never called
    ("numpy", "dtype"): _PickledType,
}


class _Unpickler(pickle._Unpickler):
    """Knows the names of `_KNOWN` alone.

    The interpreter written in Python, not the faster one in C: that one sizes its memory by a number in the file, so
    that ten bytes can ask for 64 GB.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _ContentError(
                f"refused: its pickle asks for {module}.{name}, which no file of CIFAR needs; it was not called"
            )
        return _KNOWN[module, name]

    def get_extension(self, code: int) -> None:
        """Names by number (copyreg), which would pass `find_class` by."""
        raise _ContentError(f"refused: its pickle asks for extension {code}, which no file of CIFAR needs")


def _unpickled(raw: bytes) -> object:
    try:
        return _Unpickler(io.BytesIO(raw), encoding="bytes").load()
    except _ContentError:
        raise
    except EOFError:
        raise _ContentError("its pickle ends too early (an interrupted download?)") from None
    except Exception as error:  # bytes at random raise anything
        raise _ContentError(f"not a pickle, or a damaged one ({type(error).__name__}: {error})") from None


# --- the data sets -------------------------------------------------------------------------------------------------

_URL = "https://www.cs.toronto.edu/~kriz/cifar.html"

_TEN = tuple(f"data_batch_{number}" for number in range(1, 6))

CIFAR10 = Source(
    "CIFAR-10",
    _URL,
    classes=10,
    ratio=5,
    layouts=(
        Layout(
            folder="cifar-10-batches-py",
            archives=("cifar-10-python.tar.gz", "cifar-10-python.tar"),
            training=_TEN,
            test="test_batch",
            names="batches.meta",
            images_of=_pickled_images(b"labels"),
            names_of=_pickled_names(b"label_names"),
        ),
        Layout(
            folder="cifar-10-batches-bin",
            archives=("cifar-10-binary.tar.gz", "cifar-10-binary.tar"),
            training=tuple(f"{name}.bin" for name in _TEN),
            test="test_batch.bin",
            names="batches.meta.txt",
            images_of=_records(labels=1, which=0),
            names_of=_lines,
        ),
    ),
)


def _cifar100(labels: str, classes: int) -> Source:
    return Source(
        "CIFAR-100",
        _URL,
        classes=classes,
        ratio=5,
        layouts=(
            Layout(
                folder="cifar-100-python",
                archives=("cifar-100-python.tar.gz", "cifar-100-python.tar"),
                training=("train",),
                test="test",
                names="meta",
                images_of=_pickled_images(f"{labels}_labels".encode()),
                names_of=_pickled_names(f"{labels}_label_names".encode()),
            ),
            Layout(
                folder="cifar-100-binary",
                archives=("cifar-100-binary.tar.gz", "cifar-100-binary.tar"),
                training=("train.bin",),
                test="test.bin",
                names=f"{labels}_label_names.txt",
                images_of=_records(labels=2, which=0 if labels == "coarse" else 1),
                names_of=_lines,
            ),
        ),
    )


CIFAR100_FINE = _cifar100("fine", 100)
CIFAR100_COARSE = _cifar100("coarse", 20)
