"""What a party can make another keep, and that it ends there: each test floods."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from test_report_records import a_charge, a_statement

from aggregation import Identity, PlanError, SqliteJournal, sign_journal_head
from aggregation.protocol.messages import digest
from aggregation.testing import Federation
from fmfl_secure.errors import Problem
from fmfl_secure.parties.workspace import Members
from fmfl_secure.run.ledger_statement import sign_statement
from fmfl_secure.runtime.agents.anchors import SiteAnchors
from fmfl_secure.runtime.anchor_registry import AnchorRegistry
from fmfl_secure.runtime.inbox import (
    CLOSED,
    JOINED,
    REFUSED,
    STATED,
    UNSHOWN,
    Inbox,
    SignedStatement,
    statements,
)
from fmfl_secure.storage import anchor_store
from fmfl_secure.storage.anchor_store import AnchorStore, HeadsFull
from fmfl_secure.storage.message_memory import MemoryMessageStore
from fmfl_secure.storage.message_store import MessageKey, Receipt
from privacy import Anchor

RUN = "cafe0123"
MOST = 1 << 14  # bytes of one party's heads, here


def line(identity: Identity, sequence: int, *, fork: str = "") -> str:
    return Anchor.sign(
        population="p",
        public_key=identity.public.key,
        sequence=sequence,
        digest=digest(f"{sequence}{fork}".encode()).hex(),
        signer=identity,
    ).line


def journal_line(identity: Identity, journal: str, sequence: int) -> str:
    content = (
        f"journal-head {identity.public.key.hex()} {journal} {sequence} {secrets.token_hex(32)}"
    )
    signed = identity.sign(b"fmfl-secure/aggregation/journal-head/v1\x00" + content.encode())
    return f"{content} {signed.hex()}"


class World:
    """A server's heads, three sites', and a flood from one."""

    def __init__(self, folder: Path, *, per_run: int = 10_000) -> None:
        self.names = ("site-1", "site-2", "site-3")
        roles = ("coordinator", "aggregator", "decryptor")
        self.identities = {name: Identity.generate(name) for name in (*roles, *self.names)}
        public = {name: identity.public for name, identity in self.identities.items()}
        self.members = Members(
            **{name: public[name] for name in roles}, sites={n: public[n] for n in self.names}
        )
        self.file = folder / "anchors.sqlite"
        self.kept = AnchorStore(self.file, most_bytes=MOST)
        self.registry = AnchorRegistry(
            self.kept, MemoryMessageStore(), lambda: self.members, per_run=per_run
        )

    def held(self, name: str) -> list[str]:
        return self.kept.held(self.identities[name].public)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_site_that_signs_head_after_head_fills_its_own_share_alone(world: World) -> None:
    liar = world.identities["site-1"]
    taken = 0
    with pytest.raises(Problem, match="at most 16384 are kept") as refusal:  # noqa: PT012
        for taken in range(1, 1000):
            world.registry.give("site-1", line(liar, taken))
    assert (refusal.value.status, refusal.value.reason) == (409, "quota")
    assert sum(map(len, world.held("site-1"))) <= MOST
    assert len(world.held("site-1")) == taken - 1 > 20
    world.registry.give("site-1", line(liar, taken - 1))  # what is kept can be said again
    for name in ("site-2", "site-3"):
        world.registry.give(name, line(world.identities[name], 1))
        assert len(world.held(name)) == 1
    # Nor can it, through another, after a restart, or in one request.
    many = {"site-1": [line(liar, 1000 + n) for n in range(20)], "site-2": [
        line(world.identities["site-2"], 2)]}  # fmt: skip
    with pytest.raises(Problem, match="at most"):
        world.registry.bring(many)
    assert len(world.held("site-1")) == taken - 1
    assert len(world.held("site-2")) == 2, "the others' of the same request are kept"
    again = AnchorStore(world.file, most_bytes=MOST)
    with pytest.raises(HeadsFull):
        again.keep([(liar.public, line(liar, 5000))])


def test_a_run_has_a_share_of_its_own(tmp_path: Path) -> None:
    world = World(tmp_path, per_run=5)
    liar = world.identities["site-1"]
    for number in range(1, 6):
        world.registry.give("site-1", line(liar, number))
        world.registry.give("site-1", line(liar, number))  # once more is no other head
    with pytest.raises(Problem, match="in one run"):
        world.registry.give("site-1", line(liar, 6))
    world.registry.give("site-2", line(world.identities["site-2"], 1))


def test_of_a_journal_the_latest_head_is_kept_and_of_journals_so_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchor_store, "MOST_JOURNALS", 8)
    liar = world.identities["site-1"]

    def rows() -> int:
        with sqlite3.connect(world.file.with_name("journal-anchors.sqlite")) as database:
            return database.execute("SELECT count(*) FROM journal_heads").fetchone()[0]

    for sequence in range(1, 40):
        world.registry.give("site-1", journal_line(liar, "a" * 32, sequence))
    assert rows() == 1, "an earlier head of one journal is of no use"
    for _ in range(3):  # forks of it are, and are kept
        world.registry.give("site-1", journal_line(liar, "a" * 32, 39))
    assert rows() == 4
    with pytest.raises(Problem, match="8 journals") as refusal:  # noqa: PT012
        for _ in range(40):
            world.registry.give("site-1", journal_line(liar, secrets.token_hex(16), 1))
    assert refusal.value.reason == "quota"
    assert rows() == 8
    other = world.identities["decryptor"]
    world.registry.give("decryptor", journal_line(other, "b" * 32, 1))
    assert rows() == 9


def test_a_journal_line_made_here_is_one(tmp_path: Path) -> None:
    """Else the flood above would be refused for its form."""
    identity = Identity.generate("site-1")
    real = sign_journal_head(SqliteJournal(tmp_path / "journal.sqlite"), identity)
    assert real is not None
    made = journal_line(identity, "a" * 32, 1)
    assert [len(part) for part in made.split(" ")] == [len(part) for part in real.split(" ")]


def test_a_flood_of_another_site_s_heads_does_not_keep_a_site_from_a_run(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = AnchorStore(tmp_path / "mine.sqlite", most_bytes=2000)
    liar, honest = world.identities["site-1"], world.identities["site-2"]
    server = SimpleNamespace(heads=partial(world.registry.tell, "site-3"))
    heads = SiteAnchors(server, lambda: world.members)  # type: ignore[arg-type]
    for number in range(1, 30):
        world.registry.give("site-1", line(liar, number))
        world.registry.give("site-2", line(honest, 1))
        heads._keep(kept)
    assert sum(map(len, kept.held(liar.public))) <= 2000
    assert len(kept.held(honest.public)) == 1
    assert [r.message for r in caplog.records if "site-1's ledgers take" in r.message]
    assert len(caplog.records) == 1, "said once"


@pytest.fixture
def inbox() -> Inbox:
    identity = Identity.generate("clinic-a")
    opened = Inbox(MemoryMessageStore(), part_bytes=1 << 20)
    opened.open_run(RUN, {"clinic-a": identity.public})
    opened.test_identity = identity  # type: ignore[attr-defined]
    return opened


def test_a_statement_has_a_largest_size_and_is_kept_once(
    inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    identity = inbox.test_identity  # type: ignore[attr-defined]
    for number in range(3):
        for size in (10, 9000):
            runs = tuple(a_charge(f"{number}-{n}" + "x" * 64) for n in range(size))
            statement = a_statement("clinic-a", runs=runs)
            signed = SignedStatement(statement, sign_statement(identity, statement))
            if size == 10:
                inbox.state("clinic-a", RUN, signed, final=False)
            else:
                with pytest.raises(Problem, match="not shown"):
                    inbox.state("clinic-a", RUN, signed, final=False)
                assert "at most 1048576" in statements(inbox.store, RUN)["clinic-a"].not_shown
    assert len(inbox.store.notes(RUN, STATED)["clinic-a"]) < 1 << 14
    assert len(inbox.store.notes(RUN, UNSHOWN)) == 1
    assert len({record.message for record in caplog.records}) == len(caplog.records)


def test_words_of_a_run_are_one_of_a_kind_however_often_they_are_said(inbox: Inbox) -> None:
    for number in range(50):
        inbox.join("clinic-a", RUN, "private")
        inbox.refuse("clinic-a", RUN, "budget" if number % 2 else "policy")
        inbox.state("clinic-a", RUN, SignedStatement(None, ""), final=True)
    kinds = (JOINED, REFUSED, STATED, UNSHOWN, CLOSED)
    assert sum(len(inbox.store.notes(RUN, kind)) for kind in kinds) <= len(kinds)
    with pytest.raises(Problem, match="not under way"):
        inbox.fail("clinic-a", RUN, 7, 7, "lost")
    with pytest.raises(Problem, match="not under way"):
        inbox.join("clinic-a", "deadbeef", "private")


class OpenAttempt:
    """As much of an attempt as an inbox asks before its messages."""

    plan = SimpleNamespace(run=RUN, round=1, attempt=1)
    place = (1, 1)

    def cap(self, kind: str) -> int:
        return 1 << 20


def test_a_message_does_not_come_byte_by_byte(inbox: Inbox) -> None:
    inbox.open_attempt(OpenAttempt())  # type: ignore[arg-type]
    key = MessageKey(RUN, 1, 1, "clinic-a", "chunks")
    for size in (1, 100, 4095):
        with pytest.raises(Problem, match="4096 bytes"):
            inbox.part("site", key, sha256="0" * 64, size=1 << 20, offset=0, data=bytes(size))
    with pytest.raises(Problem, match="too many"):
        inbox.part("site", key, sha256="0" * 64, size=1 << 21, offset=0, data=bytes(4096))
    assert inbox.store.receipt(key) is None


def test_an_attempt_is_closed_once_what_came_of_it_is_in_the_store(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verdict that woke the driver was stored after its round's messages had been deleted."""

    class Attempt(OpenAttempt):
        def receive(self, party: str, kind: str, parts: object) -> None:
            """Take anything."""

    inbox.open_attempt(Attempt())  # type: ignore[arg-type]
    key = MessageKey(RUN, 1, 1, "clinic-a", "verdict")
    put, closing = inbox.store.put, list[threading.Thread]()

    def close() -> None:
        inbox.open_attempt(None)
        inbox.store.forget(RUN, 1)

    def late(key: MessageKey, **given: Any) -> Receipt:
        closing.append(threading.Thread(target=close))
        closing[0].start()
        closing[0].join(0.3)  # by the earlier rule it is over by now, and deleted nothing
        return put(key, **given)

    monkeypatch.setattr(inbox.store, "put", late)
    sha256 = hashlib.sha256(b"verified").hexdigest()
    inbox.part("site", key, sha256=sha256, size=8, offset=0, data=b"verified")
    closing[0].join()
    assert inbox.store.accepted(RUN, 1, 1) == []
    with pytest.raises(Problem, match="not under way"):
        inbox.part("site", key, sha256=sha256, size=8, offset=0, data=b"verified")


def test_attempts_at_a_round_are_numbered_to_a_last_one() -> None:
    plan = Federation(3, size=10).plan()
    assert msgspec.structs.replace(plan, attempt=1024).attempt == 1024
    with pytest.raises(PlanError, match="attempt 1025"):
        msgspec.structs.replace(plan, attempt=1025)


def test_a_decryptor_holds_keys_of_so_many_rounds() -> None:
    fed = Federation(3, size=10)
    for number in range(1, 40):
        message = fed.coordinator.plan(fed.plan(round_=number))
        fed.decryptor.announce(message)
    assert len(fed.decryptor._attempts) == 16
