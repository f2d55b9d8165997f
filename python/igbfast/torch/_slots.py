"""Where the weights of a layer are kept, and how they are replaced or scaled in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.utils import parametrize

from ._trace import Layer

__all__ = ["Slot", "slot_of"]


class Slot:
    """The weights of one layer: a parameter, or a parametrised tensor that takes assignments."""

    def __init__(self, parameter: Any = None, module: Any = None, name: str = "weight") -> None:
        self._parameter, self._module, self._name = parameter, module, name

    @property
    def value(self) -> Any:
        """The weights as they are."""
        if self._module is None:
            return self._parameter
        parts = [(part, part.training) for part in self._module.parametrizations[self._name].modules()]
        for part, _ in parts:  # some change their buffers whenever they are asked in training
            part.training = False
        try:
            return getattr(self._module, self._name)
        finally:
            for part, training in parts:
                part.training = training

    def write(self, weights: Any) -> None:
        """Replaces the weights, converting precision and device.

        Raises
        ------
        ValueError
            If the parametrisation cannot take them; the weights are then as before.
        """
        with torch.no_grad():
            weights = weights.to(self.value.device, self.value.dtype)
            if self._module is None:
                self._parameter.copy_(weights)
            else:
                self._assign(weights)

    def scale(self, factor: float) -> None:
        """Multiplies the weights."""
        with torch.no_grad():
            if self._module is None:
                self._parameter.mul_(factor)
            else:
                self._assign(self.value * factor)

    def _assign(self, weights: Any) -> None:
        kept = self._module.parametrizations[self._name]
        before = {name: tensor.clone() for name, tensor in kept.state_dict().items()}
        try:
            setattr(self._module, self._name, weights)
            if torch.allclose(self.value, weights, rtol=1e-3, atol=1e-6 * float(weights.abs().max())):
                return
            reason = "it makes other weights of those that it is given"
        except Exception as error:  # whatever a right_inverse raises
            reason = str(error).partition("\n")[0]
        kept.load_state_dict(before)
        raise ValueError(f"parametrised weights cannot be set: {reason}")


def slot_of(layer: Layer, parameters: Mapping[str, Any]) -> Slot | str:
    """Where to write the weights of a layer, or the reason why that is impossible."""
    owner = layer.owner
    if layer.weight is not None:
        parameter = layer.weight
    elif layer.weight_name.endswith("in_proj_weight") and layer.weight_name in parameters:
        parameter = parameters[layer.weight_name]  # of MultiheadAttention: the layer uses a part of it
    elif owner is not None and parametrize.is_parametrized(owner, "weight"):
        if not all(p.requires_grad for p in owner.parametrizations["weight"].parameters()):
            return _FROZEN
        return Slot(None, owner, "weight")
    else:
        return f"its weights are computed from {layer.weight_name}"
    if not parameter.requires_grad:
        return _FROZEN
    if not parameter.is_floating_point():
        return f"its weights are of dtype {parameter.dtype}"
    return Slot(parameter)


_FROZEN = "frozen: its requires_grad is False"
