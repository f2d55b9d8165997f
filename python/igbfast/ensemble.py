"""What a random network is: y^(l) = W phi(y^(l-1)) + b with W_ij ~ N(0, sigma_w2 / width) and b_i ~ N(0, sigma_b2).

phi may be followed by a pool over several nodes and preceded by LayerNorm; a residual network adds y^(l-1):

    y^(l) = y^(l-1) + sqrt(residual) (W phi(y^(l-1)) + b)

The weights need not be Gaussian: an infinitely wide network does not tell their law, a finite one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _checks
from .activations import Activation, as_activation
from .pools import Pool, as_pool

if TYPE_CHECKING:
    from .torch.models import MLP

__all__ = ["Ensemble"]

WEIGHTS = ("gaussian", "orthogonal", "uniform", "rademacher")
"""Laws of the weights."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Ensemble:
    """A fully connected network at initialisation, as a law to draw from.

    Instances are immutable and hashable. Both sigmas are variances: the axes of every phase diagram.

    Parameters
    ----------
    activation : Activation or str
        Such as `"tanh"`, `"leaky_relu(0.2)"` or `igb.activations.relu`.
    sigma_w2 : float
        Variance of the weights times the width, positive.
    sigma_b2 : float, optional
        Variance of the biases, zero or positive; 0 if not given.
    pool : MaxPool, MinPool or AvgPool, optional
        Pool over several nodes after the activation; each pooled value is copied back to its nodes.
    residual : float, optional
        The branch ratio a in y' = y + sqrt(a) (W phi(y) + b), positive; a plain network if not given.
    layernorm : bool, optional
        Whether the activation sees y divided by its root mean square over the nodes. At infinite width the mean over
        the nodes is zero, and does not have to be taken away; `simulate` takes it away.
    weights : {"gaussian", "orthogonal", "uniform", "rademacher"}, optional
        Law of the weights, all of variance sigma_w2 / width: independent normal, uniform or +-1 ones, or a random
        orthogonal matrix times sqrt(sigma_w2) (for layers of unequal sizes a block of one). Theory is the same for all;
        networks of finite width differ.

    Raises
    ------
    ValueError, TypeError
        For an unknown activation, and for an argument out of range or of the wrong type; the message names it.

    References
    ----------
    Poole et al., Exponential expressivity in deep neural networks through transient chaos (2016), equation 1; Yang and
    Schoenholz, Mean field residual networks: on the edge of chaos (2017), for residual networks.

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
    Ensemble('tanh', sigma_w2=1.76, sigma_b2=0.05)
    >>> igb.Ensemble("tanh", sigma_w2=-1.0)
    Traceback (most recent call last):
    ...
    ValueError: sigma_w2 must be a positive finite number, got -1.0
    >>> igb.Ensemble("relu", sigma_w2=2.0, residual=0.1, layernorm=True)
    Ensemble('relu', sigma_w2=2.0, sigma_b2=0.0, residual=0.1, layernorm=True)
    >>> igb.Ensemble("tanh", sigma_w2=1.0, weights="orthogonal")
    Ensemble('tanh', sigma_w2=1.0, sigma_b2=0.0, weights='orthogonal')
    """

    activation: Activation
    """The function applied to every node."""
    sigma_w2: float
    """Variance of the weights times the width."""
    sigma_b2: float = 0.0
    """Variance of the biases."""
    pool: Pool | None = None
    """Pool over several nodes after the activation; None for none."""
    residual: float | None = None
    """Branch ratio a of a residual network; None for a plain one."""
    layernorm: bool = False
    """Whether the activation sees y divided by its root mean square."""
    weights: str = "gaussian"
    """Law of the weights: gaussian, orthogonal, uniform or rademacher."""

    def __init__(
        self,
        activation: Activation | str,
        sigma_w2: float,
        sigma_b2: float = 0.0,
        *,
        pool: Pool | None = None,
        residual: float | None = None,
        layernorm: bool = False,
        weights: str = "gaussian",
    ) -> None:
        branch = None if residual is None else _checks.positive_finite("residual", residual)
        object.__setattr__(self, "activation", as_activation(activation))
        object.__setattr__(self, "sigma_w2", _checks.positive_finite("sigma_w2", sigma_w2))
        object.__setattr__(self, "sigma_b2", _checks.non_negative_finite("sigma_b2", sigma_b2))
        object.__setattr__(self, "pool", as_pool(pool))
        object.__setattr__(self, "residual", branch)
        object.__setattr__(self, "layernorm", _checks.flag("layernorm", layernorm))
        object.__setattr__(self, "weights", _checks.choice("weights", weights, WEIGHTS))

    def __repr__(self) -> str:
        shown = [repr(str(self.activation)), f"sigma_w2={self.sigma_w2!r}", f"sigma_b2={self.sigma_b2!r}"]
        shown += [f"{name}={value!r}" for name, value in self.extras.items()]
        return f"Ensemble({', '.join(shown)})"

    @property
    def extras(self) -> dict[str, Pool | float | bool | str]:
        """What makes it more than a plain network: `pool`, `residual`, `layernorm`, and `weights` if not Gaussian.

        Examples
        --------
        >>> import igbfast as igb
        >>> igb.Ensemble("tanh", sigma_w2=1.0, pool=igb.MaxPool(2)).extras
        {'pool': MaxPool(2)}
        """
        weights = None if self.weights == "gaussian" else self.weights
        given = {
            "pool": self.pool,
            "residual": self.residual,
            "layernorm": self.layernorm or None,
            "weights": weights,
        }
        return {name: value for name, value in given.items() if value is not None}

    def to_torch(
        self,
        width: int,
        depth: int,
        classes: int = 10,
        *,
        features: int | None = None,
        generator: Any = None,
        dtype: Any = None,
        device: Any = None,
    ) -> MLP:
        """Draw one of these networks as a module of PyTorch, to be trained: the network that `simulate` runs.

        Parameters
        ----------
        width, depth : int
            Nodes of a layer, and number of hidden layers.
        classes : int, optional
            Outputs of the head, one more linear layer.
        features : int, optional
            Length of an input; by default the width.
        generator : torch.Generator, optional
            Where the parameters come from; by default torch's global one.
        dtype, device : optional
            Of the parameters; by default torch's.

        Returns
        -------
        igbfast.torch.MLP

        Raises
        ------
        ImportError
            Where PyTorch is not installed.
        ValueError, TypeError
            For an argument out of range or of the wrong type; the message names it.

        Examples
        --------
        >>> import igbfast as igb
        >>> igb.Ensemble("tanh", sigma_w2=1.76).to_torch(200, 50, features=64)  # doctest: +SKIP
        MLP(
          Ensemble('tanh', sigma_w2=1.76, sigma_b2=0.0)
          (layers): ModuleList(
            (0): Linear(in_features=64, out_features=200, bias=True)
            (1-49): 49 x Linear(in_features=200, out_features=200, bias=True)
          )
          (phi): Phi('tanh')
          (head): Linear(in_features=200, out_features=10, bias=True)
        )
        """
        from .torch.models import MLP

        return MLP(
            self,
            width=width,
            depth=depth,
            classes=classes,
            features=features,
            generator=generator,
            dtype=dtype,
            device=device,
        )


def as_ensemble(value: object) -> Ensemble:
    """The ensemble that a caller gave; anything else is a TypeError that shows how to make one."""
    if isinstance(value, Ensemble):
        return value
    example = "igb.Ensemble('tanh', sigma_w2=1.76, sigma_b2=0.05)"
    raise TypeError(f"ens must be an Ensemble such as {example}, got {_checks.shown(value)}")


def as_simulated(value: object) -> Ensemble:
    """An ensemble that `simulate` takes: any but those whose nodes draw their activations."""
    ens = as_ensemble(value)
    if len(ens.activation.components) > 1:
        raise ValueError(
            f"simulate applies one function to all nodes, but in ens with {str(ens.activation)!r} each node draws its "
            "own: theory (propagate, fixed_point, phase_diagram) takes mixtures"
        )
    return ens
