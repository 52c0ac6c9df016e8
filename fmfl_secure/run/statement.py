"""A site's statement of its ledger: grants, runs, what they cost, and the chain's head.

A statement is signed by the site and shown to all parties. Its figures have ranges, which are
looked at wherever one comes in; see `ranges`.

A site states its ledger when it joins and when it ends (`run.ledger_statement`), and
`run.site_notes` reads it at the server for the record.
"""

from __future__ import annotations

import datetime as dt
import math
from typing import Any, Final

import msgspec

from aggregation.protocol import prepared
from fmfl_secure.errors import RunError
from fmfl_secure.outside import MALFORMED
from fmfl_secure.run.ranges import (
    Count,
    Delta,
    Figure,
    Granted,
    Number,
    Spent,
    Text,
    grows,
    require,
    require_figures,
    within,
)
from privacy import Decided, PlanError, parse_event

ELSEWHERE: Final = "of another federation"  # in a statement, instead of the id of its run


class GrantRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A grant in a site's ledger after the run.

    Attributes:
        number: 1 for the first.
        epsilon: Granted.
        delta: Granted.
        purpose: In the custodian's words.
        at: UTC time.
        epsilon_spent: By all runs so far, trainings that began.
        epsilon_charged: The same with open reservations in full.
        epsilon_left: Granted less charged.
        insider_epsilon: Granted against all other sites together, where shares of distributed
            noise are permitted.
        insider_epsilon_spent: Of that, by all runs so far.
        insider_epsilon_charged: The same with open reservations in full.
        population_size: Declared number of units of the population, with this grant.
        delta_reason: Why delta, with that of earlier grants, may be above 1 / (10 x that number),
            in the custodian's words.
        rationale: Why this epsilon, in the custodian's words.
        decided_by: Who decided that.
        review_on: The day by which somebody looks at it again.
        objection: Why the grant affords nothing any more; absent where it stands.
        lowered_from: What epsilon was, where it was lowered after trainings were charged.
        closed: Why the custodian closed it; absent where it is open.
        exact: Whether it is for one run that was fixed beforehand; absent where it is a filter's.
        is_used: Whether that run has reserved.
        cap: Most epsilon and delta that all exact grants of the ledger may come to; at the first.
    """

    number: Number
    epsilon: Granted
    delta: Delta
    purpose: Text
    at: Text
    epsilon_spent: Spent
    epsilon_charged: Spent
    epsilon_left: Figure
    insider_epsilon: Granted | None = None
    insider_epsilon_spent: Spent | None = None
    insider_epsilon_charged: Spent | None = None
    # Left out where unset, so that what sites signed with 0.1.0 is what they signed.
    population_size: Number | msgspec.UnsetType = msgspec.UNSET
    delta_reason: Text | msgspec.UnsetType = msgspec.UNSET
    rationale: Text | msgspec.UnsetType = msgspec.UNSET
    decided_by: Text | msgspec.UnsetType = msgspec.UNSET
    review_on: dt.date | msgspec.UnsetType = msgspec.UNSET
    objection: Text | msgspec.UnsetType = msgspec.UNSET
    lowered_from: Granted | msgspec.UnsetType = msgspec.UNSET
    closed: Text | msgspec.UnsetType = msgspec.UNSET
    exact: bool | msgspec.UnsetType = msgspec.UNSET
    is_used: bool | msgspec.UnsetType = msgspec.UNSET
    cap: tuple[Granted, Delta] | msgspec.UnsetType = msgspec.UNSET

    @property
    def decided(self) -> Decided:
        """Why its epsilon, who decided it, and when to look again."""
        return Decided(self.rationale or "", self.decided_by or "", self.review_on or None)

    def __post_init__(self) -> None:
        """Holds figures to their `ranges`, and to each other.

        Raises:
            RunError: A figure is impossible, or figures contradict each other.
        """
        require_figures(
            self,
            (
                "epsilon_spent",
                "epsilon_charged",
                "insider_epsilon_spent",
                "insider_epsilon_charged",
            ),
        )
        require(
            within(self.epsilon_spent, self.epsilon_charged),
            f"grant {self.number}: epsilon_spent is {self.epsilon_spent}, more than "
            f"epsilon_charged, {self.epsilon_charged}",
        )
        require(
            within(self.epsilon_left, max(self.epsilon, self.pledged)),
            f"grant {self.number}: epsilon_left is {self.epsilon_left}, more than was granted, "
            f"{self.epsilon}",
        )
        second = (self.insider_epsilon, self.insider_epsilon_spent, self.insider_epsilon_charged)
        require(
            len({figure is None for figure in second}) == 1,
            f"grant {self.number}: of its insider figures some are there and some are not",
        )
        spent, charged = self.insider_epsilon_spent or 0.0, self.insider_epsilon_charged or 0.0
        require(
            within(spent, charged),
            f"grant {self.number}: insider_epsilon_spent is {spent}, more than "
            f"insider_epsilon_charged, {charged}",
        )

    @property
    def counted_delta(self) -> float:
        """The part of delta that a sum over grants counts: of exact ones, their cap's, and once."""
        if self.cap:
            return self.cap[1]
        return 0.0 if self.exact else self.delta

    @property
    def counts(self) -> bool:
        """Whether it is part of what the ledger guarantees: it stands, or something is charged."""
        open_ = not (self.objection or self.closed or self.is_used)
        return open_ or self.epsilon_charged > 0.0

    @property
    def pledged(self) -> float:
        """The epsilon that was granted when data were used; see `privacy.Grant.pledged`."""
        return self.lowered_from or self.epsilon

    @property
    def counted_epsilon(self) -> float:
        """The epsilon that a guarantee counts it with: what is charged, where that is more.

        So it is after a recovery, or a use without noise. Exact grants count by their cap.
        """
        return self.pledged if self.exact else max(self.pledged, self.epsilon_charged)

    @property
    def counted_insider_epsilon(self) -> float:
        """The same against all other sites together, who see all that everyone sees."""
        granted, charged = self.insider_epsilon or 0.0, self.insider_epsilon_charged or 0.0
        return max(self.counted_epsilon, granted, charged)


class RunCharge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run in a site's ledger.

    Attributes:
        run: Run id.
        grant: Number of the grant it is charged to.
        purpose: What for.
        at: UTC time of the reservation.
        rounds_reserved: Trainings held, repeats included.
        rounds_trained: Round number of each training that began, in order.
        open: Whether the reservation still holds budget.
        plan: Digest of the settings that it was reserved for; of the run that is reported on.
            Absent of others, and in statements of earlier versions.
        event: What one of its rounds did, in `privacy`'s canonical form; likewise.
    """

    run: Text
    grant: Number
    purpose: Text
    at: Text
    rounds_reserved: Count
    rounds_trained: tuple[Count, ...]
    open: bool
    # Left out where unset, so that what sites signed with earlier versions is what they signed.
    plan: Text | msgspec.UnsetType = msgspec.UNSET
    event: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        """Holds what a round did to what a plan can be.

        Raises:
            RunError: It is no event that is known here.
        """
        if isinstance(self.event, dict):
            try:
                parse_event(self.event)
            except PlanError as error:
                raise RunError(f"what a round of {self.run} did cannot be read: {error}") from error


class RecoveryNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That a site's ledger lost records once, and an officer recorded what to charge for them.

    Attributes:
        at: UTC time of the officer's record.
        trainings: How many were charged.
    """

    at: Text
    trainings: Count


class SiteStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A site's statement of its ledger at the end of a run, signed by the site.

    Attributes:
        site: Its name.
        population: The custodian's name for the people concerned.
        unit: The ledger's unit.
        grants: Every grant.
        runs: Every run over the ledger's life, this one included.
        recoveries: Losses of records that an officer made up for.
        population_size: The largest number of units that a grant or run of the ledger has
            declared; absent if none has.
        epsilon_by_round: Epsilon spent of the grant after each training or answer of this run,
            cumulative over the ledger's life; by the grant's filter. Where they are charged to
            several grants, of all these together.
        epsilon_before: The same before this run began.
        pld_epsilon_run: This run alone by PLD, had its parameters been fixed in advance.
        pld_epsilon_life: The ledger's whole life by PLD.
        head_sequence: Number of records in the chain.
        head_digest: Digest of the last one: an anchor for whoever keeps it.
        verified: Whether chain, signatures and arithmetic verified when this was written.
        runs_left: How many more runs of this one's mechanism and length the ledger would admit;
            absent where it reserved nothing.
    """

    site: Text
    population: Text
    unit: Text
    grants: tuple[GrantRecord, ...]
    runs: tuple[RunCharge, ...]
    epsilon_by_round: tuple[Spent, ...]
    epsilon_before: Spent
    pld_epsilon_run: Spent
    pld_epsilon_life: Spent
    head_sequence: Number
    head_digest: Text
    verified: bool
    recoveries: tuple[RecoveryNote, ...] = ()
    population_size: Number | msgspec.UnsetType = msgspec.UNSET
    runs_left: Count | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        """Holds figures to their `ranges`, and to each other.

        Raises:
            RunError: A figure is impossible, or figures contradict each other.
        """
        require_figures(
            self, ("epsilon_by_round", "epsilon_before", "pld_epsilon_run", "pld_epsilon_life")
        )
        numbers = [grant.number for grant in self.grants]
        require(len(set(numbers)) == len(numbers), "two grants have one number")
        for charge in self.runs:
            require(
                charge.grant in numbers,
                f"a run is charged to grant {charge.grant}, and there is no such grant",
            )
        own = [charge.run for charge in self.runs if charge.run != ELSEWHERE]
        require(len(set(own)) == len(own), "a run is charged twice")
        require(grows(self.epsilon_by_round), "epsilon_by_round does not grow")


# Epsilons without a bound are infinite here and null in JSON, which knows no infinity.
EPSILONS = frozenset(
    {
        "epsilon_spent",
        "epsilon_charged",
        "epsilon_before",
        "epsilon_by_round",
        "pld_epsilon_run",
        "pld_epsilon_life",
    }
)
_METRICS: Final = frozenset({"metrics", "initial_metrics"})
_MOST_WORDS: Final = 300  # characters of why a statement is not shown
INSIDER_EPSILONS = frozenset({"insider_epsilon_spent", "insider_epsilon_charged"})


def read_statement(form: object) -> SiteStatement:
    """Read a site's statement as it came: JSON's or MessagePack's values.

    Raises:
        RunError: It has another form, a figure is impossible, or figures contradict each other.
            The text is for reports: printable, and no longer than a line or two.
    """
    try:
        return msgspec.convert(unbounded(form), prepared(SiteStatement))
    except (RunError, OverflowError, *MALFORMED) as error:
        text = "".join(c if c.isprintable() else "?" for c in str(error)[:_MOST_WORDS])
        raise RunError(text) from error


def unbounded(data: Any, *, is_epsilon: bool = False) -> Any:
    """JSON's values with null as what it says: of an epsilon no bound, of a metric no number."""
    if isinstance(data, dict):
        names = EPSILONS
        if data.get("insider_epsilon") is not None:  # else null says that there is no such figure
            names |= INSIDER_EPSILONS
        found = {k: unbounded(v, is_epsilon=k in names) for k, v in data.items()}
        for name in _METRICS & found.keys():
            if isinstance(found[name], dict):
                found[name] = {k: math.nan if v is None else v for k, v in found[name].items()}
        return found
    if isinstance(data, list):
        return [unbounded(value, is_epsilon=is_epsilon) for value in data]
    return math.inf if data is None and is_epsilon else data
