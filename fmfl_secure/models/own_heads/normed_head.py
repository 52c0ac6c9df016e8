"""Heads at unit norm in ModernBERT, whose own head ends in layer normalisation.

Its class takes the mean over a text's tokens where its configuration says so, then a square layer,
an activation, layer normalisation (centring and unit norm, times the root of the width) and the
classifier. The square layer only makes the mean large, so that the norm's epsilon is of no account.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from fmfl_secure.models.features import AtUnitNorm, Features
from fmfl_secure.models.own_heads.base import LinearHead, OwnHead, Tensors, linear

_LOUD = 2.0**16


@dataclass(frozen=True, kw_only=True)
class NormedHead(OwnHead):
    """The head of both classes.

    Attributes:
        mean: The head reads the mean over a text's own tokens; else every token.
    """

    mean: bool

    @override
    def features(self, encoder: nn.Module, padding: int | None) -> Features:
        return AtUnitNorm("mean" if self.mean else "every", centred=True)

    @override
    def configured(self, config: Any, padding: int | None) -> dict[str, Any]:
        return {
            "classifier_pooling": "mean",
            "classifier_activation": "linear",
            "classifier_bias": False,
        }

    @override
    def tensors(self, bare: Tensors, head: LinearHead) -> tuple[Tensors, Tensors]:
        width = head.weight.shape[1]
        biased = any(name.endswith("norm.bias") for name in bare)
        return {}, {
            **linear("head.dense", torch.eye(width) * _LOUD, None),
            **linear("head.norm", torch.ones(width), torch.zeros(width) if biased else None),
            **linear(self.classifier, head.weight / width**0.5, head.bias),
        }
