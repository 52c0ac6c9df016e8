"""Encoders with a linear classification head, which starts at zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from fmfl_secure.models.adapted import AdaptedModel, zero_head
from fmfl_secure.models.architectures import Modality
from fmfl_secure.models.batches import ImageBatch, PairBatch, TextBatch
from fmfl_secure.models.features import Features
from fmfl_secure.models.prefix import FrozenPrefix


class LinearClassifier(AdaptedModel):
    """A linear head on an adapted encoder.

    Args:
        encoder: With or without an adapter.
        prefixes: Frozen layers whose output is kept.
        features: What the head reads of last hidden states; None for two-tower embeddings.
        width: Of the features; of both embeddings together for pairs.
        classes: Number of labels or tags, >= 2.
        bias: Whether the head has one.
    """

    def __init__(
        self,
        encoder: nn.Module,
        prefixes: Mapping[Modality, FrozenPrefix],
        features: Features | None,
        *,
        width: int,
        classes: int,
        bias: bool = True,
    ) -> None:
        super().__init__(encoder, prefixes, features)
        self.head = zero_head(width, classes, bias=bias)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Applies the head to features, shape (b, [tokens,] classes)."""
        found: torch.Tensor = self.head(features)
        return found


class TextClassifier(LinearClassifier):
    """Features of a text, or of every token."""

    def forward(self, batch: TextBatch) -> torch.Tensor:
        """Logits, shape (b, classes), or (b, tokens, classes) of every token."""
        return self.logits(self.read_features(batch))

    def read_features(self, batch: TextBatch) -> torch.Tensor:
        """Returns the features that the head reads, shape (b, [tokens,] width)."""
        if self.features is None:
            raise TypeError("a classifier of texts reads hidden states")
        return self.features(self.read_text(batch).last_hidden_state, batch)


class ImageClassifier(LinearClassifier):
    """Features of an image: of its states, or a two-tower model's embedding."""

    def forward(self, batch: ImageBatch) -> torch.Tensor:
        """Returns the logits of each image, shape (b, classes)."""
        if self.features is None:
            return self.logits(self.image_embeddings(batch))
        return self.logits(self.features(self.read_images(batch).last_hidden_state, batch))


class PairClassifier(LinearClassifier):
    """The embeddings of an image and of its text, side by side."""

    def forward(self, batch: PairBatch) -> torch.Tensor:
        """Returns the logits of each pair, shape (b, classes)."""
        both = torch.cat([self.image_embeddings(batch), self.text_embeddings(batch)], dim=1)
        return self.logits(both)
