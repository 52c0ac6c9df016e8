"""Frozen layers below the first adapter: run once a record, then replayed from memory.

With adapters in the last layers only, everything below computes the same hidden states for a
record at every step. Keeping them turns six layers of work into one or two, and changes nothing
else: they are a function of that record alone, computed by the same weights, and stay in memory
at the site.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class FrozenPrefix:
    """Replaces the first layers of a list by ones that can record and replay their output.

    Args:
        layers: The encoder's layers; the first `depth` are replaced in place.
        depth: How many have no adapter and none below them, at least 1.
    """

    def __init__(self, layers: nn.ModuleList, depth: int) -> None:
        self._replayed: torch.Tensor | None = None
        self._recorded: torch.Tensor | None = None
        self._depth = depth
        for index in range(depth):
            layers[index] = _PrefixLayer(layers[index], self, last=index == depth - 1)

    def replay(self, hidden_states: torch.Tensor | None) -> None:
        """Use these outputs, shape (b, tokens, width), at the next forward; None computes."""
        self._replayed = hidden_states

    def take_recorded(self) -> torch.Tensor:
        """Output of the prefix at the last forward that computed it."""
        recorded = self._recorded
        self._recorded = None
        if recorded is None:
            raise RuntimeError("the prefix has not run")
        return recorded


class PrefixCache:
    """Prefix outputs by record, up to a size; beyond it they are computed each time.

    Args:
        limit_bytes: Memory to use at most, 0 for none.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._outputs: dict[int, torch.Tensor] = {}
        self._room_bytes = limit_bytes

    def __repr__(self) -> str:
        return "PrefixCache()"

    def __contains__(self, record: int) -> bool:
        return record in self._outputs

    def __getitem__(self, record: int) -> torch.Tensor:
        return self._outputs[record]

    def put(self, record: int, output: torch.Tensor) -> None:
        """Keep a copy of one record's output, shape (own tokens, width), if there is room."""
        size_bytes = output.numel() * output.element_size()
        if size_bytes <= self._room_bytes:
            self._outputs[record] = output.detach().clone()
            self._room_bytes -= size_bytes


class _PrefixLayer(nn.Module):
    def __init__(self, inner: nn.Module, prefix: FrozenPrefix, *, last: bool) -> None:
        super().__init__()
        self.inner = inner
        self._prefix = prefix
        self._last = last

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        prefix = self._prefix
        if prefix._replayed is not None:
            return prefix._replayed if self._last else hidden_states
        output = self.inner(hidden_states, *args, **kwargs)
        if self._last:
            prefix._recorded = output
        return output
