"""Adds up a ledger's records: grants, reservations, and the budget that is left.

Pure arithmetic over verified records, no I/O. A reservation holds the worst case of a run from
before its data are read; each training of a round turns a part of it into a commit; closing it
gives back the rounds that never started. While it is open, all of it counts as spent.

| record | body | effect |
| --- | --- | --- |
| `open` | population, unit, relation, public_key | first record; fixed for the ledger's life |
| `settle` | population, unit | whose ledger it is, while nothing was granted |
| `admit`, `dismiss` | key, name; key, reason | who may sign from now on |
| `grant` | grant, epsilon, delta, orders, purpose | adds a budget with a filter of its own |
| `lower` | grant, epsilon, reason | permits less of it from now on, never less than is charged |
| `close` | grant, reason | nothing more is reserved of it |
| `reserve` | run, grant, event, rounds, cost, plan | charges rounds x cost to a grant |
| `commit` | run, round | one training of a round begins; consumes a reserved round |
| `refund` | run, rounds, evidence | closes the reservation, gives back unstarted rounds |
| `release` | run, rounds, reason | the same, by the ledger's owner |
| `expire` | run, rounds | the same, once its time is over |
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

`ledger.verified` replays a chain into a `Budget` whenever a ledger is read, or goes on from the
state it had. Planning and reports read the figures off it and never sum for themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from privacy.accounting.events import failure_of
from privacy.accounting.rdp import add_costs, epsilon_spent, fits, zero_cost
from privacy.errors import LedgerDamaged, LedgerError, PlanError, PolicyRefusal
from privacy.ledger.admissions import Admissions, fixes
from privacy.ledger.anchors import Anchor
from privacy.ledger.chain import Record
from privacy.ledger.charges import COST_TOLERANCE, Charge
from privacy.ledger.datasets import parse_dataset
from privacy.ledger.entries import Recovery, Reservation, Spend
from privacy.ledger.grants import Grant
from privacy.ledger.heads import missing_heads, parse_head
from privacy.ledger.record_values import declared_size, read_orders, text, whole
from privacy.ledger.signers import OPENER, Signers
from privacy.ledger.times import read_time
from privacy.mechanism.plan import RELATION
from privacy.names import plain

EXPIRED = "expired"  # `Reservation.released` of one that nobody closed in its time


class Budget(Admissions):
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
        after.signers = self.signers.copy()
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
        if (record.sequence == 1) != (record.kind == "open"):
            raise LedgerDamaged("the first record, and only it, opens the ledger")
        if record.kind not in _EFFECTS:
            raise LedgerDamaged(f"record kind {record.kind!r} is unknown, so its cost is unknown")
        _EFFECTS[record.kind](self, dict(record.body), record)

    def _open(self, body: dict[str, Any], _: Record) -> None:
        if body["relation"] != RELATION:
            raise LedgerDamaged(f"unknown neighbouring relation {body['relation']!r}")
        self.population, self.unit = str(body["population"]), str(body["unit"])
        self.public_key = bytes.fromhex(body["public_key"])
        self.signers = Signers(self.public_key)

    def _settle(self, body: dict[str, Any], _: Record) -> None:
        self.require_ungranted()
        self.population, self.unit = text(body["population"]), text(body["unit"])

    def _grant(self, body: dict[str, Any], record: Record) -> None:
        grant = Grant.parse(body, record.at)
        if grant.number != len(self.grants) + 1:
            raise LedgerDamaged(f"grant {grant.number} is out of order")
        self.require_within_cap(grant, recorded=True)
        self.grants.append(grant)
        self.population_size = self.largest_size(grant.population_size)
        self._committed[grant.number] = zero_cost(grant.orders)
        self._insider_committed[grant.number] = zero_cost(grant.insider_orders)

    def _lower(self, body: dict[str, Any], _: Record) -> None:
        insider = body.get("insider_epsilon")
        changed = self.lowered(
            whole(body["grant"]),
            float.fromhex(body["epsilon"]),
            None if insider is None else float.fromhex(insider),
            orders=read_orders(body.get("orders", ())),
            insider_orders=read_orders(body.get("insider_orders", ())),
            recorded=True,
        )
        if changed.orders != self.grants[changed.number - 1].orders:
            self._committed[changed.number] = zero_cost(changed.orders)
            self._insider_committed[changed.number] = zero_cost(changed.insider_orders)
        self.grants[changed.number - 1] = changed

    def _close_grant(self, body: dict[str, Any], _: Record) -> None:
        grant = self.require_grant(whole(body["grant"]))
        reason = text(body["reason"]).strip()
        if not reason:
            raise LedgerDamaged("a grant is closed for no reason")
        self.grants[grant.number - 1] = replace(grant, closed=reason)

    def _reserve(self, body: dict[str, Any], record: Record) -> None:
        charge, run = Charge.parse(body, self.grants), str(body["run"])
        if run in self.reservations:
            raise LedgerDamaged(f"run {run} reserves twice")
        # Judged by the costs recorded so far, without today's margins: what was admitted once
        # stays admitted when a library's rounding moves.
        grant = self.require_grant(charge.grant)
        held = self._sums(grant, recorded=True)
        asked = add_costs(held.charged, charge.cost.recorded, charge.rounds)
        fitting = fits(asked, grant.epsilon, grant.filter_delta, margin=0.0)
        if grant.insider_epsilon is not None:
            seen = add_costs(held.insider_charged, charge.insider_cost.recorded, charge.rounds)
            fitting &= fits(seen, grant.insider_epsilon, grant.filter_delta, margin=0.0)
        fitting &= held.failures + charge.rounds * failure_of(charge.event) <= grant.failures
        if grant.exact is not None:  # for this run and no other, once
            own = fixes(grant, charge.event, charge.rounds, str(body["plan"]))
            fitting = own and not held.is_used
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
            at=record.at,
            dataset=dataset,
            population_size=size,
            expires=_expiry(body),
            call=text(body.get("call", "")),
            signer=signer_of(record),
        )
        self.population_size = self.largest_size(size)

    def _commit(self, body: dict[str, Any], record: Record) -> None:
        held = self.require_commit(str(body["run"]), _time_of(record))
        self.require_own(held, signer_of(record))
        number = whole(body["round"])
        held.commits.append((number, record.at))
        self._spend(held.charge, 1, run=held.run, round_number=number, at=record.at)

    def _close(self, body: dict[str, Any], record: Record) -> None:
        held = self.require_open(str(body["run"]))
        if whole(body["rounds"]) != held.remaining_rounds:
            raise LedgerDamaged(f"a {record.kind} gives back other than the unstarted rounds")
        if record.kind != "expire":  # which anybody may note
            self.require_own(held, signer_of(record))
        if record.kind == "refund":
            held.evidence = str(body["evidence"])
        elif record.kind == "release":
            held.released = text(body["reason"]).strip()
            if not held.released:
                raise LedgerDamaged("a release gives no reason")
        elif held.has_expired(_time_of(record)):
            held.released = EXPIRED
        else:
            raise LedgerDamaged(f"run {held.run} is closed as expired before its time")
        held.open = False

    def _spend(self, charge: Charge, times: int, *, run: str, round_number: int, at: str) -> None:
        number = charge.grant
        after = add_costs(self._committed[number], charge.cost.counted, times)
        seen = add_costs(self._insider_committed[number], charge.insider_cost.counted, times)
        self._committed[number], self._insider_committed[number] = after, seen
        grant = self.grants[number - 1]
        epsilon = epsilon_spent(after, grant.filter_delta)
        if grant.exact is not None:
            epsilon = self._sums(grant).epsilon_committed
        self.history.append(Spend(run, round_number, number, epsilon, at))

    def _recover(self, body: dict[str, Any], record: Record) -> None:
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
            at=record.at,
        )
        for charge in recovery.charges:
            self._spend(charge, charge.rounds, run="", round_number=0, at=record.at)
        self.recoveries.append(recovery)

    def _exhaust(self, body: dict[str, Any], _: Record) -> None:
        self.non_private.append(str(body["run"]))

    def _change_signers(self, _: dict[str, Any], record: Record) -> None:
        self.signers.apply(record)

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
        """Heads of the anchors that are of this population and signed by who signs here."""
        return [
            anchor.head
            for anchor in anchors
            if plain(anchor.population) == plain(self.population)
            and self.signers.vouches(anchor.public_key, anchor.sequence)
        ]

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


def signer_of(record: Record) -> str:
    """How a record names who signed it."""
    return text(record.body.get("signer", OPENER))


def _time_of(record: Record) -> datetime:
    return datetime.fromisoformat(record.at)


def _expiry(body: dict[str, Any]) -> str:
    expires = text(body.get("expires", ""))
    if expires:
        read_time(expires)
    return expires


_EFFECTS: Final[Mapping[str, Callable[[Budget, dict[str, Any], Record], None]]] = {
    "open": Budget._open,
    "admit": Budget._change_signers,
    "dismiss": Budget._change_signers,
    "settle": Budget._settle,
    "grant": Budget._grant,
    "lower": Budget._lower,
    "close": Budget._close_grant,
    "reserve": Budget._reserve,
    "commit": Budget._commit,
    "refund": Budget._close,
    "release": Budget._close,
    "expire": Budget._close,
    "recover": Budget._recover,
    "non-private": Budget._exhaust,
}
