"""Records of a batch as tensors, padded to the longest of them, on their way to a model."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch

from fmfl_secure.models.prefix import RecordCache


@dataclass(kw_only=True)
class Batch:
    """What every batch has.

    Attributes:
        labels: int64, shape (b,), or (b, tokens) with -100 where a token has none.
        records: The records' indices, which the cache knows them by.
        cache: Outputs of frozen layers; shared by all batches of the same data.
    """

    labels: torch.Tensor
    records: list[int]
    cache: RecordCache

    def to(self, device: torch.device) -> Self:
        """This batch, with its tensors moved to a device."""
        for own in fields(self):
            value = getattr(self, own.name)
            if isinstance(value, torch.Tensor):
                setattr(self, own.name, value.to(device))
        return self


@dataclass(kw_only=True)
class TextBatch(Batch):
    """Tokenised records.

    Attributes:
        input_ids: int64, shape (b, tokens).
        attention_mask: int64, shape (b, tokens); 1 on a record's own tokens, which come first.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor


@dataclass(kw_only=True)
class ImageBatch(Batch):
    """Images as the model's processor prepares them.

    Attributes:
        pixel_values: float32, shape (b, channels, height, width).
    """

    pixel_values: torch.Tensor


@dataclass(kw_only=True)
class PairBatch(TextBatch, ImageBatch):
    """An image and a text each."""
