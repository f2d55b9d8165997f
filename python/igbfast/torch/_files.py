"""Opening the files of a data set: gzipped or not, never more in memory than allowed, errors that name the file."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from .. import _checks

__all__ = ["GZIP_RATIO", "Source", "damaged", "is_gzip", "missing", "opened", "path_of"]

# Deflate never shrinks by more than this, so a gzipped file cannot hold more than its size times it.
GZIP_RATIO = 1032


@dataclass(frozen=True)
class Source:
    """A data set as messages name it, and where it is to be had."""

    name: str
    url: str


def path_of(folder: object, source: Source) -> Path:
    """The folder (or file) as a path that exists, `~` expanded."""
    if not isinstance(folder, (str, os.PathLike)) or isinstance(folder, bytes):
        raise TypeError(f"folder must be a path (a str or pathlib.Path), got {_checks.shown(folder)}")
    path = Path(folder).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {str(folder)!r}; {source.name} comes from {source.url}")
    return path


def missing(names: Sequence[str], folder: Path, source: Source) -> FileNotFoundError:
    """The error that names the files which are not in the folder."""
    listed = ", ".join(names)
    return FileNotFoundError(f"missing in {str(folder)!r}: {listed}; {source.name} comes from {source.url}")


def damaged(file: object, why: str) -> ValueError:
    """The error that names the file and what is wrong with it."""
    return ValueError(f"{str(file)!r}: {why}")


def is_gzip(path: Path) -> bool:
    """By the first two bytes, since names lie: browsers unpack .gz files and leave the name."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked where it is gzipped; what is wrong with the packing is a ValueError."""
    try:
        if is_gzip(path):
            with gzip.open(path, "rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            with path.open("rb") as file:
                yield file
    except EOFError:
        raise damaged(path, "the gzipped data end too early (an interrupted download?)") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise damaged(path, f"the gzipped data are damaged ({error})") from None
