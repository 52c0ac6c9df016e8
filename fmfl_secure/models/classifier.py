"""An encoder with a pooled, linear classification head.

Features are the mean of the last hidden states over a record's own tokens, at unit L2 norm.
That bounds what one record's gradient in the head can be, which suits clipping, and measured
far better under DP than a fresh head on the first token. The head starts at zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fmfl_secure.models.prefix import FrozenPrefix, PrefixCache


@dataclass(slots=True)
class TextBatch:
    """Tokenised records, padded to the longest of them.

    Attributes:
        input_ids: int64, shape (b, tokens).
        attention_mask: int64, shape (b, tokens); 1 on a record's own tokens.
        labels: int64, shape (b,).
        records: The records' indices, which the cache knows them by.
        cache: Outputs of the frozen prefix; shared by all batches of the same data.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    records: list[int]
    cache: PrefixCache


class TextClassifier(nn.Module):
    """Encoder, mean pooling, L2 normalisation, linear head.

    Args:
        encoder: With or without an adapter.
        width: Its hidden size.
        classes: Number of labels, >= 2.
        prefix: Frozen layers whose output is cached, if any.
    """

    def __init__(
        self, encoder: nn.Module, *, width: int, classes: int, prefix: FrozenPrefix | None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._prefix = prefix

    def forward(self, batch: TextBatch) -> torch.Tensor:
        """Logits, shape (b, classes)."""
        if self._prefix is None:
            return self._logits(batch.input_ids, batch.attention_mask)
        self._prefix.replay(self._prefix_output(self._prefix, batch))
        try:
            return self._logits(batch.input_ids, batch.attention_mask)
        finally:
            self._prefix.replay(None)

    def _logits(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
        logits: torch.Tensor = self.head(nn.functional.normalize(mean, dim=1))
        return logits

    def _prefix_output(self, prefix: FrozenPrefix, batch: TextBatch) -> torch.Tensor:
        """The frozen layers' output, shape (b, tokens, width), computed where not yet known."""
        missing = [row for row, record in enumerate(batch.records) if record not in batch.cache]
        padded = torch.zeros(
            *batch.input_ids.shape, self.head.in_features, device=batch.input_ids.device
        )
        if missing:
            with torch.no_grad():
                self._logits(batch.input_ids[missing], batch.attention_mask[missing])
                padded[missing] = prefix.take_recorded()
        lengths = batch.attention_mask.sum(dim=1).tolist()
        for row, record in enumerate(batch.records):
            if record in batch.cache:
                padded[row, : lengths[row]] = batch.cache[record]
            else:
                batch.cache.put(record, padded[row, : lengths[row]])
        return padded
