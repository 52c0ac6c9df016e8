"""Frozen layers below the first adapter: run once a record, then replayed from memory.

With adapters in the last layers only, everything below computes the same hidden states for a
record at every step. Keeping them turns six layers of work into one or two, and changes nothing
else: they are a function of that record alone, computed by the same weights, and stay in memory
at the site.

`tasks.task_model` puts a `FrozenPrefix` in the place of each tower's frozen layers. Batches name
their records (`models.batches`), and a forward computes the prefix for those alone that the
`RecordCache` lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn

Output = TypeVar("Output")
Key: TypeAlias = tuple[str, Hashable]
"""What is kept of a record, and what the record is known by."""


class RecordCache:
    """Tensors by record in main memory, up to a size; beyond it they are computed each time.

    Args:
        limit_bytes: Memory to use at most, 0 for none.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._kept: dict[Key, torch.Tensor] = {}
        self._room_bytes = limit_bytes

    def __repr__(self) -> str:
        return "RecordCache()"

    def __contains__(self, record: Key) -> bool:
        return record in self._kept

    def __getitem__(self, record: Key) -> torch.Tensor:
        return self._kept[record]

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._kept)

    def put(self, record: Key, tensor: torch.Tensor) -> None:
        """Keep a copy of one record's tensor, if there is room."""
        size_bytes = tensor.numel() * tensor.element_size()
        if record not in self._kept and size_bytes <= self._room_bytes:
            self._kept[record] = tensor.detach().clone()
            self._room_bytes -= size_bytes


class _AllRecorded(Exception):
    """The prefix has run, and nothing above it is wanted."""


class FrozenPrefix:
    """Replaces the first layers of a list by ones that can record and replay their output.

    Args:
        layers: The encoder's layers; the first `depth` are replaced in place.
        depth: How many have no adapter and none below them, at least 1.
    """

    def __init__(self, layers: nn.ModuleList, depth: int) -> None:
        self.depth = depth
        self._replayed: torch.Tensor | None = None
        self._recorded: torch.Tensor | None = None
        self._alone = False
        for index in range(depth):
            layers[index] = _PrefixLayer(layers[index], self, last=index == depth - 1)

    def run(
        self,
        forward: Callable[[Sequence[int]], Output],
        *,
        keys: Sequence[Key],
        lengths: Sequence[int] | None,
        cache: RecordCache,
        tokens: int = 0,
    ) -> Output:
        """Run an encoder on a batch, computing the prefix only for records that are new.

        Args:
            forward: Runs it on the rows of these numbers, through the replaced layers.
            keys: What the cache knows each row by.
            lengths: Own tokens of each row, from the left; None where all rows are equally long.
            cache: Where outputs are kept, shape (own tokens, width) each.
            tokens: Of the batch's rows, where they are padded beyond the longest of them.

        Returns:
            What `forward` gives for all rows.
        """
        missing = [row for row, key in enumerate(keys) if key not in cache]
        computed: dict[int, torch.Tensor] = {}
        if missing:
            self._run_alone(forward, missing)
            # Main memory is where a cache has room; the whole batch goes back at once.
            computed = dict(zip(missing, self.take_recorded().cpu(), strict=True))
        rows = [computed[row] if row in computed else cache[key] for row, key in enumerate(keys)]
        if lengths is not None:
            rows = [output[:length] for output, length in zip(rows, lengths, strict=True)]
        for row in missing:
            cache.put(keys[row], rows[row])
        replayed = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        beyond = max(0, tokens - replayed.shape[1])
        self._replayed = nn.functional.pad(replayed, (0, 0, 0, beyond)) if beyond else replayed
        try:
            return forward(range(len(keys)))
        finally:
            self._replayed = None

    def _run_alone(self, forward: Callable[[Sequence[int]], Output], rows: Sequence[int]) -> None:
        """Run the prefix on these rows, and no layer above it."""
        self._alone = True
        try:
            with torch.no_grad():
                forward(rows)
        except _AllRecorded:
            pass
        finally:
            self._alone = False

    def take_recorded(self) -> torch.Tensor:
        """Output of the prefix at the last forward that computed it, shape (b, tokens, width)."""
        recorded = self._recorded
        self._recorded = None
        if recorded is None:
            raise RuntimeError("the prefix has not run")
        return recorded


class _PrefixLayer(nn.Module):
    def __init__(self, inner: nn.Module, prefix: FrozenPrefix, *, last: bool) -> None:
        super().__init__()
        self.inner = inner
        self._prefix = prefix
        self._last = last
        # Layers of some architectures give attention weights besides, which nobody asks for here:
        # how many things a layer gives, 0 for its output alone, None before it has run.
        self._given: int | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # what a model asks its layers about, such as `attention_type`
            return getattr(super().__getattr__("inner"), name)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        prefix = self._prefix
        if prefix._replayed is not None and self._given is not None:
            if self._last:
                hidden_states = prefix._replayed.to(hidden_states.device)
            return self._as_given(hidden_states)
        output = self.inner(hidden_states, *args, **kwargs)
        self._given = len(output) if isinstance(output, tuple) else 0
        if prefix._replayed is not None:
            return self.forward(hidden_states)
        if self._last:
            prefix._recorded = output[0] if self._given else output
            if prefix._alone:
                raise _AllRecorded
        return output

    def _as_given(self, hidden_states: torch.Tensor) -> Any:
        if not self._given:
            return hidden_states
        return (hidden_states, *[None] * (self._given - 1))
