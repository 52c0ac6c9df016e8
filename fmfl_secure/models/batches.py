"""Records of a batch as tensors, padded to the longest of them, on their way to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar

import torch
from torch import nn

from fmfl_secure.models.prefix import RecordCache

IGNORED = -100  # no label here, in the convention of torch's cross-entropy


@dataclass(kw_only=True)
class Batch:
    """Base of all batches: labels, record indices and the cache.

    Attributes:
        labels: int64, shape (b,), or (b, tokens) with -100 where a token has none; float32, shape
            (b, labels), 1 where a label holds, where several may.
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
        padding: Token that fills a row up.
        evenly: Compute every position of every row, so that the work tells nothing of them.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    padding: int = 0
    evenly: bool = False


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


@dataclass(kw_only=True)
class PreferenceBatch(TextBatch):
    """Two answers to each prompt: the chosen ones are the texts, and the others beside them.

    Attributes:
        rejected_input_ids: int64, shape (b, tokens of the longest of these).
        rejected_attention_mask: int64, of the same shape.
        rejected_labels: int64, of the same shape; -100 but on the answer.
    """

    rejected_input_ids: torch.Tensor
    rejected_attention_mask: torch.Tensor
    rejected_labels: torch.Tensor

    def answers(self, rows: Sequence[int]) -> tuple[TextBatch, TextBatch]:
        """Chosen and rejected answers of some rows; the cache knows each by a number of its own."""
        own, chosen = list(rows), []
        for place, name in enumerate(("", "rejected_")):
            tensors = {
                key: getattr(self, name + key)[own]
                for key in ("input_ids", "attention_mask", "labels")
            }
            chosen.append(
                TextBatch(
                    **tensors,
                    records=[2 * self.records[row] + place for row in own],
                    cache=self.cache,
                    padding=self.padding,
                    evenly=self.evenly,
                )
            )
        return chosen[0], chosen[1]


AnyBatch = TypeVar("AnyBatch", bound=Batch)


def join_evenly(parts: Sequence[AnyBatch], length: int) -> AnyBatch:
    """Batches of one kind as one, every row of which is padded to the same length.

    Args:
        parts: At least one; each has the fields of the same task.
        length: In tokens, at least that of the longest row.
    """
    first = parts[0]
    joined: dict[str, Any] = {"records": [record for part in parts for record in part.records]}
    for own in fields(first):
        if isinstance(getattr(first, own.name), torch.Tensor):
            filled = {"labels": IGNORED, "input_ids": getattr(first, "padding", 0)}
            fill = filled.get(own.name.removeprefix("rejected_"), 0)
            # What has a value a token is integers; label sets are a whole record's.
            rows = [
                nn.functional.pad(value, (0, length - value.shape[1]), value=fill)
                if value.dim() == 2 and not value.is_floating_point()
                else value
                for value in (getattr(part, own.name) for part in parts)
            ]
            joined[own.name] = torch.cat(rows)
    if isinstance(first, TextBatch):
        joined["evenly"] = True
    return replace(first, **joined)
