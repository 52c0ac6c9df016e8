"""Orders and answers through Flower: what is signed, what is cut, what is refused. No Flower."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation import Identity
from fmfl_secure.errors import FrameRefused
from fmfl_secure.runtime.task_board import Step
from fmfl_secure.runtime.transport import Work
from fmfl_secure.transports.flower.chunks import cut, join
from fmfl_secure.transports.flower.extra import FlowerMissing, needs_flower_extra
from fmfl_secure.transports.flower.fingerprint import fingerprint
from fmfl_secure.transports.flower.frames import (
    HELLO,
    Answer,
    Failed,
    Joined,
    Order,
    Present,
    Refused,
    Sent,
    open_frame,
    reference,
    seal,
)
from fmfl_secure.transports.flower.order_transport import OrderTransport
from fmfl_secure.transports.flower.party import FlowerParty

COORDINATOR, SITE = Identity.generate("coordinator"), Identity.generate("site-1")
SECRET = "row 17 says: alpha"


class Obedient:
    """Stands for an agent."""

    def __init__(self, transport: OrderTransport) -> None:
        self.transport = transport
        self.done: list[Work] = []

    def perform(self, work: Work) -> None:
        self.done.append(work)
        if work.step == Step.JOIN:
            self.transport.join(work.run, "private")
        elif work.step == Step.READY:
            self.transport.send(work, "ready", self.transport.fetch(work.documents["plan"])[::-1])
        else:
            raise ZeroDivisionError(SECRET)

    def worked(self) -> None:
        """Nothing it did has failed for a while."""


@pytest.fixture
def party() -> FlowerParty:
    transport = OrderTransport()
    return FlowerParty(SITE, COORDINATOR.public, Obedient(transport), transport)  # type: ignore[arg-type]


def order(step: str, sequence: int = 1, **fields) -> Order:
    return Order(
        **{"package": fingerprint(), "party": "site-1", "sequence": sequence, "step": step} | fields
    )


def answered(party: FlowerParty, given: Order, *documents: bytes):
    frame = seal(COORDINATOR, given, documents)
    return open_frame(party.answer(frame), Answer, SITE.public)


@given(st.binary(max_size=200), st.integers(1, 64))
def test_chunks_join_to_the_frame_and_none_is_larger(frame: bytes, size: int) -> None:
    chunks = cut(frame, size)
    assert join(chunks) == frame
    assert chunks
    assert max(map(len, chunks)) <= size


def test_an_order_is_done_and_the_answer_is_to_that_order_alone(party: FlowerParty) -> None:
    plan = b"a signed plan"
    given_order = order(
        "ready", run="abad1dea", round=1, attempt=1, documents={"plan": reference(plan)}
    )
    frame = seal(COORDINATOR, given_order, [plan])
    answer, opened = open_frame(party.answer(frame), Answer, SITE.public)
    _, own = open_frame(frame, Order, COORDINATOR.public)
    assert answer.order == own.digest
    (word,) = answer.words
    assert isinstance(word, Sent)
    assert word.kind == "ready"
    assert opened.fetch(word.document) == plan[::-1]


def test_a_greeting_is_answered_with_the_package(party: FlowerParty) -> None:
    answer, _ = answered(party, order(HELLO, party="", package="another"))
    assert answer.words == [Present(fingerprint())]
    assert answer.party == "site-1"


def test_the_fingerprint_covers_the_source() -> None:
    import fmfl_secure

    version, _, digest = fingerprint().partition("+sha256:")
    assert version == fmfl_secure.__version__
    state = hashlib.sha256(b"fmfl-secure/package/v1")
    root = Path(fmfl_secure.__file__).parent.parent
    for package in ("aggregation", "fmfl_secure", "privacy"):
        # In the order of a walk that sorts each folder's names.
        for path in sorted((root / package).rglob("*"), key=lambda p: p.relative_to(root).parts):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                for part in (path.relative_to(root).as_posix().encode(), path.read_bytes()):
                    state.update(len(part).to_bytes(8, "big") + part)
    assert digest == state.hexdigest()


def test_nothing_of_an_exception_leaves_but_a_code(party: FlowerParty) -> None:
    frame = seal(COORDINATOR, order("upload", run="abad1dea", round=1, attempt=1))
    answer = party.answer(frame)
    assert SECRET.encode() not in answer
    assert b"ZeroDivision" not in answer
    assert open_frame(answer, Answer, SITE.public)[0].words == [Failed("failed")]
    joining, _ = answered(party, order("end", sequence=2, run="abad1dea"))
    assert joining.words == [Refused("failed")]


@pytest.mark.parametrize(
    "change",
    [
        {"party": "site-2"},
        {"package": "0.0.0+sha256:00"},
        {"step": "obey"},
        {"sequence": 4},
    ],
)
def test_an_order_that_is_not_for_now_is_not_done(party: FlowerParty, change) -> None:
    assert answered(party, order("join", sequence=5, run="abad1dea"))[0].words == [
        Joined("private")
    ]
    fields = {"step": "join", "sequence": 6, "run": "cafe0123"} | change
    with pytest.raises(FrameRefused):
        answered(party, order(**fields))
    assert len(party._agent.done) == 1  # type: ignore[attr-defined]


def test_only_the_coordinator_gives_orders(party: FlowerParty) -> None:
    with pytest.raises(FrameRefused):
        party.answer(seal(SITE, order("join")))
    with pytest.raises(FrameRefused):
        party.answer(b"not a frame")
    # Its signature under an answer is none under an order.
    with pytest.raises(FrameRefused):
        party.answer(seal(COORDINATOR, Answer("site-1", "0" * 64, [])))


def test_a_changed_frame_does_not_open() -> None:
    frame = seal(COORDINATOR, order("join", run="abad1dea"))
    place = frame.index(b"join")
    changed = frame[:place] + b"wait" + frame[place + 4 :]
    with pytest.raises(FrameRefused):
        open_frame(changed, Order, COORDINATOR.public)
    assert open_frame(frame, Order, COORDINATOR.public)[0].step == "join"


def test_a_document_is_the_one_that_was_named() -> None:
    named, other = b"named", b"other"
    head = order("ready", documents={"plan": reference(named)})
    raw = msgspec.msgpack.decode(seal(COORDINATOR, head, [named]))
    raw["documents"] = {reference(named).sha256: other}
    _, opened = open_frame(msgspec.msgpack.encode(raw), Order, COORDINATOR.public)
    with pytest.raises(FrameRefused):
        opened.fetch(reference(named))


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmfl_secure.transports.flower.extra.find_spec", lambda _: None)
    with pytest.raises(FlowerMissing) as caught:
        needs_flower_extra()
    assert "flwr[simulation]" in caught.value.hint
