"""IDX files, in which MNIST and its likes come: a magic number, the sizes, then the numbers, all big-endian.

Format: http://yann.lecun.com/exdb/mnist, at the end of the page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import _files

__all__ = ["FASHION_MNIST", "MNIST", "Source", "read_four", "read_idx"]

Array = np.ndarray[Any, np.dtype[Any]]

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Source(_files.Source):
    """Files of MNIST's names; `folders`: where below the given folder they may lie."""

    folders: tuple[str, ...]


_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/ (http://yann.lecun.com/exdb/mnist)"
MNIST = Source("MNIST", _MIRROR, ("", "raw", "MNIST/raw", "MNIST"))
FASHION_MNIST = Source(
    "Fashion-MNIST",
    "https://github.com/zalandoresearch/fashion-mnist",
    ("", "raw", "FashionMNIST/raw", "FashionMNIST", "data/fashion"),  # the last: in a clone of its repository
)


def read_idx(path: Path) -> Array:
    """The array of an IDX file, gzipped or not, in the machine's byte order; ValueError where it is not one."""
    with _files.opened(path) as file:
        dtype, shape = _header(file, path)
        expected = dtype.itemsize * math.prod(shape)
        header = 4 + 4 * len(shape)
        size, gzipped = path.stat().st_size, _files.is_gzip(path)
        claim = f"its header announces {dtype.name} of shape {shape}, {expected} bytes"
        # Before a byte is read or an array made: can the file hold what its header says?
        if gzipped and header + expected > _files.GZIP_RATIO * size:
            raise _files.damaged(path, f"{claim}, more than its {size} gzipped bytes can hold")
        if not gzipped and size != header + expected:
            raise _files.damaged(path, f"{claim}, but {size - header} follow{_too_short(size - header, expected)}")
        data = _at_most(file, expected + 1)  # one more: reads to the end, where gzip keeps its check sum
        if len(data) != expected:
            follow = f"{len(data)}" if len(data) < expected else "more"
            raise _files.damaged(path, f"{claim}, but {follow} follow{_too_short(len(data), expected)}")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def read_four(folder: object, source: Source) -> tuple[Array, Array, Array, Array]:
    """Training images, labels, test images, labels: uint8 of shape (n, height, width) and (n,), checked."""
    paths = _find(_files.path_of(folder, source), source)
    images, labels = _pair(paths[0], paths[1])
    test_images, test_labels = _pair(paths[2], paths[3])
    if images.shape[1:] != test_images.shape[1:]:
        shapes = [" x ".join(str(size) for size in part.shape[1:]) for part in (test_images, images)]
        raise _files.damaged(paths[2], f"its images are {shapes[0]} pixels, those of {paths[0].name} {shapes[1]}")
    return images, labels, test_images, test_labels


def _find(folder: Path, source: Source) -> list[Path]:
    """The four files, from the first of the source's folders that has any of them."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is a file; {source.name} needs the folder of its four files")
    stems = [(part, what) for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
    names = [f"{part}-{what}-ubyte" for part, what in stems]
    for place in (folder / sub for sub in source.folders):
        found = [_first_file(place, name) for name in names]
        if any(found):
            break
    else:
        place = folder
    absent = [name for name, path in zip(names, found, strict=True) if path is None]
    if absent:
        raise _files.missing([f"{name}[.gz]" for name in absent], place, source)
    return [path for path in found if path is not None]


def _first_file(place: Path, name: str) -> Path | None:
    """train-images-idx3-ubyte or train-images.idx3-ubyte, as it is or gzipped."""
    spellings = [name, name.replace("-idx", ".idx")]
    paths = [place / f"{spelling}{ending}" for spelling in spellings for ending in ("", ".gz")]
    return next((path for path in paths if path.is_file()), None)


def _pair(images_path: Path, labels_path: Path) -> tuple[Array, Array]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    for path, array, ndim, what in ((images_path, images, 3, "images"), (labels_path, labels, 1, "labels")):
        if array.ndim != ndim or array.dtype != np.uint8:
            raise _files.damaged(
                path, f"{what} must be {ndim}-dimensional uint8, got {array.dtype} of shape {array.shape}"
            )
        if array.size == 0:
            raise _files.damaged(path, f"it holds no {what} (shape {array.shape})")
    if len(images) != len(labels):
        raise _files.damaged(labels_path, f"it has {len(labels)} labels for the {len(images)} of {images_path.name}")
    if labels.max() > 9:
        first = int(np.argmax(labels > 9))
        raise _files.damaged(labels_path, f"labels must be from 0 to 9, got {labels[first]} at index {first}")
    return images, labels


def _header(file: BinaryIO, path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES or not 1 <= magic[3] <= 32:
        shown = magic.hex(" ") or "nothing"
        raise _files.damaged(path, f"not an IDX file: it must begin with 00 00, a type and a dimension, got {shown}")
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise _files.damaged(path, "it ends within its header (an interrupted download?)")
    return np.dtype(_DTYPES[magic[2]]), tuple(int(size) for size in np.frombuffer(sizes, ">u4"))


def _at_most(file: BinaryIO, count: int) -> bytearray:
    """Up to `count` bytes, piece by piece: what is not there takes no memory."""
    data = bytearray()
    while len(data) < count:
        piece = file.read(min(_CHUNK, count - len(data)))
        if not piece:
            break
        data += piece
    return data


def _too_short(size: int, expected: int) -> str:
    return " (an interrupted download?)" if size < expected else ""
