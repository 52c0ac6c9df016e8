"""The contract of `Messages`, for every kind of storage there is, and for memory."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from postgres import Cluster

from aggregation import Identity
from fmfl_secure.errors import Problem, RunError, Unavailable
from fmfl_secure.storage.anchor_store import AnchorStore
from fmfl_secure.storage.message_memory import MemoryMessageStore
from fmfl_secure.storage.message_store import (
    MessageKey,
    Messages,
    heads_location,
    is_intact,
    open_store,
)
from privacy import Ledger

_NUMBERS = itertools.count(1)
KEY = MessageKey("0123456789abcdef", 1, 1, "site-1", "chunks")
Reopen = Callable[[], Messages]
MEMORY = "memory"


@pytest.fixture(params=["sqlite", "postgresql", MEMORY])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return "sqlite:store.sqlite"
    if request.param == MEMORY:
        return MEMORY
    cluster: Cluster = request.getfixturevalue("postgres")
    return cluster.url(f"service_{next(_NUMBERS)}")


@pytest.fixture
def reopen(url: str, tmp_path: Path):
    """Opens the same storage again and again, as restarts do; that in memory outlives none."""
    opened: list[Messages] = []

    def again() -> Messages:
        if url == MEMORY:
            opened[:] = opened or [MemoryMessageStore()]
            return opened[0]
        opened.append(open_store(url, relative_to=tmp_path))
        return opened[-1]

    yield again
    for store in opened:
        store.close()


def put(store: Messages, key: MessageKey, message: bytes, *, part: int = 4):
    digest = hashlib.sha256(message).hexdigest()
    receipt = None
    for start in range(0, len(message), part):
        receipt = store.append(
            key, sha256=digest, size=len(message), offset=start, data=message[start : start + part]
        )
    return receipt


def test_parts_add_up_and_survive_a_restart(reopen: Reopen) -> None:
    store = reopen()
    message = b"0123456789"
    receipt = put(store, KEY, message)
    assert receipt is not None
    assert (receipt.received, receipt.whole) == (10, False)
    again = reopen()
    assert again.receipt(KEY) == receipt
    assert b"".join(again.read(KEY)) == message
    assert is_intact(again, KEY, receipt)
    assert again.accept(KEY).whole
    assert reopen().accepted(KEY.run, 1, 1) == [KEY]


def test_a_part_that_is_here_changes_nothing(reopen: Reopen) -> None:
    store = reopen()
    first = put(store, KEY, b"0123456789")
    assert put(store, KEY, b"0123456789") == first
    assert b"".join(store.read(KEY)) == b"0123456789"


def test_a_gap_is_refused_and_says_where_to_go_on(reopen: Reopen) -> None:
    store = reopen()
    digest = hashlib.sha256(b"0123456789").hexdigest()
    store.append(KEY, sha256=digest, size=10, offset=0, data=b"0123")
    with pytest.raises(Problem) as refusal:
        store.append(KEY, sha256=digest, size=10, offset=8, data=b"89")
    assert (refusal.value.status, refusal.value.received) == (409, 4)
    with pytest.raises(Problem, match="more bytes"):
        store.append(KEY, sha256=digest, size=10, offset=4, data=b"456789+")


def test_an_unfinished_message_may_begin_anew_and_a_whole_one_never(reopen: Reopen) -> None:
    store = reopen()
    digest = hashlib.sha256(b"0123456789").hexdigest()
    store.append(KEY, sha256=digest, size=10, offset=0, data=b"0123")
    put(store, KEY, b"another")
    assert b"".join(store.read(KEY)) == b"another"
    store.accept(KEY)
    with pytest.raises(Problem, match="another message"):
        put(store, KEY, b"a third")
    store.discard(KEY)
    assert b"".join(store.read(KEY)) == b"another", "what was accepted is not discarded"


def test_a_whole_message_is_kept_at_once_in_place_of_what_had_come(reopen: Reopen) -> None:
    store = reopen()
    message = b"0123456789"
    digest = hashlib.sha256(message).hexdigest()
    store.append(KEY, sha256="0" * 64, size=20, offset=0, data=b"another")
    kept = store.put(KEY, sha256=digest, data=message)
    again = reopen()
    assert again.receipt(KEY) == kept
    assert (kept.received, kept.size, kept.whole) == (10, 10, True)
    assert b"".join(again.read(KEY)) == message
    assert again.accepted(KEY.run, 1, 1) == [KEY]
    with pytest.raises(Problem, match="another message"):
        put(again, KEY, b"a third")


def test_a_message_that_is_not_accepted_is_gone(reopen: Reopen) -> None:
    store = reopen()
    put(store, KEY, b"refused")
    store.discard(KEY)
    assert store.receipt(KEY) is None
    assert list(store.read(KEY)) == []


def test_another_digest_than_declared_is_noticed(reopen: Reopen) -> None:
    store = reopen()
    digest = hashlib.sha256(b"other").hexdigest()
    receipt = store.append(KEY, sha256=digest, size=5, offset=0, data=b"bytes")
    assert not is_intact(store, KEY, receipt)


def test_messages_are_apart_by_attempt_party_and_kind(reopen: Reopen) -> None:
    store = reopen()
    keys = [
        KEY,
        MessageKey(KEY.run, 1, 2, "site-1", "chunks"),
        MessageKey(KEY.run, 1, 1, "site-2", "chunks"),
        MessageKey(KEY.run, 1, 1, "site-1", "ready"),
        MessageKey(KEY.run, 2, 1, "site-1", "chunks"),
        MessageKey("fedcba9876543210", 1, 1, "site-1", "chunks"),
    ]
    for key in keys:
        put(store, key, repr(key).encode(), part=64)
        store.accept(key)
    for key in keys:
        assert b"".join(store.read(key)) == repr(key).encode()
    assert store.accepted(KEY.run, 1, 1) == [keys[0], keys[2], keys[3]]
    store.forget(KEY.run, 1)
    assert store.accepted(KEY.run, 1, 1) == store.accepted(KEY.run, 1, 2) == []
    assert store.accepted(KEY.run, 2, 1) == [keys[4]]
    assert store.accepted(keys[5].run, 1, 1) == [keys[5]]


def test_notes_are_replaced_dropped_and_kept(reopen: Reopen) -> None:
    store = reopen()
    store.note("run", "joined", "site-2", b"private")
    store.note("run", "joined", "site-1", b"private")
    store.note("run", "joined", "site-1", b"public")
    store.note("run", "refused", "site-1", b"budget")
    store.drop_note("run", "joined", "site-2")
    again = reopen()
    assert again.notes("run", "joined") == {"site-1": b"public"}
    assert again.notes("run", "refused") == {"site-1": b"budget"}
    assert again.notes("other", "joined") == {}
    assert again.healthy()


def test_threads_that_race_for_one_message_store_it_once(url: str, reopen: Reopen) -> None:
    if url == MEMORY:
        pytest.skip("one thread drives a run in memory")
    store = reopen()
    message = bytes(range(256)) * 16
    failures: list[Exception] = []

    def race() -> None:
        try:
            put(store, KEY, message, part=256)
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert b"".join(store.read(KEY)) == message


def test_a_refusal_changes_nothing_and_the_next_call_is_served(reopen: Reopen) -> None:
    store = reopen()
    digest = hashlib.sha256(b"0123456789").hexdigest()
    with pytest.raises(Problem):
        store.append(KEY, sha256=digest, size=10, offset=4, data=b"4567")
    assert store.receipt(KEY) is None, "the message that it would have begun is not there either"
    put(store, KEY, b"0123456789")
    assert b"".join(reopen().read(KEY)) == b"0123456789"


def test_two_processes_of_one_store_see_each_other(reopen: Reopen) -> None:
    one, two = reopen(), reopen()
    for number in range(5):
        (one, two)[number % 2].note("run", "joined", f"site-{number}", b"x")
    assert list(one.notes("run", "joined")) == list(two.notes("run", "joined"))
    assert len(one.notes("run", "joined")) == 5


def test_a_store_that_cannot_be_opened_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "no.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(RunError, match="cannot open"):
        open_store("sqlite:no.sqlite", relative_to=tmp_path)
    with pytest.raises(RunError, match="unknown store 'floppy'") as refusal:
        open_store("floppy://a:secret@b", relative_to=tmp_path)
    assert "secret" not in str(refusal.value)


def test_every_commit_reaches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, opened = sqlite3.connect, []

    def noted(*rest, **named):
        opened.append(real(*rest, **named))
        return opened[-1]

    monkeypatch.setattr("privacy.storage.sqlite.sqlite3.connect", noted)
    store = open_store("sqlite:store.sqlite", relative_to=tmp_path)
    store.note("run", "joined", "site-1", b"")
    assert len(opened) == 2, "one made the file, and the other serves all calls"
    assert opened[1].execute("PRAGMA synchronous").fetchone()[0] == 2
    assert opened[1].execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert not opened[1].in_transaction
    assert (tmp_path / "store.sqlite").stat().st_mode & 0o077 == 0
    store.close()


def test_a_database_that_was_restarted_is_reached_again(postgres: Cluster, tmp_path: Path) -> None:
    store = open_store(postgres.url(f"service_{next(_NUMBERS)}"), relative_to=tmp_path)
    store.note("run", "joined", "site-1", b"before")
    postgres.crash()
    with pytest.raises(Unavailable, match="server's store"):
        store.note("run", "joined", "site-2", b"lost")
    assert not store.healthy()
    postgres.start()
    assert store.notes("run", "joined") == {"site-1": b"before"}
    store.close()


def test_heads_lie_in_a_schema_beside(tmp_path: Path) -> None:
    file = tmp_path / "anchors.sqlite"
    assert heads_location("sqlite:service.sqlite", otherwise=file) == file
    base = "postgresql://fl@db.example.org/fl"
    assert heads_location(base, otherwise=file) == f"{base}?schema=fmfl_service_heads"
    named = heads_location(f"{base}?sslmode=verify-full&schema=pilot", otherwise=file)
    assert named == f"{base}?sslmode=verify-full&schema=pilot_heads"


def test_heads_and_messages_are_kept_in_one_database(postgres: Cluster, tmp_path: Path) -> None:
    url = postgres.url(f"service_{next(_NUMBERS)}")
    store = open_store(url, relative_to=tmp_path)
    identity = Identity.generate("site-1")
    ledger = Ledger.create(
        tmp_path / "ledger.sqlite", population="p", unit="record", signer=identity,
        public_key=identity.public.key,
    )  # fmt: skip
    line = ledger.anchor().line
    for _ in range(2):
        anchors = AnchorStore(heads_location(url, otherwise=tmp_path / "unused"))
        anchors.keep([(identity.public, line)])
        assert anchors.held(identity.public) == [line]
    assert store.notes("run", "joined") == {}
    assert not (tmp_path / "unused").exists()
    store.close()
