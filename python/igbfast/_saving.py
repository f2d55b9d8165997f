"""Files that are either whole or not there: checked before the work, written beside their place, then moved into it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["checked_target", "require_space", "whole_file"]


def checked_target(name: str, path: str | os.PathLike[str], suffixes: Sequence[str]) -> Path:
    """The path, if a file with one of these suffixes can be written there; nothing is left behind.

    Raises ValueError for the wrong suffix and OSError (naming the argument, the path and the reason) otherwise.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{name} cannot be written: {str(target)!r} is a folder")
    if target.suffix.lower() not in suffixes:
        raise ValueError(f"{name} must end in {' or '.join(suffixes)}, got {str(target)!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{name} cannot be written: there is no folder {str(target.parent)!r}")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"{name} cannot be written: {str(target)!r} is read-only")
    trial = _beside(target)
    try:
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise type(error)(f"{name} cannot be written: {str(target)!r}: {error.strerror}") from None
    return target


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write to; it becomes `target` if all goes well, and vanishes if not.

    Raises OSError with the target's name if the writing fails, whatever the writer's own error (disk full, ...).
    """
    draft = _beside(target)
    try:
        yield draft
        with draft.open("rb") as written:
            os.fsync(written.fileno())  # a full disk may only say so now
        draft.replace(target)
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise OSError(f"could not write {str(target)!r}: {reason}; nothing was left behind") from error
    finally:
        draft.unlink(missing_ok=True)


def require_space(draft: Path, size: int) -> None:
    """OSError if a file of this size does not fit; asked before libraries write that fail badly on a full disk."""
    if not hasattr(os, "posix_fallocate"):  # not on every system
        return
    with draft.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
