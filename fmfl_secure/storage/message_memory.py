"""Messages and notes in memory: for a run whose parties are all in this process, and end with it.

What such a run goes on from is its state (`run_store`) and each party's own journal. An attempt
does not outlive the process, since the sites' secrets do not, so its messages need not either.
"""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from fmfl_secure.errors import RunDamaged
from fmfl_secure.storage.message_store import MessageKey, Messages, Receipt, following_receipt


class MemoryMessageStore(Messages):
    """Keeps messages for as long as its process lives."""

    def __init__(self) -> None:
        self._receipts: dict[MessageKey, Receipt] = {}
        self._parts: dict[MessageKey, list[bytes]] = {}
        self._notes: dict[tuple[str, str], dict[str, bytes]] = {}

    @override
    def receipt(self, key: MessageKey) -> Receipt | None:
        return self._receipts.get(key)

    @override
    def append(
        self, key: MessageKey, *, sha256: str, size: int, offset: int, data: bytes
    ) -> Receipt:
        known = self._receipts.get(key)
        before, after = following_receipt(
            known, sha256=sha256, size=size, offset=offset, length=len(data)
        )
        if before is not known:  # it starts anew
            self._parts[key] = []
        if after is not before:
            self._parts[key].append(data)
        self._receipts[key] = after
        return after

    @override
    def put(self, key: MessageKey, *, sha256: str, data: bytes) -> Receipt:
        self._receipts[key] = Receipt(sha256, len(data), len(data), whole=True)
        self._parts[key] = [data]
        return self._receipts[key]

    @override
    def discard(self, key: MessageKey) -> None:
        receipt = self._receipts.get(key)
        if receipt is not None and not receipt.whole:
            del self._receipts[key], self._parts[key]

    @override
    def accept(self, key: MessageKey) -> Receipt:
        known = self._receipts.get(key)
        if known is None:
            raise RunDamaged("a message vanished from the store before it was accepted")
        self._receipts[key] = Receipt(known.sha256, known.size, known.received, whole=True)
        return self._receipts[key]

    @override
    def read(self, key: MessageKey) -> Iterator[bytes]:
        yield from self._parts.get(key, ())

    @override
    def accepted(self, run: str, round_number: int, attempt: int) -> list[MessageKey]:
        place = (run, round_number, attempt)
        return [
            key
            for key, receipt in self._receipts.items()
            if receipt.whole and (key.run, key.round, key.attempt) == place
        ]

    @override
    def forget(self, run: str, round_number: int) -> None:
        for key in [k for k in self._receipts if k.run == run and k.round <= round_number]:
            del self._receipts[key], self._parts[key]

    @override
    def note(self, run: str, kind: str, key: str, value: bytes) -> None:
        self._notes.setdefault((run, kind), {})[key] = value

    @override
    def notes(self, run: str, kind: str) -> dict[str, bytes]:
        return dict(sorted(self._notes.get((run, kind), {}).items()))

    @override
    def drop_note(self, run: str, kind: str, key: str) -> None:
        self._notes.get((run, kind), {}).pop(key, None)

    @override
    def healthy(self) -> bool:
        return True

    @override
    def close(self) -> None:
        """Does nothing: its memory goes with it."""
