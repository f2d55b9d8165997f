"""Models that cut images into patches: each becomes a token, blocks work on the tokens, a head reads their mean.

Vanilla by default, without normalisation and without skips, as in the theory of signals and gradients. A block is two
branches, each y -> f(y), or with them y -> y + sqrt(a) f(norm(y)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn import functional

from .. import _checks
from ..ensemble import Ensemble, as_simulated
from ._layers import Model, NodePool, Positions, as_images, branch_scale, checked_image, layer, pooled
from .activation import Phi

__all__ = ["MLPMixer", "ViT"]

Tensor = Any


@dataclass(frozen=True)
class _Form:
    """What all parts of a model share."""

    ens: Ensemble
    normalisation: bool
    skips: bool
    dtype: Any
    device: Any

    @classmethod
    def checked(cls, ens: object, normalisation: bool, skips: bool, dtype: Any, device: Any) -> _Form:
        ens = as_simulated(ens)
        normalised = _checks.flag("normalisation", normalisation) or ens.layernorm
        return cls(ens, normalised, _checks.flag("skips", skips) or ens.residual is not None, dtype, device)

    def linear(self, fan_in: int, nodes: int) -> Any:
        return layer(nn.Linear, fan_in, nodes, dtype=self.dtype, device=self.device)

    def norm(self, width: int) -> Any:
        """LayerNorm, or None. Blank patches without biases are tokens of zeros: an eps of 0 would make them nan."""
        return nn.LayerNorm(width, eps=1e-5, elementwise_affine=False) if self.normalisation else None


# ---- Branches --------------------------------------------------------------------------------------------------------


class _Branch(nn.Module):
    """f(y), between a normalisation and a skip where there are these."""

    def __init__(self, form: _Form, width: int) -> None:
        super().__init__()
        self.norm = form.norm(width)
        self.skip, self.scale = form.skips, branch_scale(form.ens)

    def forward(self, y: Tensor) -> Tensor:
        f = self.f(y if self.norm is None else self.norm(y))
        return y + self.scale * f if self.skip else f

    def f(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"y + {self.scale:.4g} * f(y)" if self.skip else ""


class Attention(_Branch):
    """W_out softmax(q k^T / sqrt(width / heads)) v, each head for itself, with q, k, v = W_q y, W_k y, W_v y."""

    def __init__(self, form: _Form, width: int, heads: int) -> None:
        super().__init__(form, width)
        self.heads = heads
        self.q, self.k, self.v, self.out = (form.linear(width, width) for _ in range(4))

    def f(self, y: Tensor) -> Tensor:
        q, k, v = (part(y).unflatten(-1, (self.heads, -1)).transpose(-3, -2) for part in (self.q, self.k, self.v))
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(-3, -2).flatten(-2))


class Perceptron(_Branch):
    """W_2 pool(phi(W_1 y)), each token for itself."""

    def __init__(self, form: _Form, width: int, nodes: int, hidden: int) -> None:
        super().__init__(form, width)
        self.first = form.linear(nodes, hidden)
        self.phi = Phi(form.ens.activation)
        self.pool = None if form.ens.pool is None else NodePool(form.ens.pool)
        self.second = form.linear(pooled(form.ens, hidden, "the number of hidden nodes"), nodes)

    def f(self, y: Tensor) -> Tensor:
        x = self.phi(self.first(y))
        return self.second(x if self.pool is None else self.pool(x))


class TokenMixing(Perceptron):
    """W_2 pool(phi(W_1 y)) along the tokens, each component for itself."""

    def f(self, y: Tensor) -> Tensor:
        return super().f(y.transpose(-2, -1)).transpose(-2, -1)


def _hidden(name: str, ratio: float, nodes: int) -> int:
    """Hidden nodes of a perceptron that sees so many."""
    hidden = _checks.positive_finite(name, ratio) * nodes
    if hidden != int(hidden):
        raise ValueError(f"{name} must give a whole number of hidden nodes for {nodes} nodes, got {ratio!r}")
    return int(hidden)


# ---- Models ----------------------------------------------------------------------------------------------------------


class _PatchModel(Model):
    """Patches -> tokens -> blocks -> mean -> head; the two models below say what a block is."""

    def __init__(
        self, form: _Form, width: int, patch: int, image: tuple[int, int, int], positions: bool, generator: Any
    ) -> None:
        super().__init__(form.ens, form.dtype, generator)
        self.image = checked_image(image)
        width, patch = _checks.integer("width", width, 1), _checks.integer("patch", patch, 1)
        if self.image[1] % patch or self.image[2] % patch:
            raise ValueError(f"patch must divide height and width of image={self.image}, got {patch}")
        if form.normalisation and width == 1:
            raise ValueError("width must be at least 2 with normalisation, which leaves nothing of one node, got 1")
        self.tokens = (self.image[1] // patch) * (self.image[2] // patch)
        kind = {"dtype": form.dtype, "device": form.device}
        self.embedding = layer(nn.Conv2d, self.image[0], width, patch, stride=patch, **kind)
        self.positions = Positions(self.tokens, width, **kind) if _checks.flag("positions", positions) else None

    def _finish(self, form: _Form, blocks: list[dict[str, Any]], classes: int, generator: Any) -> None:
        width = self.embedding.out_channels
        self.blocks = nn.ModuleList(nn.ModuleDict(branches) for branches in blocks)
        self.norm = form.norm(width)
        self.head = form.linear(width, _checks.integer("classes", classes, 1))
        self.redraw_(generator)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes) of images (n, channels, height, width), or of flat ones."""
        y = self.embedding(as_images(x, self.image)).flatten(2).transpose(1, 2)
        if self.positions is not None:
            y = self.positions(y)
        for block in self.blocks:
            for branch in block.values():
                y = branch(y)
        return self.head((y if self.norm is None else self.norm(y)).mean(1))


class ViT(_PatchModel):
    """A vision transformer: blocks of softmax attention over the patches and a perceptron at each.

    Every linear map (the embedding of the patches, queries, keys, values, the output of attention, both layers of the
    perceptron, the head) is drawn by the law of the ensemble, of variance sigma_w2 / fan_in. The head reads the mean
    over the tokens.

    Parameters
    ----------
    ens : Ensemble
        The law; its activation and pool are those of the perceptrons. With `residual` there are skips, with `layernorm`
        there is normalisation, whatever the options say.
    width, depth : int
        Length of a token, and number of blocks.
    image : (channels, height, width)
        Shape of an input.
    heads : int, optional
        Of attention; a divisor of the width.
    patch : int, optional
        Side of a patch; a divisor of height and width.
    mlp_ratio : float, optional
        Hidden nodes of the perceptrons over the width.
    classes : int, optional
        Outputs of the head.
    positions : bool, optional
        Whether tokens know their place: by a learnable bias of each, drawn from N(0, sigma_b2).
    normalisation : bool, optional
        Whether LayerNorm (without parameters, eps 1e-5) stands before every branch and before the mean.
    skips : bool, optional
        Whether y is added to each branch, which is scaled by sqrt(ens.residual), or by 1 where that is None.
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
    Dosovitskiy et al., An image is worth 16x16 words (2021).

    Examples
    --------
    >>> import torch
    >>> import igbfast as igb
    >>> from igbfast.torch import ViT
    >>> model = ViT(igb.Ensemble("gelu", sigma_w2=1.5), width=32, depth=6, image=(1, 8, 8))
    >>> model(torch.randn(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    >>> model.blocks[0]["mlp"]
    Perceptron(
      (first): Linear(in_features=32, out_features=64, bias=True)
      (phi): Phi('gelu')
      (second): Linear(in_features=64, out_features=32, bias=True)
    )
    """

    def __init__(
        self,
        ens: Ensemble,
        *,
        width: int,
        depth: int,
        image: tuple[int, int, int],
        heads: int = 4,
        patch: int = 2,
        mlp_ratio: float = 2,
        classes: int = 10,
        positions: bool = False,
        normalisation: bool = False,
        skips: bool = False,
        generator: Any = None,
        dtype: Any = None,
        device: Any = None,
    ) -> None:
        form = _Form.checked(ens, normalisation, skips, dtype, device)
        super().__init__(form, width, patch, image, positions, generator)
        depth = _checks.integer("depth", depth, 1)
        if width % _checks.integer("heads", heads, 1):
            raise ValueError(f"heads must divide width={width}, got {heads}")
        hidden = _hidden("mlp_ratio", mlp_ratio, width)
        blocks = [
            {"attention": Attention(form, width, heads), "mlp": Perceptron(form, width, width, hidden)}
            for _ in range(depth)
        ]
        self._finish(form, blocks, classes, generator)


class MLPMixer(_PatchModel):
    """An MLP-Mixer: blocks of a perceptron along the tokens and one along their components.

    Every linear map is drawn by the law of the ensemble, of variance sigma_w2 / fan_in. The head reads the mean over
    the tokens.

    Parameters
    ----------
    ens : Ensemble
        The law; its activation and pool are those of the perceptrons. With `residual` there are skips, with `layernorm`
        there is normalisation, whatever the options say.
    width, depth : int
        Length of a token, and number of blocks.
    image : (channels, height, width)
        Shape of an input.
    patch : int, optional
        Side of a patch; a divisor of height and width.
    tokens_ratio, channels_ratio : float, optional
        Hidden nodes of the perceptrons along the tokens over the number of tokens, and of those along the components
        over the width.
    classes : int, optional
        Outputs of the head.
    normalisation : bool, optional
        Whether LayerNorm (over a token, without parameters, eps 1e-5) stands before every branch and before the mean.
    skips : bool, optional
        Whether y is added to each branch, which is scaled by sqrt(ens.residual), or by 1 where that is None.
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
    Tolstikhin et al., MLP-Mixer: an all-MLP architecture for vision (2021).

    Examples
    --------
    >>> import torch
    >>> import igbfast as igb
    >>> from igbfast.torch import MLPMixer
    >>> model = MLPMixer(igb.Ensemble("gelu", sigma_w2=1.5), width=32, depth=3, image=(3, 8, 8), skips=True)
    >>> model(torch.randn(5, 3, 8, 8)).shape
    torch.Size([5, 10])
    >>> model.blocks[0]["tokens"]
    TokenMixing(
      y + 1 * f(y)
      (first): Linear(in_features=16, out_features=32, bias=True)
      (phi): Phi('gelu')
      (second): Linear(in_features=32, out_features=16, bias=True)
    )
    """

    def __init__(
        self,
        ens: Ensemble,
        *,
        width: int,
        depth: int,
        image: tuple[int, int, int],
        patch: int = 2,
        tokens_ratio: float = 2,
        channels_ratio: float = 2,
        classes: int = 10,
        normalisation: bool = False,
        skips: bool = False,
        generator: Any = None,
        dtype: Any = None,
        device: Any = None,
    ) -> None:
        form = _Form.checked(ens, normalisation, skips, dtype, device)
        super().__init__(form, width, patch, image, False, generator)
        depth, tokens = _checks.integer("depth", depth, 1), self.tokens
        along_tokens = _hidden("tokens_ratio", tokens_ratio, tokens)
        along_channels = _hidden("channels_ratio", channels_ratio, width)
        blocks = [
            {
                "tokens": TokenMixing(form, width, tokens, along_tokens),
                "channels": Perceptron(form, width, width, along_channels),
            }
            for _ in range(depth)
        ]
        self._finish(form, blocks, classes, generator)
