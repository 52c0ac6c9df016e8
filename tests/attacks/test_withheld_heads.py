"""A server that withholds, strips or replays what sites remember of each other's journals."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from exchanges import handed_anew, index_of, part_of, signed_anew, whole

from aggregation import (
    CohortError,
    JournalError,
    MemoryJournal,
    RefusedError,
    SiteAttempt,
    SqliteJournal,
    sign_journal_head,
)
from aggregation.protocol import read_exchange, verify_and_hand_out
from aggregation.protocol.exchange import Part
from aggregation.protocol.journal_heads import HEAD_SIZE, pack_head, unpack_head
from aggregation.protocol.messages import MAX_HEADS
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
        """As a server has it that hands on these messages."""
        handed = verify_and_hand_out(self.fixed(attempt), exchanges)[VICTIM]
        attempt.sites[VICTIM].upload(attempt.cohort, self.random_integers(), handed)


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


def silent(fed: Remembering, name: str, message: bytes) -> bytes:
    """What a colluding site says instead: of journals nothing."""
    nothing = {leaf: {"heads": b""} for leaf in range(3)}
    return signed_anew(fed.identities[name], message, nothing, head=b"")


def test_rounds_go_on_where_nothing_was_put_back(fed: Remembering) -> None:
    for number in (1, 2, 3):
        fed.release(fed.start(fed.plan(round_=number)))
    kept = fed.kept[HONEST].journals(fed.public[VICTIM])
    assert len(kept) == 1
    assert kept[0] != sign_journal_head(fed.journals[VICTIM], fed.identities[VICTIM])


def test_any_honest_site_of_the_cohort_is_enough(fed: Remembering, after: Attempt) -> None:
    own, colluding, honest = after.exchanges
    with pytest.raises(JournalError, match="lacks entry"):
        fed.victim_uploads(after, (own, silent(fed, COLLUDER, colluding), honest))
    # Also once it has grown again, by attempts that come to nothing.
    for attempt in (2, 3, 4):
        again = fed.start(fed.plan(round_=2, attempt=attempt))
        with pytest.raises(JournalError, match="lacks entry"):
            fed.victim_uploads(again, again.exchanges)


def test_where_all_others_tell_nothing_it_is_not_noticed(fed: Remembering, after: Attempt) -> None:
    """The arm in which it works: a site alone among colluders has nobody who would tell it."""
    own, *others = after.exchanges
    said = (silent(fed, name, m) for name, m in zip((COLLUDER, HONEST), others, strict=True))
    fed.victim_uploads(after, (own, *said))


def test_it_cannot_be_stripped_or_left_out_or_replayed(fed: Remembering, after: Attempt) -> None:
    colluding, honest = fed.handed(after)[VICTIM]
    nothing = msgspec.msgpack.encode(Part(ciphertext=part_of(after.exchanges[2], 0).ciphertext))
    stripped = handed_anew(honest, part=nothing)
    index = whole(silent(fed, COLLUDER, after.exchanges[1])).index
    old = fed.handed(fed.start(fed.plan(round_=3)))[VICTIM][1]
    for_another = fed.handed(after)[COLLUDER][1]
    for given, error in (
        ((colluding,), CohortError),
        ((colluding, stripped), CohortError),
        ((colluding, for_another), CohortError),
        ((colluding, handed_anew(honest, index=index)), CohortError),  # then it is the colluder's
        ((colluding, honest[:-1] + b"x"), RefusedError),
        ((colluding, old), CohortError),
        ((colluding, colluding, honest), CohortError),
    ):
        with pytest.raises(error):
            after.sites[VICTIM].upload(after.cohort, fed.random_integers(), given)


def test_a_lie_stops_nobody(fed: Remembering) -> None:
    """A head that the site never signed is passed over: else one liar would have it left out."""
    attempt = fed.start()
    _, colluding, honest = attempt.exchanges
    theirs, cohort = index_of(colluding, fed.identities[COLLUDER]).head, fed.fixed(attempt)
    assert len(theirs) == HEAD_SIZE
    for of_victim in (bytes(HEAD_SIZE), theirs, theirs[:-1] + b"x", theirs * MAX_HEADS):
        for of_colluder in (theirs, bytes(HEAD_SIZE)):
            lie = signed_anew(
                fed.identities[COLLUDER], colluding, {0: {"heads": of_victim}}, head=of_colluder
            )
            journal, kept = fed.journals[VICTIM], fed.kept[VICTIM]
            said = [read_exchange(cohort, message) for message in (lie, honest)]
            hear(cohort, fed.public[VICTIM], journal, kept, said)
    assert kept.journals(fed.public[COLLUDER]) == [unpack_head(fed.public[COLLUDER], theirs).line]


@pytest.mark.parametrize(
    ("leaf", "heads", "head"),
    [
        (0, b"x", b""),
        (0, bytes(HEAD_SIZE * (MAX_HEADS + 1)), b""),
        (1, bytes(HEAD_SIZE), b""),
        (0, b"", b"x"),
        (0, b"", bytes(2 * HEAD_SIZE)),
    ],
    ids=["cut", "too long", "to itself", "its own cut", "its own twice"],
)
def test_another_form_is_refused_and_named(
    fed: Remembering, leaf: int, heads: bytes, head: bytes
) -> None:
    attempt = fed.start()
    fed.victim_uploads(attempt, attempt.exchanges)
    spoiled = signed_anew(
        fed.identities[COLLUDER], attempt.exchanges[1], {leaf: {"heads": heads}}, head=head
    )
    with pytest.raises(CohortError, match=f"exchange message of {COLLUDER} tells heads"):
        read_exchange(fed.fixed(attempt), spoiled)


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
