"""A server that withholds, strips or replays what sites remember of each other's journals."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from aggregation import (
    CohortError,
    JournalError,
    MemoryJournal,
    RefusedError,
    SiteAttempt,
    SqliteJournal,
    sign_journal_head,
)
from aggregation.protocol import messages
from aggregation.protocol.checks import read_exchange
from aggregation.protocol.journal_heads import HEAD_SIZE, pack_head, unpack_head
from aggregation.protocol.messages import MAX_HEADS, Exchange
from aggregation.protocol.witness import hear
from aggregation.testing import Attempt, Federation
from fmfl_secure.storage.anchor_store import AnchorStore

VICTIM, COLLUDER, HONEST = "site-0", "site-1", "site-2"


class Remembering(Federation):
    """Sites with journals on disk that keep heads of each other's, and no server that tells any."""

    def __init__(self, folder: Path) -> None:
        super().__init__(3, suite="ckks-collective", key_agreement="x25519-mlkem768")
        self.folder = folder
        self.journals |= {name: SqliteJournal(folder / f"{name}.sqlite") for name in self.names}
        self.kept = {name: AnchorStore(folder / f"{name}-anchors.sqlite") for name in self.names}

    def site(self, name: str, plan_message: bytes) -> SiteAttempt:
        return SiteAttempt(
            self.identities[name],
            plan_message,
            coordinator=self.public["coordinator"],
            pinned=self.public,
            journal=self.journals[name],
            witness=self.kept[name],
        )

    def backup(self) -> Path:
        return Path(shutil.copy(self.folder / f"{VICTIM}.sqlite", self.folder / "backup"))

    def put_back(self, backup: Path) -> None:
        for ending in ("", "-wal", "-shm"):
            (self.folder / f"{VICTIM}.sqlite{ending}").unlink(missing_ok=True)
        shutil.copy(backup, self.folder / f"{VICTIM}.sqlite")
        self.journals[VICTIM] = SqliteJournal(self.folder / f"{VICTIM}.sqlite")

    def victim_uploads(self, attempt: Attempt, exchanges) -> None:
        attempt.sites[VICTIM].upload(attempt.cohort, self.random_integers(), exchanges)


@pytest.fixture
def fed(tmp_path: Path) -> Remembering:
    return Remembering(tmp_path)


@pytest.fixture
def after(fed: Remembering) -> Attempt:
    """Round 2, in which the victim's journal has forgotten round 1."""
    backup = fed.backup()
    fed.release(fed.start())
    fed.put_back(backup)
    return fed.start(fed.plan(round_=2))


def resigned(fed: Remembering, message: bytes, **changes: object) -> bytes:
    """What a colluding site says instead."""
    name = messages.sender(message, Exchange.CAP)
    body = messages.unseal(message, Exchange, fed.public[name])
    return messages.seal(fed.identities[name], msgspec.structs.replace(body, **changes))


def test_rounds_go_on_where_nothing_was_put_back(fed: Remembering) -> None:
    for number in (1, 2, 3):
        fed.release(fed.start(fed.plan(round_=number)))
    kept = fed.kept[HONEST].journals(fed.public[VICTIM])
    assert len(kept) == 1
    assert kept[0] != sign_journal_head(fed.journals[VICTIM], fed.identities[VICTIM])


def test_any_honest_site_of_the_cohort_is_enough(fed: Remembering, after: Attempt) -> None:
    own, colluding, honest = after.exchanges
    silent = resigned(fed, colluding, heads=msgspec.UNSET)
    with pytest.raises(JournalError, match="lacks entry"):
        fed.victim_uploads(after, (own, silent, honest))
    # Also once it has grown again, by attempts that come to nothing.
    for attempt in (2, 3, 4):
        again = fed.start(fed.plan(round_=2, attempt=attempt))
        with pytest.raises(JournalError, match="lacks entry"):
            fed.victim_uploads(again, again.exchanges)


def test_where_all_others_tell_nothing_it_is_not_noticed(fed: Remembering, after: Attempt) -> None:
    """The arm in which it works: a site alone among colluders has nobody who would tell it."""
    own, *others = after.exchanges
    fed.victim_uploads(after, (own, *(resigned(fed, m, heads=msgspec.UNSET) for m in others)))


def test_it_cannot_be_stripped_or_left_out_or_replayed(fed: Remembering, after: Attempt) -> None:
    own, colluding, honest = after.exchanges
    body = messages.unseal(honest, Exchange, fed.public[HONEST])
    stripped = messages.seal(
        fed.identities[COLLUDER], msgspec.structs.replace(body, heads=msgspec.UNSET)
    )
    old = fed.start(fed.plan(round_=3)).exchanges[2]
    for given, error in (
        ((own, colluding), CohortError),
        ((own, colluding, stripped), CohortError),  # then it is the colluder's, and theirs is none
        ((own, colluding, honest[:-1] + b"x"), RefusedError),
        ((own, colluding, old), CohortError),
    ):
        with pytest.raises(error):
            fed.victim_uploads(after, given)


def test_a_lie_stops_nobody(fed: Remembering) -> None:
    """A head that the site never signed is passed over: else one liar would have it left out."""
    attempt = fed.start()
    own, colluding, honest = attempt.exchanges
    body = messages.unseal(colluding, Exchange, fed.public[COLLUDER])
    theirs = body.heads[1]
    for of_victim in (bytes(HEAD_SIZE), theirs, theirs[:-1] + b"x", theirs * MAX_HEADS):
        for of_colluder in (theirs, bytes(HEAD_SIZE)):
            lie = resigned(fed, colluding, heads=(of_victim, of_colluder, b""))
            cohort = attempt.sites[VICTIM]._cohort
            journal, kept = fed.journals[VICTIM], fed.kept[VICTIM]
            hear(cohort, fed.public[VICTIM], journal, kept, (own, lie, honest))
    assert kept.journals(fed.public[COLLUDER]) == [unpack_head(fed.public[COLLUDER], theirs).line]


@pytest.mark.parametrize(
    "heads",
    [
        (b"",),
        (b"", b"", b"", b""),
        (b"x", b"", b""),
        (bytes(HEAD_SIZE * (MAX_HEADS + 1)), b"", b""),
    ],
    ids=["too few", "too many", "cut", "too long"],
)
def test_another_form_is_refused_and_named(fed: Remembering, heads: tuple[bytes, ...]) -> None:
    attempt = fed.start()
    fed.victim_uploads(attempt, attempt.exchanges)
    spoiled = resigned(fed, attempt.exchanges[1], heads=heads)
    with pytest.raises(CohortError, match=f"exchange message of {COLLUDER} tells heads"):
        read_exchange(attempt.sites[VICTIM]._cohort, spoiled)


def test_a_head_packed_is_the_head(fed: Remembering) -> None:
    line = sign_journal_head(fed.journals[VICTIM], fed.identities[VICTIM])
    assert line is not None
    packed = pack_head(line)
    assert len(packed) == HEAD_SIZE
    assert unpack_head(fed.public[VICTIM], packed).line == line
    for owner, data in ((HONEST, packed), (VICTIM, packed[::-1]), (VICTIM, packed[1:])):
        with pytest.raises(RefusedError):
            unpack_head(fed.public[owner], data)


def test_a_site_in_memory_says_nothing_of_itself(fed: Remembering) -> None:
    fed.journals[COLLUDER] = MemoryJournal()
    attempt = fed.start()
    fed.victim_uploads(attempt, attempt.exchanges)
    assert not fed.kept[VICTIM].journals(fed.public[COLLUDER])
