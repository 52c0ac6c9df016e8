"""Heads at unit norm in BERT and its kin: one more layer computes the norm.

Their classes put a linear head on a text's first token, or on every token, and no norm between. But
each of their layers ends in layer normalisation: centring and unit norm, times the root of the
width. So an export has one layer more, which holds no trained value. Its attention asks nothing
(queries and keys are zero), so that it is the mean over a text's own tokens, made so large that
what a layer adds it to is lost in float32's rounding; its second half is zero, and the weights of
its norms are one. For a head on every token the attention is zero too, and the layer is the norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from fmfl_secure.models.features import AtUnitNorm, Features
from fmfl_secure.models.own_heads.base import LinearHead, OwnHead, Tensors, linear

_LOUD = 2.0**24  # beside it, a state is no more than a rounding
# Of an activation between: a factor so small that it is linear there, and its slope. tanh(x) is x
# but for x^2 / 3 of it, GELU(x) is x / 2 but for 0.8 x of it.
_LINEAR = {"tanh": (2.0**-12, 1.0), "gelu": (2.0**-22, 0.5), "linear": (1.0, 1.0)}


@dataclass(frozen=True, kw_only=True)
class AddedLayer(OwnHead):
    """The head of one class.

    Attributes:
        layers: Path of the list of layers in the bare model.
        count: Name of their number in the configuration.
        mean: The head reads the mean over a text's own tokens; else every token.
        value: Path in a layer of what attention takes the mean of.
        output: Path in a layer of what attention gives.
        square: Path in the bare model (with a dot before it) or in the class of a square layer
            before the classifier; empty without one.
        activation: What follows that layer: `tanh`, `gelu`, `relu` or `linear`.
        said_of_class: What the class's configuration says besides.
    """

    layers: str = "encoder.layer"
    count: str = "num_hidden_layers"
    mean: bool
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    square: str = ""
    activation: str = "tanh"
    said_of_class: Mapping[str, Any] = field(default_factory=dict)

    @override
    def features(self, encoder: nn.Module, padding: int | None) -> Features:
        return AtUnitNorm("mean" if self.mean else "every", centred=True)

    @override
    def configured(self, config: Any, padding: int | None) -> dict[str, Any]:
        """Counts the layer that the class adds."""
        return {self.count: config.num_hidden_layers + 1, **self.said_of_class}

    @override
    def tensors(self, bare: Tensors, head: LinearHead) -> tuple[Tensors, Tensors]:
        width = head.weight.shape[1]
        unit = torch.eye(width) / width**0.5  # of a norm's output
        more = self._layer(bare)
        outside: Tensors = {}
        weight, bias = head.weight @ unit, head.bias
        if self.square and self.activation == "relu" and bias is not None:
            # No component of a vector at unit norm is below -1.
            outside.update(linear(self.square, unit, torch.ones(width)))
            weight = head.weight
            bias = bias - weight.double().sum(dim=1).float()
        elif self.square:
            quiet, slope = _LINEAR[self.activation]
            layer = linear(self.square.removeprefix("."), unit * quiet, torch.zeros(width))
            (more if self.square.startswith(".") else outside).update(layer)
            weight = head.weight / (quiet * slope)
        return more, {**outside, **linear(self.classifier, weight, bias)}

    def _layer(self, bare: Tensors) -> Tensors:
        """The layer that is added, in the form of the last one."""
        start = f"{self.layers}."
        numbers = [int(n[len(start) :].split(".")[0]) for n in bare if n.startswith(start)]
        last, own = f"{start}{max(numbers)}.", f"{start}{max(numbers) + 1}."
        found: Tensors = {}
        for name, tensor in bare.items():
            if not name.startswith(last):
                continue
            path, kind = name.removeprefix(last).rsplit(".", 1)
            new = torch.zeros(tensor.shape)
            if kind == "weight" and path.lower().endswith("norm"):
                new = torch.ones(tensor.shape)
            elif kind == "weight" and self.mean and path in {self.value, self.output}:
                new = torch.eye(len(tensor)) * (_LOUD if path == self.output else 1.0)
            found[f"{own}{path}.{kind}"] = new
        return found
