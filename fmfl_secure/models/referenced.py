"""A causal language model beside what it was before training: the reference of a preference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapted import transformers_model
from fmfl_secure.models.batches import TextBatch
from fmfl_secure.models.language import LanguageModel

Start: TypeAlias = Callable[[], Mapping[str, torch.Tensor]]
"""Trained tensors by name as they were before training, or none: the base model by itself."""


class ReferencedModel(LanguageModel):
    """Shares its frozen weights with its reference: there is no second model in memory.

    Attributes:
        start: What the reference has in place of what is trained. Virtual tokens are never without
            effect: where they are fresh, it has none, and is the base model below them.
    """

    start: Start | None = None

    def reference(self, batch: TextBatch, *, positions: torch.Tensor) -> torch.Tensor:
        """Logits as `forward` gives them, by the reference, and without gradients.

        Raises:
            ModelError: It is not known, or of another model.
        """
        if self.start is None:
            raise ModelError("what this model was before training is not known")
        start = dict(self.start())
        if not start.keys() <= {name for name, _ in self.named_parameters()}:
            raise ModelError("what is to be the reference has tensors that this model has not")
        with torch.no_grad():
            if not start:
                base = LanguageModel(transformers_model(self.encoder), {})
                logits: torch.Tensor = base(batch, positions=positions)
                return logits
            # A module that stands in several places would be put back wrongly if names were tied.
            found: torch.Tensor = torch.func.functional_call(
                self, start, (batch,), {"positions": positions}, tie_weights=False
            )
            return found
