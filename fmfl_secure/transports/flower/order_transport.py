"""A party's transport where orders come to it: what it says is gathered for one answer."""

from __future__ import annotations

from types import TracebackType
from typing import Literal, Self

from typing_extensions import override

from fmfl_secure.errors import FrameRefused, Unreachable
from fmfl_secure.run.statement import SiteStatement
from fmfl_secure.runtime.anchor_registry import AnchorsForSite
from fmfl_secure.runtime.task_board import Step
from fmfl_secure.runtime.transport import DocumentRef, ServerTransport, Work
from fmfl_secure.transports.flower.frames import (
    Failed,
    HeadGiven,
    HeadsBrought,
    Joined,
    Opened,
    Order,
    Refused,
    Sent,
    Stating,
    StopGiven,
    Word,
    reference,
)


class OrderTransport(ServerTransport):
    """Carries one order after another, as `HttpsTransport` carries requests.

    It answers out of the order, so heads and membership lists are as of when that was sent.
    """

    def __init__(self) -> None:
        self.connected = True
        self.words: list[Word] = []
        self.messages: list[bytes] = []
        self._order: Order | None = None
        self._opened: Opened | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to close."""

    def take(self, order: Order, opened: Opened) -> Work:
        """Begin an order; what was said to an earlier one is forgotten.

        Raises:
            FrameRefused: It says what no order can mean.
        """
        self._order, self._opened = order, opened
        self.words, self.messages = [], []
        try:
            return Work(
                sequence=order.sequence,
                step=Step(order.step),
                run=order.run,
                round=order.round,
                attempt=order.attempt,
                documents=order.documents,
                sizes=order.sizes,
                membership=order.membership,
                part_bytes=order.part_bytes,
            )
        except ValueError as error:
            raise FrameRefused(f"an order cannot be meant: {error}") from error

    def work(self, after: int) -> Work:
        """Orders are handed over instead."""
        raise Unreachable(f"nobody asks for work here, after {after}")

    @override
    def membership(self, after: int) -> list[str]:
        lists = self._order.lists if self._order else []
        return lists[max(0, after - 1) :]  # the first is in every kit

    @override
    def fetch(self, document: DocumentRef) -> bytes:
        if self._opened is None:
            raise Unreachable("there is no order to fetch from")
        return self._opened.fetch(document)

    @override
    def send(self, work: Work, kind: str, message: bytes) -> None:
        self.words.append(Sent(kind, reference(message)))
        self.messages.append(message)

    @override
    def join(self, run: str, visibility: Literal["private", "public"]) -> None:
        self.words.append(Joined(visibility))

    @override
    def refuse(self, run: str, code: str) -> None:
        self.words.append(Refused(code))

    @override
    def fail(self, work: Work, code: str) -> None:
        self.words.append(Failed(code))

    @override
    def state(
        self,
        run: str,
        statement: SiteStatement | None,
        signature: str,
        *,
        final: bool,
    ) -> None:
        self.words.append(Stating(statement, signature, final))

    @override
    def heads(self, *, known: bool, since: str) -> AnchorsForSite:
        told = self._order.heads if self._order else None
        return told or AnchorsForSite(own=[], others={}, known={})

    @override
    def bring_heads(self, heads: dict[str, list[str]]) -> None:
        self.words.append(HeadsBrought(heads))

    @override
    def give_head(self, head: str) -> None:
        self.words.append(HeadGiven(head))

    @override
    def give_stop(self, statement: bytes) -> None:
        self.words.append(StopGiven(statement))

    def heartbeat(self) -> None:
        """The SuperNode's own heartbeats say that this party lives."""
