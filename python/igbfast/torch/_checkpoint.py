"""Checkpoints: all that a run of training needs to go on as if it had never stopped, in one file.

The file is written whole or not at all, and read as plain data (`weights_only=True`): nothing in it can run.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .. import _saving

__all__ = ["described", "fingerprint", "read", "require_same", "write"]

_FORMAT = "igbfast training checkpoint, 1"


def write(target: Path, content: Mapping[str, Any]) -> None:
    """Tensors, numbers, texts, and dicts and lists of them, as one file.

    Raises OSError, with the name of the file, if it cannot be written; an older file of that name then stays.
    """
    with _saving.whole_file(target) as draft:
        torch.save({"format": _FORMAT, **content}, draft)


def read(path: Path) -> dict[str, Any]:
    """What `write` has written, on the CPU.

    Raises ValueError, with the name of the file, for anything else.
    """
    wrong = f"checkpoint {str(path)!r} is not one that igbfast has written, or it is damaged"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of things that the error will tell
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        OSError,
        EOFError,
        pickle.UnpicklingError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        reason = getattr(error, "strerror", None)  # PyTorch's own words advise to read it as a program
        raise ValueError(f"{wrong}: {reason}" if reason else wrong) from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(wrong)
    return content


def require_same(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """ValueError for the first setting in which the checkpoint's run differs from the one that is to go on."""
    for name, value in now.items():
        if saved.get(name) != value:
            there, here = _where_they_differ(saved.get(name), value)
            raise ValueError(f"checkpoint {str(path)!r} is of another run: its {name} is {there}, here it is {here}")


def described(model: torch.nn.Module) -> dict[str, str]:
    """What a model is, without the values of its parameters: its modules, then each name with shape and dtype."""
    states = model.state_dict()
    modules = re.sub(r" at 0x[0-9a-f]+", "", repr(model))
    lines = [f"{name}: {tuple(value.shape)} {value.dtype}" for name, value in states.items() if torch.is_tensor(value)]
    return {"model's parameters": "; ".join(lines), "model": modules}


def fingerprint(tensor: torch.Tensor) -> int:
    """A number that tells tensors of different values apart, but for one pair in four thousand million."""
    return zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def _where_they_differ(one: object, other: object) -> tuple[str, str]:
    """Two values as text; of long ones the part around the first place where they differ."""
    texts = [value if isinstance(value, str) and len(value) > 20 else repr(value) for value in (one, other)]
    texts = [" ".join(text.split()) for text in texts]
    if max(len(text) for text in texts) <= 100:
        return texts[0], texts[1]
    first = next((i for i, pair in enumerate(zip(*texts, strict=False)) if pair[0] != pair[1]), min(map(len, texts)))
    begin = max(0, first - 40)
    cut = [
        f"{'...' if begin else ''}{text[begin : first + 40]}{'...' if len(text) > first + 40 else ''}" for text in texts
    ]
    return cut[0], cut[1]
