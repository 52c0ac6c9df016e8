"""What the embedded engine has of its own: how it waits, and how messages pass in one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from fmfl_secure.errors import Problem, Rejected
from fmfl_secure.provisioning.certificates import CUSTODIAN, DECRYPTOR, SITE
from fmfl_secure.run.refusal_codes import GENERIC
from fmfl_secure.runtime.agents.base import Agent
from fmfl_secure.runtime.inbox import JOINED, Inbox
from fmfl_secure.runtime.task_board import Assignment, Document, Step, TaskBoard
from fmfl_secure.runtime.transport import Work
from fmfl_secure.runtime.waiting import Stopping
from fmfl_secure.settings.service import Time
from fmfl_secure.storage.message_memory import MemoryMessageStore
from fmfl_secure.transports.local.pump import Pump
from fmfl_secure.transports.local.transport import DirectTransport

RUN = "ab" * 8


class Turns(Agent):
    """Does so many pieces of work, and notes each."""

    party = None

    def __init__(self, name: str, pieces: int, done: list[str], error: Exception | None = None):
        self.name, self.pieces, self.done, self.error = name, pieces, done, error
        self.refusal = ""
        self.work = None
        self.transport = SimpleNamespace()  # type: ignore[assignment]

    def step(self) -> bool:
        if not self.pieces:
            return False
        self.pieces -= 1
        self.done.append(self.name)
        if self.error is not None:
            raise self.error
        return True

    def do(self, work: Work) -> None: ...


def pump(*agents: Turns) -> Pump:
    inbox = Inbox(MemoryMessageStore(), part_bytes=1024)
    return Pump(inbox, Time(), {agent.name: agent for agent in agents})


def test_parties_take_turns_until_it_holds() -> None:
    done: list[str] = []
    waiting = pump(Turns("a", 2, done), Turns("b", 2, done))
    assert waiting.until(lambda: len(done) == 3, 0.0)
    assert done == ["a", "b", "a"], "nobody works on once it holds"


def test_what_holds_already_makes_nobody_work() -> None:
    done: list[str] = []
    assert pump(Turns("a", 1, done)).until(lambda: True, 0.0)
    assert done == []


def test_it_is_over_once_nobody_has_anything_to_do() -> None:
    done: list[str] = []
    assert not pump(Turns("a", 1, done), Turns("b", 3, done)).until(lambda: False, 1e9)
    assert done == ["a", "b", "b", "b"]


def test_it_stops_when_asked() -> None:
    done: list[str] = []
    waiting = pump(Turns("a", 9, done))

    def once_done() -> bool:
        if done:
            waiting.stop()
        return False

    with pytest.raises(Stopping):
        waiting.until(once_done, 0.0)
    assert done == ["a"]


def test_everybody_in_this_process_is_there_and_nobody_else() -> None:
    waiting = pump(Turns("a", 0, []))
    assert waiting.is_present("a")
    assert not waiting.is_present("b")


@pytest.mark.parametrize(("attempt", "said"), [(2, ("fail", "refused")), (0, ("refuse", GENERIC))])
def test_a_party_whose_message_does_not_hold_is_gone_on_without(attempt: int, said: tuple) -> None:
    agent = Turns("a", 1, [], Rejected(422, "refused", "the message does not hold"))
    agent.work = Work(1, Step.READY, RUN, 1, attempt, {}, [], 0, 1024)
    words: list[tuple[str, str]] = []
    agent.transport.fail = lambda _, code: words.append(("fail", code))  # type: ignore[attr-defined]
    agent.transport.refuse = lambda _, code: words.append(("refuse", code))  # type: ignore[attr-defined]
    assert not pump(agent).until(lambda: False, 0.0)
    assert words == [said]
    assert "does not hold" in agent.refusal, "its own people are told"


def test_a_party_keeps_its_files_open_for_one_assignment() -> None:
    events: list[str] = []

    class Party:
        @contextmanager
        def kept_open(self) -> Iterator[None]:
            events.append("open")
            yield
            events.append("closed")

    class Once(Agent):
        party = Party()  # type: ignore[assignment]

        def do(self, work: Work) -> None:
            events.append(work.step)

    work = Work(1, Step.READY, RUN, 1, 1, {}, [], 0, 1024)
    transport = SimpleNamespace(work=lambda _: work)
    agent = Once(transport, stopping=threading.Event(), once=True)  # type: ignore[arg-type]
    assert agent.step()
    assert not agent.step()
    assert events == ["open", Step.READY, "closed"]


def test_what_is_no_refusal_ends_the_run() -> None:
    with pytest.raises(ZeroDivisionError):
        pump(Turns("a", 1, [], ZeroDivisionError())).until(lambda: False, 0.0)


# The transport.


class Side:
    """A server's board and inbox, and what a transport tells of."""

    def __init__(self) -> None:
        self.board = TaskBoard()
        self.inbox = Inbox(MemoryMessageStore(), part_bytes=1024)
        self.inbox.open_run(RUN, {})
        self.given: list[str] = []
        self.heads = SimpleNamespace(give=lambda name, head: self.given.append(f"{name} {head}"))
        self.saw: list[tuple] = []
        self.words: list[tuple] = []

    def transport(self, name: str, role: str) -> DirectTransport:
        return DirectTransport(
            self,  # type: ignore[arg-type]
            name,
            role,
            saw=lambda party, kind, message, **more: self.saw.append((party, kind, message, more)),
            refused=lambda *said: self.words.append(("refused", *said)),
            failed=lambda *said: self.words.append(("failed", *said)),
        )

    def assign(self, name: str, step: Step, **documents: bytes) -> None:
        kept = {kind: Document([data]) for kind, data in documents.items()}
        self.board.assign([name], Assignment(step, RUN, 1, 1, kept))


@pytest.fixture
def side() -> Side:
    return Side()


def test_an_assignment_is_told_once_and_its_documents_are_at_hand(side: Side) -> None:
    transport = side.transport("site-1", SITE)
    side.assign("site-1", Step.READY, plan=b"a plan", adapter=b"an adapter")
    work = transport.work(-1)
    assert (work.step, work.place) == (Step.READY, (RUN, 1, 1))
    assert side.board.was_told("site-1")
    assert transport.work(work.sequence) is work
    assert transport.fetch(work.documents["adapter"]) == b"an adapter"


def test_a_document_of_an_earlier_assignment_is_none(side: Side) -> None:
    transport = side.transport("site-1", SITE)
    side.assign("site-1", Step.READY, plan=b"a plan")
    earlier = transport.work(-1).documents["plan"]
    side.assign("site-1", Step.EXCHANGE, cohort=b"a cohort")
    transport.work(0)
    with pytest.raises(Rejected) as caught:
        transport.fetch(earlier)
    assert caught.value.reason == "not-found"


def test_the_transcript_tells_of_each_message_once_an_attempt(side: Side) -> None:
    transport = side.transport("site-1", SITE)
    for attempt in (1, 2):
        plan = {"plan": Document([b"a plan"])}
        side.board.assign(["site-1"], Assignment(Step.READY, RUN, 1, attempt, plan))
        work = transport.work(0)
        for _ in range(2):
            transport.fetch(work.documents["plan"])
    place = {"round_number": 1}
    assert side.saw == [
        ("site site-1", "plan", b"a plan", {**place, "attempt": 1}),
        ("site site-1", "plan", b"a plan", {**place, "attempt": 2}),
    ]


@pytest.mark.parametrize(
    ("name", "role", "label"),
    [("decryptor", DECRYPTOR, "decryptor"), ("board", CUSTODIAN, "custodian board")],
)
def test_a_party_sees_what_its_role_may(side: Side, name: str, role: str, label: str) -> None:
    transport = side.transport(name, role)
    side.assign(name, Step.CONFIRM, plan=b"a plan", secrets=b"boxes")
    work = transport.work(-1)
    for document in work.documents.values():
        transport.fetch(document)
    assert [(party, kind) for party, kind, *_ in side.saw] == [(label, "plan")]


def test_what_the_server_does_not_take_is_told_in_a_transport_s_words(side: Side) -> None:
    transport = side.transport("site-1", SITE)
    side.assign("site-1", Step.READY)
    work = transport.work(-1)
    with pytest.raises(Rejected) as caught:
        transport.send(work, "ready", b"of no attempt under way")
    assert (caught.value.status, caught.value.reason) == (409, "over")
    with pytest.raises(Rejected) as caught:
        transport.join("cd" * 8, "private")
    assert caught.value.reason == "over"
    side.heads.give = lambda *_: (_ for _ in ()).throw(Problem(422, "refused", "no head"))
    with pytest.raises(Rejected, match="no head"):
        transport.give_head("a head")


def test_words_arrive_and_are_told_to_the_person(side: Side) -> None:
    transport = side.transport("site-1", SITE)
    transport.join(RUN, "private")
    assert side.inbox.store.notes(RUN, JOINED) == {"site-1": b"private"}
    transport.refuse(RUN, "budget")
    assert side.words == [("refused", "site-1", "budget")]


def test_a_head_is_told_of_where_it_has_a_round_s_charge_in_it(side: Side) -> None:
    transport = side.transport("site-1", SITE)
    for step in (Step.READY, Step.VERIFY):
        side.assign("site-1", step)
        transport.work(0)
        transport.give_head(f"head at {step}")
    assert side.given == ["site-1 head at ready", "site-1 head at verify"]
    assert [(party, kind, message) for party, kind, message, _ in side.saw] == [
        ("coordinator", "anchor", b"head at ready")
    ]


def test_nothing_waits_and_nothing_has_to_be_closed(side: Side) -> None:
    before = threading.active_count()
    with side.transport("site-1", SITE) as transport:
        assert transport.work(-1).step == Step.WAIT
        assert transport.membership(0) == []
        transport.heartbeat()
    assert threading.active_count() == before
