"""Heads on states of models that end in a norm: vision transformers and decoders.

Their classes put a linear head on the first token, the last or every one. After a norm, a state's
length hardly differs between records: dividing by what it is about leaves nearly unit norm, and is
a matter of the head's weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from fmfl_secure.models.architectures import bare_model
from fmfl_secure.models.features import Features, Scaled, Token
from fmfl_secure.models.own_heads.base import LinearHead, OwnHead, Tensors, linear


@dataclass(frozen=True, kw_only=True)
class ScaledStates(OwnHead):
    """The head of one class.

    Attributes:
        of: Which tokens it reads.
        norm: Path in the bare model of the norm that it ends in.
        above_one: The norm's weights are kept as what they are above one.
        beside: The classifier reads as many features besides, which this head leaves out.
    """

    of: Token
    norm: str = "norm"
    above_one: bool = False
    beside: bool = False

    @override
    def features(self, encoder: nn.Module, padding: int | None) -> Features:
        norm = bare_model(encoder).get_submodule(self.norm)
        own = [p.detach().double() + self.above_one for p in norm.parameters()]
        squares = sum(float(parameter.square().sum()) for parameter in own)
        return Scaled(self.of, squares**0.5, padding)

    @override
    def configured(self, config: Any, padding: int | None) -> dict[str, Any]:
        """A last token is the last that is none of padding."""
        return {"pad_token_id": padding} if self.of == "last" else {}

    @override
    def tensors(self, bare: Tensors, head: LinearHead) -> tuple[Tensors, Tensors]:
        weight = head.weight / head.features.scale
        if self.beside:
            weight = torch.cat([weight, torch.zeros_like(weight)], dim=1)
        return {}, linear(self.classifier, weight, head.bias)
