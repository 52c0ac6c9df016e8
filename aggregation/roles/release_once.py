"""A party whose one word a round opens by: what the decryptor and a custodian are alike in.

Both follow one coordinator's plans and count only sites they pinned. Both draw fresh keys for an
attempt, in memory only, and announce them once. And both give one word a (run, round), the
decryptor its release and a custodian its approval, which is in the journal before it leaves: after
a restart the same request gets the same bytes again, and any other is refused.

`Decryptor` and `Custodian` are its two subclasses; agents ask both for `journal_head` and bring
both what others kept (`hold_journal`) before they ask for a word.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Final, Generic, TypeVar

from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.errors import PlanError, RecordedError, ReplayError, RoleError, StateError
from aggregation.protocol import checks, messages
from aggregation.protocol.cohort_rule import MIN_COHORT, admit
from aggregation.protocol.journal import Journal
from aggregation.protocol.journal_heads import hold_to, sign_head
from aggregation.protocol.messages import Approval, Body, Cohort, Release
from aggregation.protocol.plan import Member, RoundPlan
from aggregation.protocol.replay import pin_federation
from aggregation.protocol.round import FixedCohort, Round

_MOST_HELD: Final = 16  # attempts whose keys are in memory, each of another round


@dataclass(slots=True, repr=False, kw_only=True)
class Held:
    """An attempt whose keys are held.

    Attributes:
        round: The plan's round.
        announcement: What was announced for it.
        cohort: The cohort, once one was verified.
        cohort_digest: Of its message.
    """

    round: Round
    announcement: bytes = b""
    cohort: FixedCohort | None = None
    cohort_digest: bytes = b""

    def destroy(self) -> None:
        """Forgets everything that is secret."""


A = TypeVar("A", bound=Held)


class Gatekeeper(ABC, Generic[A]):
    """Announces keys for attempts, and gives one word a round. Calls must come from one thread.

    Attributes:
        ANNOUNCED: Journal kind of an announcement, by attempt.
        SPOKEN: Journal kind of the word, by round.
        WORD: The kind of message the word is.
        DONE: What has happened to a round once it is given.
    """

    ANNOUNCED: ClassVar[str]
    SPOKEN: ClassVar[str]
    WORD: ClassVar[type[Approval | Release]]
    DONE: ClassVar[str]

    def __init__(
        self,
        identity: Identity,
        journal: Journal,
        *,
        coordinator: PublicIdentity,
        pinned: Mapping[str, PublicIdentity],
        min_cohort: int = MIN_COHORT,
        floor: int = 0,
        objection: Callable[[RoundPlan], str | None] = lambda _: None,
    ) -> None:
        """Set the role up.

        Args:
            identity: This party's key pair.
            journal: Its durable record.
            coordinator: Whose plans it follows.
            pinned: By name, the parties it knows: aggregator, decryptor, custodians and sites.
            min_cohort: The fewest pinned sites whose sum it lets open, by weight.
            floor: The fewest by count; what the caller's share of all its pinned sites comes to.
            objection: Says what of a plan, whose signature holds, this party did not agree to;
                None of one that it announces keys for.

        Raises:
            RoleError: Something else than an identity was handed in.
        """
        if not isinstance(identity, Identity):
            raise RoleError(f"a {type(self).__name__.lower()} signs with its own Identity")
        self._identity = identity
        self._journal = journal
        self._coordinator = coordinator
        self._pinned = dict(pinned)
        self._min_cohort, self._floor = min_cohort, floor
        self._objection = objection
        self._attempts: dict[str, A] = {}
        # By round, a word whose record failed: it has not left, and is tried again as it is.
        self._unrecorded: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._identity.public.name!r})"

    @property
    def public(self) -> PublicIdentity:
        """The public identity of this party."""
        return self._identity.public

    def has_spoken(self, plan_message: bytes) -> bool:
        """Whether this party gave its word in a plan's round, in this process or an earlier one.

        Raises:
            RefusedError: The plan does not hold.
            JournalError: The record cannot be read.
        """
        slot = self._read_plan(plan_message).round_key(self.public)
        return self._journal.lookup(self.SPOKEN, slot) is not None

    def journal_head(self) -> str | None:
        """The head of its journal, signed, for others to keep; None of one in memory alone.

        Raises:
            JournalError: It cannot be read.
        """
        return sign_head(self._journal, self._identity)

    def hold_journal(self, heads: Iterable[str]) -> None:
        """Hold its journal to heads that others kept of it, before it gives a word.

        Raises:
            JournalError: It lacks one: it was put back, or begun anew.
            MessageError: One is no head.
        """
        hold_to(self._journal, self.public, heads)

    def kept_open(self) -> AbstractContextManager[None]:
        """Its journal stays open inside: for the calls of one assignment."""
        return self._journal.kept_open()

    def close(self) -> None:
        """Destroy every key; attempts under way end unopened."""
        for attempt in self._attempts.values():
            attempt.destroy()
        self._attempts.clear()
        self._unrecorded.clear()

    @abstractmethod
    def _read_plan(self, plan_message: bytes) -> Round:
        """Verify a plan and that it gives this party its role."""

    @abstractmethod
    def _draw(self, round_: Round) -> tuple[A, Body]:
        """Draw an attempt's keys; also the body that announces them."""

    def _announce(self, plan_message: bytes) -> bytes:
        round_ = self._read_plan(plan_message)
        self._require_enough(round_, round_.plan.members)
        unagreed = self._objection(round_.plan)
        if unagreed is not None:
            raise PlanError(f"the plan's {unagreed} is not the one agreed here")
        slot = round_.round_key(self.public)
        current = self._attempts.get(slot)
        if current is not None and current.round.digest == round_.digest:
            return current.announcement
        if self._journal.lookup(self.SPOKEN, slot) is not None:
            raise ReplayError(f"this round was {self.DONE} already")
        self._unrecorded.pop(slot, None)  # of an attempt that is over, and it never left
        pin_federation(self._journal, self.public, round_.plan)
        attempt, body = self._draw(round_)
        attempt.announcement = messages.seal(self._identity, body)
        try:
            digest = messages.digest(attempt.announcement)
            self._journal.record(self.ANNOUNCED, round_.attempt_key(self.public), digest)
        except RecordedError:
            raise ReplayError("this attempt was announced already; plan a new one") from None
        if current is not None:
            current.destroy()
            del self._attempts[slot]
        elif len(self._attempts) >= _MOST_HELD:
            # A coordinator that plans round after round and finishes none: the oldest goes.
            self._attempts.pop(next(iter(self._attempts))).destroy()
        self._attempts[slot] = attempt
        return attempt.announcement

    def _find(self, cohort_message: bytes) -> A | None:
        """The attempt that a cohort is of, if its keys are held."""
        digest = _digest(cohort_message)
        for attempt in self._attempts.values():
            if attempt.cohort is not None and attempt.cohort_digest == digest:
                return attempt
        body = messages.unseal(cohort_message, Cohort, self._coordinator)
        for attempt in self._attempts.values():
            if attempt.round.digest == body.plan:
                return attempt
        return None

    def _need(self, attempt: A | None) -> A:
        if attempt is None:
            raise StateError("no key is held for this plan: a new attempt is needed")
        return attempt

    def _admit(self, cohort_message: bytes, held: A | Round) -> FixedCohort:
        """Verify a cohort and decide, again, whether a sum of it protects its sites."""
        round_ = held if isinstance(held, Round) else held.round
        if isinstance(held, Round):
            cohort = checks.read_cohort(round_, cohort_message)
        else:
            digest = _digest(cohort_message)
            if held.cohort is None or held.cohort_digest != digest:
                held.cohort = checks.read_cohort(round_, cohort_message)
                held.cohort_digest = digest
            cohort = held.cohort
        self._require_enough(round_, cohort.members)
        return cohort

    def _require_enough(self, round_: Round, members: Iterable[Member]) -> None:
        own, pinned = self.public, self._pinned
        admit(round_.plan, members, own, pinned, self._min_cohort, self._floor)

    def _repeat(self, cohort: FixedCohort, listed: bytes) -> bytes | None:
        """The word that was given for these uploads, if one was given for their round.

        One that was formed and could not be recorded is recorded now. Its keys are gone.
        """
        slot = cohort.round.round_key(self.public)
        stored = self._journal.lookup(self.SPOKEN, slot)
        formed = self._unrecorded.get(slot)
        if stored is None and formed is not None:
            self._record(slot, formed)
            stored = formed
        if stored is None:
            return None
        body = messages.unseal(stored, self.WORD, self.public, cohort.round.cap(self.WORD))
        if body.transcript != cohort.transcript or body.opening_list != listed:
            raise ReplayError(f"this round was {self.DONE} already, for other uploads")
        return stored

    def _speak(self, round_: Round, body: Body) -> bytes:
        """Sign the word and record it, before it leaves."""
        slot, message = round_.round_key(self.public), messages.seal(self._identity, body)
        self._unrecorded[slot] = message
        self._record(slot, message)
        return message

    def _record(self, slot: str, message: bytes) -> None:
        try:
            self._journal.record(self.SPOKEN, slot, message)
        except RecordedError:
            raise ReplayError(f"this round was {self.DONE} already") from None
        del self._unrecorded[slot]


def _digest(message: bytes) -> bytes:
    return messages.digest(message) if isinstance(message, bytes) else b""
