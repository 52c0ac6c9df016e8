"""Which adapter a site trains on: the one that it verified itself, or that enough others did.

A coordinator that could hand a site any adapter could choose one that gives the site away, or an
old one again with a smaller cohort. So a site remembers, in its journal, what each sum that it
verified gave, and over restarts it accepts no other. One that was away, for a round or for many,
accepts what sites that it pinned have signed: more of them than it thinks may lie.

`parties.site` calls `begin` when a run starts and `require` with each plan that it is to admit.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from aggregation import Journal, PublicIdentity, RecordedError, RefusedError, RoundPlan, said_of
from aggregation.protocol import (
    REFUSED,
    VERIFIED,
    FixedCohort,
    Verdict,
    read_cohort,
    read_plan,
    read_verdict,
)
from fmfl_secure.errors import AdapterUnverified, RunError
from fmfl_secure.parties.workspace import Members
from fmfl_secure.run.history import decode_history

_ADAPTER: Final = "site/adapter"  # journal kind: what a run starts from, or others' word for later
_LOG = logging.getLogger("fmfl_secure.parties.expected_adapter")


@dataclass(frozen=True, slots=True)
class _Known:
    """An adapter that this site would start a round from.

    Attributes:
        place: Round and attempt whose sum gave it; zeros before the first.
        digest: Its digest.
        before: Of the one before, where this site verified the sum itself; else empty.
    """

    place: tuple[int, int]
    digest: str
    before: str = ""


class ExpectedAdapter:
    """One site's record of the adapters of one run. Durable when a call returns.

    Args:
        journal: The site's.
        own: The site.
        federation: Name of the federation.
        run: Run id.
        colluders: How many of the other sites may lie together.
    """

    def __init__(
        self, journal: Journal, own: PublicIdentity, *, federation: str, run: str, colluders: int
    ) -> None:
        self._journal = journal
        self._own = own
        self._federation = federation
        self._run = run
        self._colluders = colluders

    def begin(self, digest: str) -> None:
        """Note what the run starts from, before this site has heard of any round.

        Args:
            digest: `sha256:` of the adapter that the settings' seed gives.
        """
        if self._journal.lookup(_ADAPTER, self._key(0)) is None:
            self._note((0, 0), digest)

    def require(
        self, plan: RoundPlan, members: Members, history: Callable[[], bytes] = bytes
    ) -> None:
        """Require that a plan starts from the adapter that the last released sum gave.

        Args:
            plan: Whose signature holds.
            members: Whom this site pinned.
            history: Fetches what sites signed of earlier rounds; called only where it is needed.

        Raises:
            RunError: It does not, and this site verified the last sum itself.
            AdapterUnverified: This site was away, and too few others have signed for it.
        """
        known = self._last(plan.round)
        if known is None:
            # Begun by a version that kept no record: believed once, as it would have been there.
            _LOG.warning("%s: nothing is recorded of this run's adapters", self._own.name)
            self._note((plan.round - 1, 0), plan.adapter_digest)
            return
        if plan.adapter_digest == known.digest:
            return
        caught_up = self._caught_up(known, plan, members, history())
        if plan.adapter_digest == caught_up.digest:
            self._note(caught_up.place, caught_up.digest)
            return
        if known.place[0] == plan.round - 1:
            raise RunError(f"{self._own.name}: the adapter is not the one the last sum gives")
        raise AdapterUnverified(
            f"{self._own.name}: fewer than {self._colluders + 1} other sites that are pinned here "
            f"have signed for the adapter of round {plan.round}",
            hint="Wait: this site missed rounds, and is asked again in the next attempt.",
        )

    def _last(self, before_round: int) -> _Known | None:
        for number in range(before_round - 1, -1, -1):
            noted = self._journal.lookup(_ADAPTER, self._key(number))
            if noted is not None:
                attempt, _, digest = noted.decode().partition(" ")
                return _Known((number, int(attempt)), digest)
            said = said_of(self._journal, self._own, self._key(number)) if number else None
            if said is not None and said.outcome == VERIFIED:
                return _Known((number, said.attempt), said.after, said.before)
        return None

    def _caught_up(
        self, known: _Known, plan: RoundPlan, members: Members, history: bytes
    ) -> _Known:
        """Draws this site's conclusions from what others signed."""
        for earlier, verdicts in self._read(plan, members, history):
            place = (earlier.round, earlier.attempt)
            if place > known.place:
                if any(each.outcome == REFUSED for each in verdicts):
                    continue  # the round is lost, whoever verified its sum
                after = Counter(each.after for each in verdicts if each.outcome == VERIFIED)
                for digest, count in after.items():
                    if count > self._colluders:
                        known = _Known(place, digest)
            elif place == known.place and any(each.outcome != VERIFIED for each in verdicts):
                # One word is enough for this: a site that lies loses a round in any case.
                known = _Known(place, known.before or known.digest)
        return known

    def _read(
        self, plan: RoundPlan, members: Members, history: bytes
    ) -> Iterator[tuple[RoundPlan, list[Verdict]]]:
        """Earlier attempts of this run, with what other sites pinned here say of each."""
        try:
            for item in decode_history(history):
                round_ = read_plan(item.plan, members.coordinator)
                earlier = round_.plan
                if (earlier.federation, earlier.run) != (self._federation, self._run):
                    continue
                if earlier.round >= plan.round:
                    continue
                cohort = read_cohort(round_, item.cohort)
                yield earlier, list(self._count(cohort, members, item.verdicts))
        except (RefusedError, RunError) as error:
            _LOG.warning("%s: what others signed does not hold: %s", self._own.name, error)

    def _count(
        self, cohort: FixedCohort, members: Members, messages: tuple[bytes, ...]
    ) -> Iterator[Verdict]:
        """Each pinned site of the cohort once, and never this one."""
        seen = {self._own.name}
        for message in messages:
            name, verdict = read_verdict(cohort, message)
            if name not in seen and members.sites.get(name) == cohort.member(name):
                seen.add(name)
                yield verdict

    def _note(self, place: tuple[int, int], digest: str) -> None:
        number, attempt = place
        value = f"{attempt} {digest}".encode()
        try:
            self._journal.record(_ADAPTER, self._key(number), value)
        except RecordedError:
            if self._journal.lookup(_ADAPTER, self._key(number)) != value:
                raise RunError(
                    f"{self._own.name}: another adapter was accepted after round {number}"
                ) from None

    def _key(self, round_number: int) -> str:
        return f"{self._own.fingerprint}/{self._federation}/{self._run}/{round_number}"
