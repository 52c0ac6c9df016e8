"""What a ledger's records add up to: grants, reservations, and what is left.

Pure arithmetic over verified records, no I/O. A reservation holds the worst case of a run from
before its data are read; each training of a round turns a part of it into a commit; closing it
gives back the rounds that never started. While it is open, all of it counts as spent.

| record | body | effect |
| --- | --- | --- |
| `open` | population, unit, relation, public_key | first record; fixed for the ledger's life |
| `grant` | grant, epsilon, delta, orders, purpose | adds a budget with a filter of its own |
| `reserve` | run, grant, event, rounds, cost, plan | charges rounds x cost to a grant |
| `commit` | run, round | one training of a round begins; consumes a reserved round |
| `refund` | run, rounds, evidence | closes the reservation, gives back unstarted rounds |
| `recover` | heads, charges, reason | charges what a lost history spent; settles its heads |
| `non-private` | run, reason | infinite cost: exhausts every grant |

**Two figures.** Shares of distributed noise (`docs/distributed-noise.md`) cost less to everyone who
sees released sums than to all other sites together. A grant that names `insider_epsilon` permits
them: it then keeps a second filter for what other sites learn, in which every event counts, and
sets a part of its delta apart. Other grants permit noise of the site's own only.

Grants compose by addition: with grants (e1, d1) and (e2, d2) the ledger's guarantee is
(e1 + e2, d1 + d2). Which of them stand, by the size of the population, is said in
`privacy.ledger.standing`; a grant and a reservation may declare that size, and a grant may give a
reason for its delta. The data set of a reservation is optional, too (`privacy.ledger.datasets`).

**Replay does not depend on the accountant's version.** A grant's orders are the ones it recorded:
the filter is sound at whatever orders were fixed before data were used, delta being shared among
them. Whether a reservation was admitted rightly is judged by the costs that were recorded then,
which are whole numbers. What they count for from then on is the recorded cost or today's,
whichever is more; a recorded cost that is not the event's at all is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from privacy.accounting.affordability import Headroom, largest_run
from privacy.accounting.events import Event, NonPrivate, failure_of
from privacy.accounting.rdp import add_costs, epsilon_spent, fits, zero_cost
from privacy.errors import BudgetExhausted, LedgerDamaged, LedgerError, PlanError, PolicyRefusal
from privacy.ledger.anchors import Anchor
from privacy.ledger.chain import Record
from privacy.ledger.datasets import Dataset, parse_dataset
from privacy.ledger.entries import (
    COST_TOLERANCE,
    Charge,
    Grant,
    Recovery,
    Reservation,
    Spend,
    declared_size,
    whole,
)
from privacy.ledger.heads import missing_heads, parse_head
from privacy.ledger.standing import objections
from privacy.ledger.totals import Totals
from privacy.limits import check_population_delta
from privacy.mechanism.plan import RELATION
from privacy.names import plain

_MEND = (
    "Have the custodian grant anew, at a delta that keeps the sum within 1 / (10 x the declared "
    "size), or with a reason: fmfl-secure ledger grant --delta-reason."
)


class Budget(Totals):
    """The state that a chain's records add up to, and what it lets happen next."""

    @classmethod
    def replay(cls, records: Iterable[Record]) -> Budget:
        """Add up verified records.

        Raises:
            LedgerDamaged: A record's kind is unknown, its body malformed, or it contradicts the
                ones before it.
        """
        return cls()._continued(records)

    def continued(self, records: Sequence[Record]) -> Budget:
        """The state after more verified records, of which the first follows this state's last.

        This state stays as it is.

        Raises:
            LedgerDamaged: As in `replay`.
        """
        after = copy.copy(self)
        for name in ("grants", "recoveries", "non_private", "history", "_digests"):
            setattr(after, name, list(getattr(self, name)))
        after._committed = dict(self._committed)
        after._insider_committed = dict(self._insider_committed)
        after.reservations = {
            run: replace(held, commits=list(held.commits))
            for run, held in self.reservations.items()
        }
        return after._continued(records)

    def follows(self, records: Sequence[Record]) -> bool:
        """Whether this is the state after the first of these verified records.

        A record's digest covers the one before it, so the last digest speaks for all.
        """
        count = len(self._digests)
        return 0 < count <= len(records) and records[count - 1].digest == self._digests[-1]

    @property
    def sequence(self) -> int:
        """How many records led here."""
        return len(self._digests)

    def _continued(self, records: Iterable[Record]) -> Budget:
        budget = self
        for record in records:
            try:
                budget._apply(record)
            except (
                KeyError,
                TypeError,
                ValueError,
                AttributeError,
                ArithmeticError,
                PlanError,
                PolicyRefusal,
                LedgerError,
            ) as error:
                if isinstance(error, LedgerDamaged):
                    raise
                raise LedgerDamaged(
                    f"record {record.sequence} ({record.kind}) does not add up: {error!r}"
                ) from error
            budget._digests.append(record.digest)
        return budget

    # Each step below both checks a record that is about to be written and replays a stored one.

    def _apply(self, record: Record) -> None:
        body = dict(record.body)
        if (record.sequence == 1) != (record.kind == "open"):
            raise LedgerDamaged("the first record, and only it, opens the ledger")
        if record.kind == "open":
            if body["relation"] != RELATION:
                raise LedgerDamaged(f"unknown neighbouring relation {body['relation']!r}")
            self.population, self.unit = str(body["population"]), str(body["unit"])
            self.public_key = bytes.fromhex(body["public_key"])
        elif record.kind == "grant":
            grant = Grant.parse(body, record.at)
            if grant.number != len(self.grants) + 1:
                raise LedgerDamaged(f"grant {grant.number} is out of order")
            self.grants.append(grant)
            self.population_size = self.largest_size(grant.population_size)
            self._committed[grant.number] = zero_cost(grant.orders)
            self._insider_committed[grant.number] = zero_cost(grant.insider_orders)
        elif record.kind == "reserve":
            self._reserve(body, record.at)
        elif record.kind == "commit":
            reservation = self.require_commit(str(body["run"]))
            self._commit(reservation, whole(body["round"]), record.at)
        elif record.kind == "refund":
            reservation = self.require_open(str(body["run"]))
            if whole(body["rounds"]) != reservation.remaining_rounds:
                raise LedgerDamaged("a refund gives back other than the unstarted rounds")
            reservation.open, reservation.evidence = False, str(body["evidence"])
        elif record.kind == "recover":
            self._recover(body, record.at)
        elif record.kind == "non-private":
            self.non_private.append(str(body["run"]))
        else:
            raise LedgerDamaged(f"record kind {record.kind!r} is unknown, so its cost is unknown")

    def _reserve(self, body: dict[str, Any], at: str) -> None:
        charge, run = Charge.parse(body, self.grants), str(body["run"])
        if run in self.reservations:
            raise LedgerDamaged(f"run {run} reserves twice")
        # Judged by the costs recorded so far, without today's margins: what was admitted once
        # stays admitted when a library's rounding moves.
        grant = self.grants[charge.grant - 1]
        held = self._sums(grant, recorded=True)
        asked = add_costs(held.charged, charge.cost.recorded, charge.rounds)
        fitting = fits(asked, grant.epsilon, grant.filter_delta, margin=0.0)
        if grant.insider_epsilon is not None:
            seen = add_costs(held.insider_charged, charge.insider_cost.recorded, charge.rounds)
            fitting &= fits(seen, grant.insider_epsilon, grant.filter_delta, margin=0.0)
        fitting &= held.failures + charge.rounds * failure_of(charge.event) <= grant.failures
        if self.non_private or not fitting:
            raise LedgerDamaged(f"run {run} reserves more than grant {grant.number} has left")
        size = declared_size(body)
        if size is not None:  # by a version that asks whether the grant stands
            objection = self.status(population_size=size)[grant.number - 1].objection
            if objection:
                raise LedgerDamaged(f"run {run} reserves of grant {grant.number}: {objection}")
        dataset = parse_dataset(body["dataset"]) if "dataset" in body else None
        headroom = self.headroom(dataset, slack=COST_TOLERANCE)
        self._require_dataset(dataset, charge.event, charge.rounds, headroom)
        self.reservations[run] = Reservation(
            run=run,
            charge=charge,
            plan=str(body["plan"]),
            purpose=str(body["purpose"]),
            at=at,
            dataset=dataset,
            population_size=size,
        )
        self.population_size = self.largest_size(size)

    def _commit(self, reservation: Reservation, round_number: int, at: str) -> None:
        reservation.commits.append((round_number, at))
        self._spend(reservation.charge, 1, run=reservation.run, round_number=round_number, at=at)

    def _spend(self, charge: Charge, times: int, *, run: str, round_number: int, at: str) -> None:
        number = charge.grant
        after = add_costs(self._committed[number], charge.cost.counted, times)
        seen = add_costs(self._insider_committed[number], charge.insider_cost.counted, times)
        self._committed[number], self._insider_committed[number] = after, seen
        epsilon = epsilon_spent(after, self.grants[number - 1].filter_delta)
        self.history.append(Spend(run, round_number, number, epsilon, at))

    def _recover(self, body: dict[str, Any], at: str) -> None:
        heads, charges = body["heads"], body["charges"]
        if not (isinstance(heads, list) and heads and isinstance(charges, list)):
            raise LedgerDamaged("a recovery names no heads, or its charges are not a list")
        for head in heads:
            if self.holds(head):
                raise LedgerDamaged(f"a recovery names {head}, which is in the ledger")
        recovery = Recovery(
            heads=tuple(heads),
            charges=tuple(Charge.parse(charge, self.grants) for charge in charges),
            reason=str(body["reason"]),
            at=at,
        )
        for charge in recovery.charges:
            self._spend(charge, charge.rounds, run="", round_number=0, at=at)
        self.recoveries.append(recovery)

    # Heads that others kept.

    def holds(self, head: str) -> bool:
        """Whether a head, `SEQUENCE:DIGEST`, is in the ledger or a recovery has settled it.

        Raises:
            LedgerError: It is not a head.
        """
        sequence, digest = parse_head(head)
        if sequence <= len(self._digests) and self._digests[sequence - 1] == digest:
            return True
        return any(head in recovery.heads for recovery in self.recoveries)

    def require_heads(self, heads: Sequence[str]) -> None:
        """Check that the ledger holds every head that others kept of it.

        Raises:
            LedgerError: One is not a head.
            LedgerLocked: It lacks some: it was truncated, rolled back or forked since.
        """
        lacking = tuple(head for head in heads if not self.holds(head))
        if not lacking:
            return
        raise missing_heads(lacking, of=len(heads), end=len(self._digests))

    def own_heads(self, anchors: Iterable[Anchor]) -> list[str]:
        """Heads of the anchors that are of this population and signed by this site."""
        mine = (plain(self.population), self.public_key.hex())
        return [a.head for a in anchors if (plain(a.population), a.public_key) == mine]

    def require_anchors(self, anchors: Iterable[Anchor]) -> int:
        """Check that the ledger holds the heads of all anchors that are its own.

        Returns:
            How many are.

        Raises:
            LedgerLocked: It lacks some.
        """
        heads = self.own_heads(anchors)
        self.require_heads(heads)
        return len(heads)

    # What a run may do.

    def require_open(self, run: str) -> Reservation:
        """The open reservation of a run.

        Raises:
            LedgerError: There is none.
        """
        reservation = self.reservations.get(run)
        if reservation is None or not reservation.open:
            raise LedgerError(
                f"run {run} has no open reservation",
                hint="A run reserves its whole budget before it reads data.",
            )
        return reservation

    def require_commit(self, run: str) -> Reservation:
        """The reservation, if one more training may begin under it.

        Raises:
            LedgerError: No open reservation, or nothing of it is left.
        """
        reservation = self.require_open(run)
        if self.non_private:
            raise LedgerError("a non-private use exhausted this ledger")
        if reservation.remaining_rounds < 1:
            raise BudgetExhausted(
                f"run {reservation.run} reserved {reservation.rounds} rounds, repeats included, "
                "and has begun them all",
                asked_rounds=1,
                affordable_rounds=0,
                hint="Too many rounds were lost to crashes; raise privacy.repeats for a new run.",
            )
        return reservation

    def require_grantable(self, grant: Grant) -> None:
        """Check that a grant would stand, which is about to be made.

        Raises:
            PlanError: The size of the population was never declared; or the deltas, this one
                added, are above 1 / (10 x the largest size declared) and the grant gives no reason
                for that, or are 1 or more.
        """
        size = self.largest_size(grant.population_size)
        if size is None:
            raise PlanError(
                "a grant needs the declared size of its population, which bounds its delta",
                hint="--population-size: the rounded number of units, as federation.toml has it.",
            )
        objection = objections([*self.grants, grant], self.charged_grants(), size)[-1]
        if objection:
            raise PlanError(
                f"grant {grant.number} of epsilon {grant.epsilon:g} at delta {grant.delta:g} is "
                f"refused: {objection}",
                hint=(
                    "Grant at a smaller delta, or say in words why so much is acceptable: "
                    "--delta-reason. The reason stands in the ledger and in every report."
                ),
            )

    def require_affordable(
        self,
        event: Event,
        rounds: int,
        *,
        dataset: Dataset | None = None,
        population_size: int | None = None,
    ) -> int:
        """The number of the first grant that still covers so many of this event.

        Args:
            event: What one round does.
            rounds: How many.
            dataset: The data set; its cap, if it has one, has to cover it too.
            population_size: Units that the run declares.

        Raises:
            BudgetExhausted: No grant does; or none that does stands.
            PolicyRefusal: The data set's cap does not.
            PlanError: The data set's cap is at a delta above 1 / (10 x the declared size).
        """
        size = self.largest_size(population_size)
        if size is not None and dataset is not None and dataset.cap is not None:
            check_population_delta(dataset.cap.delta, size, "the data set's max_delta_per_dataset")
        headroom = self.headroom(dataset, population_size=population_size)
        covering = [n for n, a in enumerate(headroom.grants, start=1) if a.admits(event, rounds)]
        if not covering:
            raise self._exhausted(event, rounds, headroom, population_size)
        self._require_dataset(dataset, event, rounds, headroom)
        return covering[0]

    def require_standing(self, held: Reservation, population_size: int | None) -> None:
        """Check that the grant of a reservation stands that was held before anybody asked.

        Raises:
            BudgetExhausted: It does not.
        """
        status = self.status(population_size=population_size)[held.grant - 1]
        if held.population_size is None and status.objection:
            raise BudgetExhausted(
                f"run {held.run} holds rounds of grant {held.grant}, which affords nothing: "
                f"{status.objection}",
                asked_rounds=held.remaining_rounds,
                affordable_rounds=0,
                hint=_MEND,
            )

    def require_still_capped(self, held: Reservation, dataset: Dataset | None) -> None:
        """Check a reservation that is held against its data set's cap as it is now.

        Raises:
            PolicyRefusal: The cap was lowered below what is charged.
        """
        self._require_dataset(dataset, held.event, 0, self.headroom(dataset))

    def _require_dataset(
        self, dataset: Dataset | None, event: Event, rounds: int, headroom: Headroom
    ) -> None:
        own, cap = headroom.dataset, None if dataset is None else dataset.cap
        if dataset is None or cap is None or own is None or own.admits(event, rounds):
            return
        raise PolicyRefusal(
            "epsilon_per_dataset",
            f"data set {dataset.name!r} may cost epsilon {cap.epsilon:g} at delta {cap.delta:g}, "
            f"and runs on it hold {own.epsilon_spent:.4f}: "
            + (f"{_count(rounds)} more would go beyond" if rounds else "that is above it already"),
            hint=largest_run(event, rounds, headroom) if rounds else "Raise the data set's cap.",
        )

    def _exhausted(
        self, event: Event, rounds: int, headroom: Headroom, population_size: int | None
    ) -> BudgetExhausted:
        statuses = self.status(population_size=population_size)
        left = "; ".join(
            f"grant {s.grant.number} affords nothing: {s.objection}"
            if s.objection
            else f"grant {s.grant.number}: {s.epsilon_charged:.4f} of epsilon {s.grant.epsilon:g} "
            f"at delta {s.grant.delta:g} is spent or reserved"
            for s in statuses
        )
        objected = any(s.objection for s in statuses)
        asked = "a non-private use" if isinstance(event, NonPrivate) else _count(rounds)
        return BudgetExhausted(
            f"population {self.population!r} cannot afford {asked} ({left or 'nothing granted'})",
            asked_rounds=rounds,
            affordable_rounds=headroom.rounds(event),
            hint=_MEND if objected else largest_run(event, rounds, headroom),
        )


def _count(rounds: int) -> str:
    return "1 round" if rounds == 1 else f"{rounds} rounds"
