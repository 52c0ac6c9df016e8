"""Encoders with a linear classification head.

Features are at unit L2 norm. That bounds what one record's gradient in the head can be, which
suits clipping, and measured far better under DP than a fresh head on raw states. The head starts
at zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from fmfl_secure.models.adapted import AdaptedModel, zero_head
from fmfl_secure.models.architectures import Modality
from fmfl_secure.models.batches import ImageBatch, PairBatch, TextBatch
from fmfl_secure.models.prefix import FrozenPrefix


class TextClassifier(AdaptedModel):
    """Mean of own tokens' states to logits.

    Args:
        encoder: With or without an adapter.
        prefixes: Frozen layers whose output is kept.
        width: Of the features.
        classes: Number of labels, >= 2.
    """

    def __init__(
        self,
        encoder: nn.Module,
        prefixes: Mapping[Modality, FrozenPrefix],
        *,
        width: int,
        classes: int,
    ) -> None:
        super().__init__(encoder, prefixes)
        self.head = zero_head(width, classes)

    def forward(self, batch: TextBatch) -> torch.Tensor:
        """Logits, shape (b, classes)."""
        logits: torch.Tensor = self.head(self.text_features(batch))
        return logits


class TokenClassifier(TextClassifier):
    """Every token's state to logits."""

    def forward(self, batch: TextBatch) -> torch.Tensor:
        """Logits, shape (b, tokens, classes)."""
        hidden = self.read_text(batch).last_hidden_state
        logits: torch.Tensor = self.head(nn.functional.normalize(hidden, dim=-1))
        return logits


class ImageClassifier(AdaptedModel):
    """An image's features to logits.

    Args:
        encoder: With or without an adapter.
        prefixes: Frozen layers whose output is kept.
        width: Of the features.
        classes: Number of labels, >= 2.
        features: `first-token` of a vision transformer, or a two-tower model's `embedding`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        prefixes: Mapping[Modality, FrozenPrefix],
        *,
        width: int,
        classes: int,
        features: Literal["first-token", "embedding"],
    ) -> None:
        super().__init__(encoder, prefixes)
        self.head = zero_head(width, classes)
        self._embeds = features == "embedding"

    def forward(self, batch: ImageBatch) -> torch.Tensor:
        """Logits, shape (b, classes)."""
        features = self.image_embeddings(batch) if self._embeds else self.image_features(batch)
        logits: torch.Tensor = self.head(features)
        return logits


class PairClassifier(AdaptedModel):
    """The embeddings of an image and of its text, side by side, to logits.

    Args:
        encoder: With or without an adapter.
        prefixes: Frozen layers whose output is kept.
        width: Of both embeddings together.
        classes: Number of labels, >= 2.
    """

    def __init__(
        self,
        encoder: nn.Module,
        prefixes: Mapping[Modality, FrozenPrefix],
        *,
        width: int,
        classes: int,
    ) -> None:
        super().__init__(encoder, prefixes)
        self.head = zero_head(width, classes)

    def forward(self, batch: PairBatch) -> torch.Tensor:
        """Logits, shape (b, classes)."""
        both = torch.cat([self.image_embeddings(batch), self.text_embeddings(batch)], dim=1)
        logits: torch.Tensor = self.head(both)
        return logits
