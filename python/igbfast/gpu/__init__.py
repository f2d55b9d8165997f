"""The functions of igbfast on NVIDIA GPUs: what `device="cuda"` runs, and random weights where they are to be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._sampling import weights

__all__ = ["weights"]


def __getattr__(name: str) -> Any:
    """`weights`, which needs PyTorch, once somebody asks for it: the search for devices does not."""
    if name != "weights":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ._sampling import weights

    return weights
