"""Where an experiment's networks begin: one (sigma_w2, sigma_b2) in each phase, and the data that they see."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from types import MappingProxyType
from typing import Any

import numpy as np

from ... import _checks
from ...phases import edge_of_chaos, neutrality_line
from ..data import Data, load

__all__ = ["PHASES", "prepared", "starts"]

PHASES = ("ordered", "critical", "chaotic", "neutral")
"""Ordered: deep prejudice that persists. Critical: deep prejudice that does not, at the edge of chaos. Chaotic and
prejudiced. Neutral, which is chaotic too."""


def starts(activation: str, sigma_b2: float) -> Mapping[str, float]:
    """sigma_w2 of a network in each phase, at the same sigma_b2.

    Half of the edge of chaos; the edge; the geometric mean of the edge and the neutrality line; twice the latter.

    Examples
    --------
    >>> {phase: round(sigma_w2, 3) for phase, sigma_w2 in starts("tanh", 0.05).items()}
    {'ordered': 0.88, 'critical': 1.761, 'chaotic': 2.046, 'neutral': 4.757}
    """
    sigma_b2 = _checks.positive_finite("sigma_b2", sigma_b2)
    edge, neutral = float(edge_of_chaos(activation, sigma_b2)), float(neutrality_line(activation, sigma_b2))
    if not (np.isfinite(edge) and edge < neutral < np.inf):
        raise ValueError(
            "activation must have an edge of chaos and a neutrality line above it, as tanh and erf have, got "
            f"{activation!r} at sigma_b2={sigma_b2:g}"
        )
    values = (0.5 * edge, edge, float(np.sqrt(edge * neutral)), 2.0 * neutral)
    return MappingProxyType(dict(zip(PHASES, values, strict=True)))


def prepared(name: str, folder: str | PathLike[str] | None, *, images: bool = False) -> Data:
    """Data as theory assumes its inputs: q0 = 1 exactly, and c0 near 0, because features or channels are centred."""
    options: Any = {"images": True} if images and name == "digits" else {}
    data = load(name, folder, **options)
    data = data if images else data.flat()
    return data.normalised("features" if name == "digits" else "channels").normalised("inputs")
