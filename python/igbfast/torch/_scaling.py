"""Which parameters are the weights of layers, by their names and shapes alone, and multiplying them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .. import _checks
from ._batches import unwrapped

__all__ = ["is_weight", "owner_of", "scale_"]


def owner_of(model: nn.Module, name: str) -> nn.Module:
    """The module whose parameter has this name."""
    module = model
    for part in name.split(".")[:-1]:
        module = getattr(module, part)
    return module


_NO_LAYERS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


def is_weight(model: nn.Module, name: str, parameter: Any) -> bool:
    """Whether this parameter is, by its name and shape, the matrix or kernel of a layer."""
    last = name.rpartition(".")[2]
    return parameter.ndim >= 2 and "weight" in last and not isinstance(owner_of(model, name), _NO_LAYERS)


def scale_(model: Any, factor: float, *, layers: Sequence[str] | str | None = None) -> Any:
    """Multiply the weights of a model's layers by a number, in place: sigma_w2 changes by its square.

    Biases, embeddings, normalisations and all other parameters stay as they are, and a weight that several layers share
    is multiplied once. What a trained model has learned keeps its direction, while its phase moves.

    Parameters
    ----------
    model : torch.nn.Module
        Any model; frozen weights are multiplied too.
    factor : float
        Positive and finite.
    layers : str or sequence of str, optional
        Names of modules, as `model.named_modules()` gives them, whose layers are meant; all by default.

    Returns
    -------
    torch.nn.Module
        The model.

    Raises
    ------
    ValueError, TypeError
        If the factor is not positive, a name is unknown, no layer is found, or weights are computed in a way that their
        scale cannot be changed.

    Examples
    --------
    >>> import torch
    >>> from igbfast.torch import scale_
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
    >>> before = model[0].weight.clone()
    >>> bool(torch.equal(scale_(model, 1.5)[0].weight, 1.5 * before)), model[1].weight.tolist()
    (True, [1.0, 1.0, 1.0, 1.0])
    """
    plain = unwrapped(model)
    number = _checks.positive_finite("factor", factor)
    prefixes = _checked_names(plain, layers)
    chosen = []
    for name, parameter in plain.named_parameters():
        inside = not prefixes or any(name == p or name.startswith(f"{p}.") for p in prefixes)
        if inside and (is_weight(plain, name, parameter) or "parametrizations.weight" in name):
            chosen += [(name, parameter)] if _carries_scale(plain, name) else []
    if not chosen:
        where = f" in {', '.join(map(repr, prefixes))}" if prefixes else ""
        raise ValueError(f"model must have layers with weights, found none{where}")
    with torch.no_grad():
        for _, parameter in chosen:
            parameter.mul_(number)
    return model


def _checked_names(model: nn.Module, layers: Any) -> list[str]:
    if layers is None:
        return []
    names = [layers] if isinstance(layers, str) else list(layers)
    known = [name for name, _ in model.named_modules(remove_duplicate=False)]
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"layers must be names of modules, got {_checks.shown(name)}")
        if name not in known:
            raise ValueError(
                f"layers must be names of modules of the model, got {name!r}{_checks.nearest(name, known)}"
            )
    return [] if "" in names else names


def _carries_scale(model: nn.Module, name: str) -> bool:
    """Of weights that are computed: weight normalisation has its scale in a parameter of its own."""
    if name.endswith((".original1", "weight_v")):
        return False
    pruned = name.endswith("weight_orig") and hasattr(owner_of(model, name), "weight_mask")
    if name.endswith((".original", "weight_orig")) and not pruned:
        raise ValueError(f"model must have weights that can be multiplied, but those of {name!r} are computed")
    return True
