"""A base model with an adapter, as tasks see it: features of a batch, and a head on top.

Every task's model has its base model under `encoder` and what it adds under `head`; the names
that parameters get from that are the ones that settings, layouts and files use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fmfl_secure.models.adapters.prompt import SoftPrompt
from fmfl_secure.models.architectures import Modality
from fmfl_secure.models.batches import ImageBatch, TextBatch
from fmfl_secure.models.features import Features
from fmfl_secure.models.prefix import FrozenPrefix


class AdaptedModel(nn.Module):
    """Base of every task's model.

    Args:
        encoder: The base model with or without an adapter.
        prefixes: Frozen layers whose output is kept, by tower; empty for none.
        features: What a head reads of last hidden states; None where it reads none of them.
    """

    def __init__(
        self,
        encoder: nn.Module,
        prefixes: Mapping[Modality, FrozenPrefix],
        features: Features | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.features = features
        self._prefixes = dict(prefixes)

    @property
    def frozen_layers(self) -> tuple[int, ...]:
        """How many first layers of each tower are computed once a record and kept."""
        return tuple(prefix.depth for prefix in self._prefixes.values())

    def read_text(self, batch: TextBatch, **settings: Any) -> Any:
        """Runs a text encoder, or a language model, on a batch."""

        def forward(rows: Sequence[int]) -> Any:
            chosen = list(rows)
            return self.encoder(
                input_ids=batch.input_ids[chosen],
                attention_mask=batch.attention_mask[chosen],
                **settings,
            )

        return self._run("text", forward, batch, _own_tokens(batch))

    def read_images(self, batch: ImageBatch) -> Any:
        """Runs an image encoder on a batch."""

        def forward(rows: Sequence[int]) -> Any:
            return self.encoder(pixel_values=batch.pixel_values[list(rows)])

        return self._run("image", forward, batch, None)

    def text_embeddings(self, batch: TextBatch) -> torch.Tensor:
        """Embeds texts as two-tower models compare them, at unit norm, shape (b, width)."""
        model: Any = transformers_model(self.encoder)

        def forward(rows: Sequence[int]) -> Any:
            chosen = list(rows)
            return model.get_text_features(
                input_ids=batch.input_ids[chosen], attention_mask=batch.attention_mask[chosen]
            )

        output = self._run("text", forward, batch, _own_tokens(batch))
        return nn.functional.normalize(output.pooler_output, dim=1)

    def image_embeddings(self, batch: ImageBatch) -> torch.Tensor:
        """Embeds images as two-tower models compare them, at unit norm, shape (b, width)."""
        model: Any = transformers_model(self.encoder)

        def forward(rows: Sequence[int]) -> Any:
            return model.get_image_features(pixel_values=batch.pixel_values[list(rows)])

        output = self._run("image", forward, batch, None)
        return nn.functional.normalize(output.pooler_output, dim=1)

    def _run(
        self,
        modality: Modality,
        forward: Callable[[Sequence[int]], Any],
        batch: TextBatch | ImageBatch,
        lengths: Sequence[int] | None,
    ) -> Any:
        prefix = self._prefixes.get(modality)
        if prefix is None:
            return forward(range(len(batch.records)))
        keys = [(modality, record) for record in batch.records]
        tokens = batch.input_ids.shape[1] if isinstance(batch, TextBatch) and lengths else 0
        return prefix.run(forward, keys=keys, lengths=lengths, cache=batch.cache, tokens=tokens)


def transformers_model(encoder: nn.Module) -> nn.Module:
    """The model of transformers inside an adapted encoder."""
    # Nothing is PEFT's where no adapter has loaded it; loading it takes longer than a small run.
    peft = sys.modules.get("peft")
    if isinstance(encoder, SoftPrompt) or (peft and isinstance(encoder, peft.PeftModel)):
        adapted: Any = encoder
        inner: nn.Module = adapted.get_base_model()
        return inner
    return encoder


def zero_head(width: int, classes: int, *, bias: bool = True) -> nn.Linear:
    """A linear head that starts at zero: the adapter alone decides where training begins."""
    head = nn.Linear(width, classes, bias=bias)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    return head


def _own_tokens(batch: TextBatch) -> list[int]:
    lengths: list[int] = batch.attention_mask.sum(dim=1).tolist()
    return lengths
