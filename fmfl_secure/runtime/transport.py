"""What passes between a party and the server, whatever carries it: HTTPS (`client`) or Flower."""

from __future__ import annotations

from types import TracebackType
from typing import Literal, Protocol, Self

import msgspec

from fmfl_secure.run.statement import SiteStatement
from fmfl_secure.runtime.anchor_registry import AnchorsForSite
from fmfl_secure.runtime.task_board import Step


class DocumentRef(msgspec.Struct, frozen=True):
    """A document to fetch: its digest and length."""

    sha256: str
    size: int


class Work(msgspec.Struct, frozen=True):
    """What the server wants of this party; fields as `api.TaskBody`."""

    sequence: int
    step: Step
    run: str
    round: int
    attempt: int
    documents: dict[str, DocumentRef]
    sizes: list[int]
    membership: int
    part_bytes: int

    @property
    def place(self) -> tuple[str, int, int]:
        """Run, round and attempt."""
        return self.run, self.round, self.attempt


class ServerTransport(Protocol):
    """How a party reaches the server, whatever carries it; as `HttpsTransport` describes."""

    connected: bool

    def __enter__(self) -> Self:
        """Use it."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        ...

    def work(self, after: int) -> Work:
        """What there is to do."""
        ...

    def membership(self, after: int) -> list[str]:
        """Signed membership lists after a number, base64."""
        ...

    def fetch(self, document: DocumentRef) -> bytes:
        """A document."""
        ...

    def send(self, work: Work, kind: str, message: bytes) -> None:
        """Send a message of an attempt."""
        ...

    def join(self, run: str, visibility: Literal["private", "public"]) -> None:
        """Take part."""
        ...

    def refuse(self, run: str, code: str) -> None:
        """Take no part."""
        ...

    def fail(self, work: Work, code: str) -> None:
        """Not go on with an attempt."""
        ...

    def state(
        self, run: str, statement: SiteStatement | None, signature: str, *, final: bool
    ) -> None:
        """State the ledger."""
        ...

    def heads(self, *, known: bool) -> AnchorsForSite:
        """Heads of ledgers that the server keeps."""
        ...

    def bring_heads(self, heads: dict[str, list[str]]) -> None:
        """Bring heads of others' ledgers."""
        ...

    def give_head(self, head: str) -> None:
        """Give the own ledger's head."""
        ...

    def heartbeat(self) -> None:
        """Show that this party lives."""
        ...
