"""What the models are made of: layers drawn by the law of an ensemble, pools over nodes, checks of images.

Every linear layer and convolution has W_ij ~ (0, sigma_w2 / fan_in) and b_i ~ N(0, sigma_b2), where fan_in counts the
numbers that one output is a sum of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import skip_init

from .. import _checks
from ..ensemble import Ensemble, as_ensemble, as_simulated
from ..pools import AvgPool, MinPool, Pool
from . import _drawing

__all__ = ["Model", "NodePool", "Positions", "as_images", "branch_scale", "checked_image", "draw_", "layer"]

Tensor = Any

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


# ---- Drawing ---------------------------------------------------------------------------------------------------------


def draw_(module: Any, ens: Ensemble, generator: Any = None) -> Any:
    """Draw a model's weights and biases anew, by the law of an ensemble, in place.

    Every `Linear` and `Conv` gets weights of variance sigma_w2 / fan_in by the law `ens.weights` and biases from
    N(0, sigma_b2); the one called `head` gets Gaussian weights whatever the law, as in `simulate`. Normalisation layers
    start again. What else has parameters stays as it is.

    Parameters
    ----------
    module : torch.nn.Module
        A model of this package, or any module.
    ens : Ensemble
        The law. For a model of this package it must have the model's activation, pool, residual and layernorm, and
        becomes its `ens`.
    generator : torch.Generator, optional
        Where the random numbers come from, on its device: the same state gives the same model to the last bit. By
        default torch's global one of the CPU, whatever device the model is on.

    Returns
    -------
    torch.nn.Module
        The module.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If `module` has no layer to draw, or one that is lazy or whose weight is computed (as by weight normalisation),
        or is a model of this package that is not built as `ens` says.

    Examples
    --------
    >>> import torch
    >>> import igbfast as igb
    >>> from igbfast.torch import MLP, draw_
    >>> model = MLP(igb.Ensemble("tanh", sigma_w2=1.0), width=100, depth=3)
    >>> draw_(model, igb.Ensemble("tanh", sigma_w2=4.0), torch.Generator().manual_seed(0)).ens.sigma_w2
    4.0
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {_checks.shown(module)}")
    ens = as_ensemble(ens)
    checked_generator(generator)
    if isinstance(module, Model):
        _check_alike(module.ens, ens)
        module.ens = ens
    layers = _checked_layers(module)
    head = getattr(module, "head", None)
    with torch.no_grad():
        for part in layers:
            _draw_layer_(part, ens, "gaussian" if part is head else ens.weights, generator)
    for part in module.modules():
        if isinstance(part, _NORMALISATIONS):
            part.reset_parameters()
    return module


def _checked_layers(module: Any) -> list[Any]:
    """The layers to draw; an error where there is none, or one whose weight cannot be written to."""
    found = [(name, part) for name, part in module.named_modules() if isinstance(part, (*_LAYERS, Positions))]
    if not found:
        raise ValueError(f"module must have a Linear or Conv layer, got {_checks.shown(module)}")
    for name, part in found:
        if nn.parameter.is_lazy(part.weight):
            raise ValueError(f"module must know its shapes, but {name!r} is lazy: run the module once on an input")
        if not isinstance(part.weight, nn.Parameter):
            raise ValueError(f"every weight in module must be a parameter, but that of {name!r} is computed")
    return [part for _, part in found]


def _draw_layer_(part: Any, ens: Ensemble, law: str, generator: Any) -> None:
    weight, bias = (None, part.weight) if isinstance(part, Positions) else (part.weight, part.bias)
    if weight is not None:
        variance = ens.sigma_w2 / weight[0].numel()
        weight.copy_(_drawn(weight, variance, law, generator, groups=getattr(part, "groups", 1)))
    if bias is not None:  # drawn even where sigma_b2 = 0, so that the weights do not depend on it
        bias.copy_(_drawn(bias, ens.sigma_b2, "gaussian", generator) + 0.0)


def _check_alike(built: Ensemble, asked: Ensemble) -> None:
    for name in ("activation", "pool", "residual", "layernorm"):
        if getattr(built, name) != getattr(asked, name):
            raise ValueError(
                f"ens must have the {name} of the model, {getattr(built, name)!r}, got {getattr(asked, name)!r}"
            )


def _drawn(like: Tensor, variance: float, law: str, generator: Any, groups: int = 1) -> Tensor:
    """Numbers of that law and variance for a parameter, in float32 at least: half precision rounds them."""
    options = {"generator": generator, "dtype": torch.float64 if like.dtype == torch.float64 else torch.float32}
    if law in _drawing.LAWS:
        return _drawing.weight(like.shape, variance, law=law, groups=groups, **options)
    options["device"] = "cpu" if generator is None else generator.device
    if law == "uniform":
        return torch.rand(like.shape, **options).mul_(2.0).sub_(1.0).mul_(math.sqrt(3.0 * variance))
    return torch.randint(0, 2, like.shape, **options).mul_(2.0).sub_(1.0).mul_(math.sqrt(variance))


def checked_generator(generator: Any) -> Any:
    if generator is not None and not isinstance(generator, torch.Generator):
        example = "torch.Generator().manual_seed(0)"
        raise TypeError(f"generator must be None or such as {example}, got {_checks.shown(generator)}")
    return generator


# ---- Layers ----------------------------------------------------------------------------------------------------------


def layer(kind: Any, *args: Any, dtype: Any, device: Any, **options: Any) -> Any:
    """A layer of torch.nn whose parameters are not drawn yet: no random number is spent before `draw_`."""
    return skip_init(kind, *args, dtype=dtype, device=device or torch.get_default_device(), **options)


class NodePool(nn.Module):
    """Maximum, minimum or average over pools of k nodes: pool p holds nodes p, p + N/k, p + 2 N/k, ... of N."""

    def __init__(self, pool: Pool, dim: int = -1) -> None:
        super().__init__()
        self.pool, self.dim = pool, dim

    def forward(self, x: Tensor) -> Tensor:
        """The pooled values, N/k of the N along `dim`."""
        members = x.unflatten(self.dim, (self.pool.size, -1))
        dim = self.dim - 1 if self.dim < 0 else self.dim
        if isinstance(self.pool, AvgPool):
            return members.mean(dim)
        return members.amin(dim) if isinstance(self.pool, MinPool) else members.amax(dim)

    def extra_repr(self) -> str:
        return repr(self.pool)


class Positions(nn.Module):
    """A bias of each token, (tokens, width), which tells where it is."""

    def __init__(self, tokens: int, width: int, dtype: Any, device: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tokens, width, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]} tokens, {self.weight.shape[1]}"


def pooled(ens: Ensemble, nodes: int, what: str = "width") -> int:
    """How many values the pool of `ens` leaves of so many nodes; an error where it does not divide them."""
    size = 1 if ens.pool is None else ens.pool.size
    if nodes % size:
        raise ValueError(f"{what} must be a multiple of {size} for pool={ens.pool!r}, got {nodes}")
    return nodes // size


def branch_scale(ens: Ensemble) -> float:
    """sqrt(a), what multiplies the branches of a residual network."""
    return 1.0 if ens.residual is None else math.sqrt(ens.residual)


# ---- Models ----------------------------------------------------------------------------------------------------------


class Model(nn.Module):
    """What the models of this package have in common: the ensemble that their parameters are drawn from."""

    ens: Ensemble
    """The law of the parameters."""

    def __init__(self, ens: Ensemble, dtype: Any, generator: Any) -> None:
        super().__init__()
        self.ens = as_simulated(ens)
        checked_dtype(dtype)
        checked_generator(generator)

    def redraw_(self, generator: Any = None) -> Any:
        """Draw all parameters anew, in place: another network of the same ensemble.

        Parameters
        ----------
        generator : torch.Generator, optional
            Where the random numbers come from; by default torch's global one.

        Returns
        -------
        Model
            The model itself.
        """
        return draw_(self, self.ens, generator)

    def extra_repr(self) -> str:
        return repr(self.ens)


def checked_dtype(dtype: Any) -> Any:
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype must be None or a floating type such as torch.float64, got {_checks.shown(dtype)}")
    return dtype


# ---- Images ----------------------------------------------------------------------------------------------------------


def checked_image(image: object) -> tuple[int, int, int]:
    """(channels, height, width) of one image."""
    if not isinstance(image, Sequence) or isinstance(image, str) or len(image) != 3:
        raise TypeError(f"image must be (channels, height, width), got {_checks.shown(image)}")
    channels, height, width = (_checks.integer("every size in image", size, 1) for size in image)
    return channels, height, width


def as_images(x: Tensor, image: tuple[int, int, int]) -> Tensor:
    """Inputs as (n, channels, height, width): given so, flat, or without the dimension of a single channel."""
    if x.ndim < 2 or x[0].numel() != math.prod(image) or (x.ndim == 4 and x.shape[1:] != image):
        raise ValueError(f"inputs must be of shape (n, {', '.join(map(str, image))}) or flat, got {tuple(x.shape)}")
    return x.reshape(-1, *image)
