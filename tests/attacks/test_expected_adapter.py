"""A coordinator that hands a site another adapter than the federation's: with real signatures.

The site was away or restarted: it has its journal and no memory. What it is shown are messages
that real parties signed, put together as an adversary would.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from aggregation import (
    Coordinator,
    Decryptor,
    Identity,
    Member,
    MemoryJournal,
    Quantization,
    RoundPlan,
    Segment,
    SiteAttempt,
    SqliteJournal,
    choose,
)
from aggregation.protocol import LOST, REFUSED, VERIFIED, Outcome, read_cohort, read_plan
from aggregation.roles.verdicts import give_verdict
from fmfl_secure.errors import AdapterUnverified, RunError
from fmfl_secure.parties.expected_adapter import ExpectedAdapter
from fmfl_secure.parties.workspace import Members
from fmfl_secure.run.history import ReleaseHistory, encode_history

NAMES = ("site-1", "site-2", "site-3", "site-4")
RUN, OTHER_RUN = "ab" * 8, "cd" * 8
COLLUDERS = 1


def adapter(number: int) -> str:
    return f"sha256:{number:064x}"


MADE_UP = adapter(666)


@dataclass
class League:
    """Every key but those of honest sites is the adversary's, and it signs what it likes."""

    identities: dict[str, Identity] = field(
        default_factory=lambda: {
            name: Identity.generate(name)
            for name in ("coordinator", "aggregator", "decryptor", *NAMES)
        }
    )

    def __post_init__(self) -> None:
        public = {name: identity.public for name, identity in self.identities.items()}
        roles = {name: public[name] for name in ("coordinator", "aggregator", "decryptor")}
        self.members = Members(**roles, sites={name: public[name] for name in NAMES})

    def plan(
        self,
        number: int,
        before: str,
        *,
        attempt: int = 1,
        run: str = RUN,
        federation: str = "tiny",
    ) -> bytes:
        members = self.members
        plan = RoundPlan(
            federation=federation,
            run=run,
            round=number,
            attempt=attempt,
            suite="ckks-collective",
            parameter_set=choose(len(NAMES), 8, suite="ckks-collective").id,
            quantization=Quantization(bits=8, segments=(Segment(name="a", size=4, range=1.0),)),
            members=tuple(Member(members.sites[name]) for name in NAMES),
            aggregator=members.aggregator,
            decryptor=members.decryptor,
            coordinator=members.coordinator,
            adapter_digest=before,
            layout_digest=MADE_UP,
            base_model_digest=MADE_UP,
            training_digest=MADE_UP,
        )
        return Coordinator(self.identities["coordinator"]).plan(plan)

    def cohort(self, plan: bytes, names: Iterable[str] = NAMES) -> bytes:
        members = self.members
        readies = [
            SiteAttempt(
                self.identities[name],
                plan,
                coordinator=members.coordinator,
                pinned=members.pinned,
                journal=MemoryJournal(),
            ).ready()
            for name in names
        ]
        decryptor = Decryptor(
            self.identities["decryptor"],
            MemoryJournal(),
            coordinator=members.coordinator,
            pinned=members.pinned,
        )
        coordinator = Coordinator(self.identities["coordinator"])
        return coordinator.cohort(plan, decryptor.announce(plan), readies)

    def verdict(
        self,
        name: str,
        plan: bytes,
        cohort: bytes,
        after: str = "",
        *,
        outcome: Outcome = VERIFIED,
        journal=None,
    ) -> bytes:
        fixed = read_cohort(read_plan(plan, self.members.coordinator), cohort)
        kept = MemoryJournal() if journal is None else journal
        return give_verdict(self.identities[name], kept, fixed, outcome, after)

    def released(
        self, number: int, before: str, after: str, signers: Iterable[str], **plan
    ) -> ReleaseHistory:
        """What is kept of a round that these sites say they verified."""
        message = self.plan(number, before, **plan)
        cohort = self.cohort(message)
        verdicts = (self.verdict(name, message, cohort, after) for name in signers)
        return ReleaseHistory(message, cohort, tuple(verdicts))


@pytest.fixture(scope="module")
def league() -> League:
    return League()


class Victim:
    """site-1: a journal, and what reads it anew after each restart."""

    def __init__(self, league: League, folder: Path) -> None:
        self.league, self.file = league, folder / "journal.sqlite"
        self.expected().begin(adapter(0))

    def expected(self, *, colluders: int = COLLUDERS) -> ExpectedAdapter:
        return ExpectedAdapter(
            SqliteJournal(self.file),
            self.league.members.sites["site-1"],
            federation="tiny",
            run=RUN,
            colluders=colluders,
        )

    def verifies(self, number: int) -> ReleaseHistory:
        """It takes part in a round from adapter n - 1 to n, and in its first attempt."""
        plan = self.league.plan(number, adapter(number - 1))
        cohort = self.league.cohort(plan)
        own = self.league.verdict(
            "site-1", plan, cohort, adapter(number), journal=SqliteJournal(self.file)
        )
        others = (self.league.verdict(n, plan, cohort, adapter(number)) for n in NAMES[1:])
        return ReleaseHistory(plan, cohort, (own, *others))

    def takes(
        self,
        number: int,
        digest: str,
        *history: ReleaseHistory,
        colluders: int = COLLUDERS,
        members: Members | None = None,
    ) -> None:
        """Is handed a plan, after a restart."""
        plan = read_plan(self.league.plan(number, digest), self.league.members.coordinator).plan
        self.expected(colluders=colluders).require(
            plan, members or self.league.members, lambda: encode_history(history)
        )


@pytest.fixture
def victim(league: League, tmp_path: Path) -> Victim:
    return Victim(league, tmp_path)


def test_a_restarted_site_takes_the_adapter_that_it_verified_and_no_other(victim: Victim) -> None:
    victim.verifies(1)
    victim.takes(2, adapter(1))
    for digest in (MADE_UP, adapter(0), adapter(2)):
        with pytest.raises(RunError, match="not the one the last sum gives"):
            victim.takes(2, digest)


def test_by_the_rule_of_0_1_0_it_takes_any(victim: Victim, tmp_path: Path) -> None:
    """What was expected lived in memory, as in a journal that holds nothing of the run."""
    victim.verifies(1)
    victim.file = tmp_path / "another.sqlite"
    victim.takes(2, MADE_UP)


def test_the_last_round_s_adapter_with_a_smaller_cohort_is_refused(victim: Victim) -> None:
    """Two sums over the same start, one site apart."""
    kept = victim.verifies(1)
    for history in ((), (kept,), (victim.league.released(1, adapter(0), adapter(0), NAMES),)):
        with pytest.raises(RunError, match="not the one the last sum gives"):
            victim.takes(2, adapter(0), *history)


def test_a_site_that_missed_rounds_takes_the_word_of_enough_others(
    victim: Victim, league: League
) -> None:
    missed = league.released(3, adapter(2), adapter(3), ("site-3", "site-4"))
    victim.takes(4, adapter(3), missed)
    victim.takes(4, adapter(3))  # it is remembered
    with pytest.raises(RunError, match="not the one the last sum gives"):
        victim.takes(4, MADE_UP, missed)


@pytest.mark.parametrize("signers", [(), ("site-3",), ("site-1", "site-3"), ("site-3", "site-3")])
def test_too_few_verdicts_are_no_word_and_the_site_s_own_is_none(
    victim: Victim, league: League, signers: tuple[str, ...]
) -> None:
    with pytest.raises(AdapterUnverified):
        victim.takes(3, adapter(2), league.released(2, adapter(1), adapter(2), signers))


def test_with_more_who_may_lie_it_takes_more_words(victim: Victim, league: League) -> None:
    missed = league.released(2, adapter(1), adapter(2), NAMES[1:3])
    with pytest.raises(AdapterUnverified, match="fewer than 3 other sites"):
        victim.takes(3, adapter(2), missed, colluders=2)
    everybody = league.released(2, adapter(1), adapter(2), NAMES[1:])
    victim.takes(3, adapter(2), everybody, colluders=2)


@pytest.mark.parametrize(
    "other",
    [{"run": OTHER_RUN}, {"federation": "another"}, {"number": 3}, {"number": 4}],
    ids=lambda other: next(iter(other)) + str(next(iter(other.values()))),
)
def test_verdicts_of_another_run_federation_or_round_are_no_word(
    victim: Victim, league: League, other: dict
) -> None:
    """Genuine ones all; a round that is not over yet is none that could have been released."""
    named = {"number": 2, **other}
    number = named.pop("number")
    foreign = league.released(number, adapter(1), MADE_UP, NAMES[1:], **named)
    with pytest.raises(AdapterUnverified):
        victim.takes(3, MADE_UP, foreign)


def test_verdicts_moved_under_another_plan_or_cohort_are_no_word(
    victim: Victim, league: League
) -> None:
    genuine = league.released(2, adapter(1), adapter(2), NAMES[1:], run=OTHER_RUN)
    plan = league.plan(2, adapter(1))
    for moved in (
        ReleaseHistory(plan, league.cohort(plan), genuine.verdicts),
        ReleaseHistory(plan, genuine.cohort, genuine.verdicts),
    ):
        with pytest.raises(AdapterUnverified):
            victim.takes(3, adapter(2), moved)


def test_sites_that_are_not_pinned_or_were_not_there_are_no_word(
    victim: Victim, league: League
) -> None:
    plan = league.plan(2, adapter(1))
    small = league.cohort(plan, NAMES[:3])
    verdicts = tuple(
        league.verdict(name, plan, cohort, adapter(2))
        for name, cohort in (("site-3", small), ("site-4", league.cohort(plan)))
    )
    with pytest.raises(AdapterUnverified):
        victim.takes(3, adapter(2), ReleaseHistory(plan, small, verdicts))
    stranger = League()
    strangers = stranger.released(2, adapter(1), adapter(2), NAMES[1:])
    with pytest.raises(AdapterUnverified):
        victim.takes(3, adapter(2), strangers)
    missed = league.released(2, adapter(1), adapter(2), ("site-3", "site-4"))
    known = {name: who for name, who in league.members.sites.items() if name != "site-4"}
    with pytest.raises(AdapterUnverified):
        victim.takes(3, adapter(2), missed, members=replace(league.members, sites=known))


def test_an_older_adapter_is_refused_though_sites_signed_for_it(victim: Victim) -> None:
    first = victim.verifies(1)
    victim.verifies(2)
    with pytest.raises(RunError, match="not the one the last sum gives"):
        victim.takes(3, adapter(1), first)
    with pytest.raises(AdapterUnverified):
        victim.takes(5, adapter(1), first)


def test_a_site_that_verified_goes_back_where_another_could_not(
    victim: Victim, league: League
) -> None:
    """The round was lost, so all start from the same adapter again."""
    kept = victim.verifies(1)
    for outcome in (REFUSED, LOST):
        word = league.verdict("site-2", kept.plan, kept.cohort, outcome=outcome)
        lost = ReleaseHistory(kept.plan, kept.cohort, (kept.verdicts[0], word))
        victim.takes(2, adapter(0), lost)
    with pytest.raises(RunError):
        victim.takes(2, MADE_UP, lost)


def test_a_site_that_was_away_knows_a_round_that_was_lost_from_one_that_was_released(
    victim: Victim, league: League
) -> None:
    """One that refuses a sum kept all who had missed the release before it out of what follows."""
    missed = league.released(2, adapter(1), adapter(2), NAMES[1:])
    refused = league.released(3, adapter(2), adapter(3), NAMES[1:3])
    word = league.verdict("site-4", refused.plan, refused.cohort, outcome=REFUSED)
    lost = ReleaseHistory(refused.plan, refused.cohort, (*refused.verdicts, word))
    with pytest.raises(AdapterUnverified):
        victim.takes(4, adapter(3), missed, lost)
    victim.takes(4, adapter(2), missed, lost)


def test_a_site_that_says_that_it_cannot_tell_may_not_name_an_adapter(
    victim: Victim, league: League
) -> None:
    plan = league.plan(2, adapter(1))
    cohort = league.cohort(plan)
    for outcome, after in ((LOST, adapter(2)), (VERIFIED, "")):
        words = tuple(
            league.verdict(name, plan, cohort, after, outcome=outcome) for name in NAMES[1:]
        )
        with pytest.raises(AdapterUnverified):
            victim.takes(3, adapter(2), ReleaseHistory(plan, cohort, words))


def test_what_is_no_history_is_no_word(victim: Victim) -> None:
    plan = read_plan(victim.league.plan(3, MADE_UP), victim.league.members.coordinator).plan
    for junk in (b"\xc1", b"\x93\x01\x02\x03", b"x" * 100, b"\x91\x81\xa2\xff\xfe\xc0"):
        with pytest.raises(AdapterUnverified):
            victim.expected().require(plan, victim.league.members, lambda junk=junk: junk)
