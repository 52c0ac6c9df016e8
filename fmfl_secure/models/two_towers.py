"""Two towers whose embeddings of an image and of its text are compared."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.architectures import Modality
from fmfl_secure.models.batches import PairBatch
from fmfl_secure.models.prefix import FrozenPrefix


class Projections(nn.Module):
    """A linear map of each tower's embedding, which starts as the identity: a probe's head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image = nn.Linear(width, width, bias=False)
        self.text = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.image.weight)
        nn.init.eye_(self.text.weight)


class TwoTowers(AdaptedModel):
    """Embeddings of images and of texts, at unit norm.

    Args:
        encoder: With or without an adapter.
        prefixes: Frozen layers whose output is kept.
        width: Of an embedding.
        probe: Train a linear map of each tower's embedding.
        anchors: Embeddings of public texts by the base model as it is, shape (anchors, width).
    """

    def __init__(
        self,
        encoder: nn.Module,
        prefixes: Mapping[Modality, FrozenPrefix],
        *,
        width: int,
        probe: bool,
        anchors: torch.Tensor,
    ) -> None:
        super().__init__(encoder, prefixes)
        self.head = Projections(width) if probe else None
        # A constant: no part of what is trained or sent.
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings of images and of texts, shape (b, width) each."""
        images, texts = self.image_embeddings(batch), self.text_embeddings(batch)
        if self.head is None:
            return images, texts
        return (
            nn.functional.normalize(self.head.image(images), dim=1),
            nn.functional.normalize(self.head.text(texts), dim=1),
        )
