"""The models of the experiments, with the words of `Ensemble`: MLP, CNN, vision transformer, MLP-Mixer.

All parameters are drawn by the law of an ensemble: each layer has weights of variance sigma_w2 / fan_in and biases of
variance sigma_b2, so that what theory says of (activation, sigma_w2, sigma_b2) can be looked at in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from .. import _checks
from ..ensemble import Ensemble
from ._layers import Model, NodePool, as_images, branch_scale, checked_image, draw_, layer, pooled
from ._tokens import MLPMixer, ViT
from .activation import Phi

__all__ = ["CNN", "MLP", "MLPMixer", "ViT", "draw_", "timm_model"]

Tensor = Any


class _Stack(Model):
    """y^(l+1) = [y^l +] sqrt(a) layer(x^l), x^l = pool(phi(norm(y^l))): what MLP and CNN share."""

    def _build(self, layers: list[Any], norm: Callable[[], Any] | None, pool_dim: int) -> None:
        ens = self.ens
        self.layers = nn.ModuleList(layers)
        self.norms = None if norm is None else nn.ModuleList(norm() for _ in layers)
        self.phi = Phi(ens.activation)
        self.pool = None if ens.pool is None else NodePool(ens.pool, pool_dim)

    def _last_seen(self, x: Tensor) -> Tensor:
        """x of the last layer, which the head sees."""
        scale, residual = branch_scale(self.ens), self.ens.residual is not None
        first, *others = self.layers
        y, x = self._after(0, first(x))
        for number, linear in enumerate(others, 1):
            y, x = self._after(number, y + scale * linear(x) if residual else linear(x))
        return x

    def _after(self, number: int, y: Tensor) -> tuple[Tensor, Tensor]:
        """y and x of the layer with that index, as the next layer sees them."""
        x = self.phi(y if self.norms is None else self.norms[number](y))
        return y, x if self.pool is None else self.pool(x)


def _checked_batchnorm(batchnorm: object, ens: Ensemble) -> bool:
    if _checks.flag("batchnorm", batchnorm) and ens.layernorm:
        raise ValueError("batchnorm must be False where ens has layernorm=True, got True")
    return bool(batchnorm)


class MLP(_Stack):
    """The fully connected network that `igbfast.simulate` runs, as a module.

        y^1 = W x + b,   y^(l+1) = [y^l +] sqrt(a) (W x^l + b),   x^l = pool(phi(norm(y^l)))

    with `depth` hidden layers of `width` nodes and a head, one more linear layer (Gaussian, without skip). The bracket
    and a are those of a residual ensemble; a pool of k hands on width / k values, so that the next W is
    width x (width / k).

    Parameters
    ----------
    ens : Ensemble
        The law: any activation but a mixture, any weights, pool, residual or layernorm.
    width, depth : int
        Nodes of a layer, and number of hidden layers.
    features : int, optional
        Length of an input; by default the width.
    classes : int, optional
        Outputs of the head.
    batchnorm : bool, optional
        Whether a `BatchNorm1d` stands before every activation.
    generator : torch.Generator, optional
        Where the parameters come from: the same state gives the same model to the last bit. By default torch's global
        one.
    dtype, device : optional
        Of the parameters; by default torch's.

    Raises
    ------
    ValueError, TypeError
        For an argument out of range or of the wrong type; the message names it.

    Examples
    --------
    >>> import torch
    >>> import igbfast as igb
    >>> from igbfast.torch import MLP
    >>> ens = igb.Ensemble("relu", sigma_w2=1.1, pool=igb.MaxPool(2))
    >>> model = MLP(ens, width=100, depth=20, features=64, generator=torch.Generator().manual_seed(0))
    >>> model
    MLP(
      Ensemble('relu', sigma_w2=1.1, sigma_b2=0.0, pool=MaxPool(2))
      (layers): ModuleList(
        (0): Linear(in_features=64, out_features=100, bias=True)
        (1-19): 19 x Linear(in_features=50, out_features=100, bias=True)
      )
      (phi): Phi('relu')
      (pool): NodePool(MaxPool(2))
      (head): Linear(in_features=50, out_features=10, bias=True)
    )
    >>> model(torch.randn(5, 1, 8, 8)).shape  # images are flattened
    torch.Size([5, 10])
    """

    def __init__(
        self,
        ens: Ensemble,
        *,
        width: int,
        depth: int,
        features: int | None = None,
        classes: int = 10,
        batchnorm: bool = False,
        generator: Any = None,
        dtype: Any = None,
        device: Any = None,
    ) -> None:
        super().__init__(ens, dtype, generator)
        ens, kind = self.ens, {"dtype": dtype, "device": device}
        width = _checks.integer("width", width, 1)
        depth = _checks.integer("depth", depth, 1)
        classes = _checks.integer("classes", classes, 1)
        self.features = width if features is None else _checks.integer("features", features, 1)
        seen = pooled(ens, width)
        if ens.layernorm and width == 1:
            raise ValueError("width must be at least 2 with layernorm=True, which leaves nothing of one node, got 1")
        norm: Callable[[], Any] | None = None
        if _checked_batchnorm(batchnorm, ens):
            norm = partial(nn.BatchNorm1d, width, **kind)
        elif ens.layernorm:
            norm = partial(nn.LayerNorm, width, eps=0.0, elementwise_affine=False)
        fan_ins = [self.features, *[seen] * (depth - 1)]
        self._build([layer(nn.Linear, fan_in, width, **kind) for fan_in in fan_ins], norm, pool_dim=-1)
        self.head = layer(nn.Linear, seen, classes, **kind)
        self.redraw_(generator)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (..., classes) of inputs (..., features); of (n, ...) with as many numbers in all, (n, classes)."""
        return self.head(self._last_seen(self._flat(x)))

    def _flat(self, x: Tensor) -> Tensor:
        if x.ndim and x.shape[-1] == self.features:
            return x
        if x.ndim < 2 or math.prod(x.shape[1:]) != self.features:
            raise ValueError(f"inputs must have {self.features} features, got a tensor of shape {tuple(x.shape)}")
        return x.flatten(1)


class CNN(_Stack):
    """A convolutional network with circular padding: what `MLP` is, at every position of an image.

        y^1 = W * x + b,   y^(l+1) = [y^l +] sqrt(a) (W * x^l + b),   x^l = pool(phi(norm(y^l)))

    with weights of variance sigma_w2 / (channels kernel^2), `depth` convolutions, the mean over the positions and a
    linear head. With many channels each position is a node of the theory of `propagate`, as far as all positions see
    alike inputs; of images that are the same at all positions it is that theory exactly.

    Parameters
    ----------
    ens : Ensemble
        The law: any activation but a mixture, any weights, pool (over channels), residual or layernorm (over channels
        and positions).
    channels, depth : int
        Channels of a layer, and number of convolutions.
    image : (channels, height, width)
        Shape of an input.
    kernel : int, optional
        Side of the kernels, odd.
    pool_every : int, optional
        After every so many layers 2 x 2 positions become one, as long as both sides stay above zero and wide enough for
        the kernel's padding; the skip of a residual network goes through the same pool. 0 for never.
    spatial_pool : {"max", "average"}, optional
        What becomes of the 2 x 2 positions.
    classes : int, optional
        Outputs of the head.
    batchnorm : bool, optional
        Whether a `BatchNorm2d` stands before every activation.
    generator : torch.Generator, optional
        Where the parameters come from: the same state gives the same model to the last bit. By default torch's global
        one.
    dtype, device : optional
        Of the parameters; by default torch's.

    Raises
    ------
    ValueError, TypeError
        For an argument out of range or of the wrong type; the message names it.

    References
    ----------
    Xiao et al., Dynamical isometry and a mean field theory of CNNs (2018).

    Examples
    --------
    >>> import torch
    >>> import igbfast as igb
    >>> from igbfast.torch import CNN
    >>> model = CNN(igb.Ensemble("relu", sigma_w2=2.0), channels=16, depth=6, image=(1, 8, 8), pool_every=2)
    >>> model
    CNN(
      Ensemble('relu', sigma_w2=2.0, sigma_b2=0.0), positions halved after layers 2, 4, 6
      (layers): ModuleList(
        (0): Conv2d(1, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), padding_mode=circular)
        (1-5): 5 x Conv2d(16, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), padding_mode=circular)
      )
      (phi): Phi('relu')
      (spatial_pool): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
      (head): Linear(in_features=16, out_features=10, bias=True)
    )
    >>> model(torch.randn(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        ens: Ensemble,
        *,
        channels: int,
        depth: int,
        image: tuple[int, int, int],
        kernel: int = 3,
        pool_every: int = 0,
        spatial_pool: str = "max",
        classes: int = 10,
        batchnorm: bool = False,
        generator: Any = None,
        dtype: Any = None,
        device: Any = None,
    ) -> None:
        super().__init__(ens, dtype, generator)
        ens, kind = self.ens, {"dtype": dtype, "device": device}
        channels = _checks.integer("channels", channels, 1)
        depth = _checks.integer("depth", depth, 1)
        classes = _checks.integer("classes", classes, 1)
        self.image = checked_image(image)
        padding = _checked_kernel(kernel, self.image) // 2
        self.pooled_after = _pooled_after(_checks.integer("pool_every", pool_every, 0), depth, self.image, padding)
        norm: Callable[[], Any] | None = None
        if _checked_batchnorm(batchnorm, ens):
            norm = partial(nn.BatchNorm2d, channels, **kind)
        elif ens.layernorm:
            norm = partial(nn.GroupNorm, 1, channels, eps=0.0, affine=False)
        seen = pooled(ens, channels, "channels")
        window = {"kernel_size": kernel, "padding": padding, "padding_mode": "circular"}
        fan_ins = [self.image[0], *[seen] * (depth - 1)]
        self._build([layer(nn.Conv2d, fan_in, channels, **window, **kind) for fan_in in fan_ins], norm, pool_dim=1)
        pools = {"max": nn.MaxPool2d(2), "average": nn.AvgPool2d(2)}
        chosen = pools[_checks.choice("spatial_pool", spatial_pool, pools)]
        self.spatial_pool: Any = chosen if self.pooled_after else None
        self.head = layer(nn.Linear, seen, classes, **kind)
        self.redraw_(generator)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes) of images (n, channels, height, width), or of flat ones."""
        return self.head(self._last_seen(as_images(x, self.image)).mean((-2, -1)))

    def _after(self, number: int, y: Tensor) -> tuple[Tensor, Tensor]:
        y, x = super()._after(number, y)
        if number + 1 not in self.pooled_after:
            return y, x
        return y if self.ens.residual is None else self.spatial_pool(y), self.spatial_pool(x)

    def extra_repr(self) -> str:
        where = ", ".join(map(str, self.pooled_after))
        return super().extra_repr() + (f", positions halved after layers {where}" if where else "")


def _checked_kernel(kernel: object, image: tuple[int, int, int]) -> int:
    """An odd side whose circular padding goes at most once around the image."""
    side = _checks.integer("kernel", kernel, 1)
    if side % 2 == 0:
        raise ValueError(f"kernel must be odd, got {side}")
    if side // 2 > min(image[1:]):
        raise ValueError(f"kernel must be at most {2 * min(image[1:]) + 1} for image={image}, got {side}")
    return side


def _pooled_after(every: int, depth: int, image: tuple[int, int, int], padding: int) -> tuple[int, ...]:
    """The numbers of the layers that a spatial pool follows."""
    side, found = min(image[1:]), []
    for number in range(every, depth + 1, every) if every else ():
        side //= 2
        if side < max(1, padding):
            break
        found.append(number)
    return tuple(found)


def timm_model(name: str, *, classes: int = 10, **options: Any) -> Any:
    """A model of the timm library by its name.

    Parameters
    ----------
    name : str
        As timm knows it, such as `"vit_tiny_patch16_224"`.
    classes : int, optional
        Outputs of its head.
    **options
        Of `timm.create_model`, such as `pretrained=True` (which downloads weights) or `in_chans=1`.

    Returns
    -------
    torch.nn.Module
        The model, initialised as timm does; `igbfast.torch.init_` does it by theory.

    Raises
    ------
    ImportError
        Where timm is not installed.
    ValueError, TypeError
        For an unknown name, and for an argument of the wrong type.

    Examples
    --------
    >>> from igbfast.torch import timm_model
    >>> model = timm_model("vit_tiny_patch16_224", classes=10)  # doctest: +SKIP
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {_checks.shown(name)}")
    classes = _checks.integer("classes", classes, 1)
    try:
        import timm
    except ImportError as error:
        needed = "timm and the torchvision that belongs to your torch: pip install timm"
        raise ImportError(f"timm_model needs {needed}") from error
    if not timm.is_model(name.split(".")[0]):
        raise ValueError(f"name must be that of a timm model, got {name!r}{_checks.nearest(name, timm.list_models())}")
    return timm.create_model(name, num_classes=classes, **options)
