"""A custodian's acts on a population's ledger: begin it, permit, take back, let others sign.

And the officer, who settles what a ledger lost. Nothing here is asked by a run.

`Ledger` is this class and what a run may do; `fmfl-secure ledger grant` and its siblings, in
`cli.ledger_grants` and `cli.ledger_signers`, call it for a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from privacy.accounting.events import Event, NonPrivate
from privacy.accounting.exact import require_exact
from privacy.accounting.rdp import filter_orders
from privacy.errors import LedgerDamaged, LedgerError, PlanError
from privacy.ledger.budget import Budget
from privacy.ledger.chain import Signer, new_record, verify_chain
from privacy.ledger.charges import Charge
from privacy.ledger.decided import UNSAID, Decided
from privacy.ledger.entries import Recovery
from privacy.ledger.grants import ExactTerms, Grant
from privacy.ledger.tables import TABLES, insert, ledger_errors, open_ledger_store
from privacy.ledger.verified import VerifiedLedger
from privacy.limits import check_epsilon, check_population_size
from privacy.mechanism.plan import RELATION
from privacy.names import plain


class LedgerInCustody(VerifiedLedger):
    """A ledger as its custodian and the officer have it; runs charge the `Ledger` that it is."""

    @classmethod
    def create(
        cls,
        location: Path | str,
        *,
        population: str,
        unit: str,
        signer: Signer,
        public_key: bytes,
    ) -> Self:
        """Start a ledger for a population; its unit and relation are fixed from its first grant on.

        Args:
            location: Where; nothing may be there.
            population: The custodian's name for the people concerned.
            unit: `record` or the column that identifies units.
            signer: The site's identity.
            public_key: Its 32-byte Ed25519 public key.

        Raises:
            LedgerError: Something is there already, or the name holds what cannot be seen.
            LedgerUnavailable: It cannot be written, or would not survive a crash.
        """
        _check_population(population)
        body = {
            "population": population,
            "unit": unit,
            "relation": RELATION,
            "public_key": public_key.hex(),
        }
        record = new_record(previous=None, kind="open", body=body, signer=signer)
        try:
            Budget.replay(verify_chain([record.to_line()], public_key))
        except (LedgerDamaged, ValueError) as error:
            raise LedgerError(f"the signer and the public key do not agree: {error}") from error
        store = open_ledger_store(location)
        with ledger_errors(store), store.create(TABLES[store.dialect]) as transaction:
            insert(transaction, record)
        return cls(location, signer=signer)

    def grant(
        self,
        *,
        epsilon: float,
        delta: float,
        purpose: str = "",
        insider_epsilon: float | None = None,
        population_size: int | None = None,
        delta_reason: str = "",
        decided: Decided = UNSAID,
        first: bool = False,
    ) -> Grant:
        """Permit (epsilon, delta) to this population, on top of earlier grants.

        The deltas of all grants add up, and their sum is at most 1 / (10 n), n being the largest
        population size that was declared in this ledger (`privacy.ledger.standing`).

        Args:
            epsilon: Against everyone who sees what is released.
            delta: At this delta.
            purpose: For whoever reads the ledger.
            insider_epsilon: Permits shares of distributed noise, and so much against all other
                sites together; at least `epsilon`.
            population_size: Declared, rounded number of units of the population. None where an
                earlier grant or a run has declared it.
            delta_reason: Why the sum of deltas may be above 1 / (10 n), in the custodian's words,
                for whoever reads the ledger or a report. It is below 1 all the same.
            decided: Why this epsilon, who decided it, and when to look again.
            first: Refuse where the ledger has a grant already.

        Raises:
            LedgerError: It has one, and this was to be the first.
            PlanError: epsilon, delta, insider_epsilon or population_size is out of range; no
                population size was ever declared; or the sum of deltas is too large.
        """
        insider_orders: tuple[int, ...] = ()
        if insider_epsilon is not None:
            check_epsilon(insider_epsilon, "insider_epsilon")
            if insider_epsilon < epsilon:
                raise PlanError(
                    f"insider_epsilon is {insider_epsilon}, expected at least epsilon {epsilon}: "
                    "other sites see all that everyone sees"
                )
            insider_orders = filter_orders(insider_epsilon, delta)
        return self._permit(
            first=first,
            epsilon=epsilon,
            delta=delta,
            purpose=purpose,
            insider_epsilon=insider_epsilon,
            insider_orders=insider_orders,
            population_size=population_size,
            delta_reason=delta_reason,
            decided=decided,
        )

    def grant_exact(
        self,
        *,
        epsilon: float,
        delta: float,
        event: Event,
        rounds: int,
        plan: str,
        purpose: str = "",
        population_size: int | None = None,
        delta_reason: str = "",
        decided: Decided = UNSAID,
        cap: tuple[float, float] | None = None,
        first: bool = False,
    ) -> Grant:
        """Permit one run as it is fixed here, at its exact price: 9 to 13 % less noise.

        Only a reservation of the same event, trainings and plan is admitted to it, once, and
        whatever that does not use comes back to nobody.

        Args:
            epsilon: At least what the run costs.
            delta: At this delta.
            event: What one training does.
            rounds: Trainings, repeats included.
            plan: Digest of the plan that the run follows.
            purpose: For whoever reads the ledger.
            population_size: As in `grant`.
            delta_reason: As in `grant`.
            decided: As in `grant`.
            cap: Most epsilon and delta that all exact grants of this ledger may ever come to
                together; with the first of them, and then fixed. None takes this grant's own.
            first: Refuse where the ledger has a grant already.

        Raises:
            PlanError: A number is out of range, or the event has no exact price.
            LedgerError: The run costs more, or all exact grants together would go beyond their cap.
        """
        return self._permit(
            first=first,
            epsilon=epsilon,
            delta=delta,
            purpose=purpose,
            population_size=population_size,
            delta_reason=delta_reason,
            decided=decided,
            exact=ExactTerms(require_exact(event), rounds, plan),
            cap=cap,
        )

    def _permit(
        self,
        *,
        first: bool,
        epsilon: float,
        delta: float,
        delta_reason: str,
        **terms: Any,
    ) -> Grant:
        """Append a grant as it was asked for, with its number, where it may stand."""
        asked = Grant(
            number=0,
            epsilon=epsilon,
            delta=delta,
            orders=filter_orders(epsilon, delta),
            at="",
            delta_reason=delta_reason.strip(),
            **terms,
        )
        if asked.population_size is not None:
            check_population_size(asked.population_size)
        with self._transaction("grant") as (budget, append):
            if first:
                budget.require_first()
            cap = asked.cap
            if asked.exact is not None and cap is None and budget.exact_cap is None:
                cap = float(asked.epsilon), float(asked.delta)
            grant = replace(asked, number=len(budget.grants) + 1, cap=cap)
            budget.require_within_cap(grant)
            budget.require_grantable(grant)
            append("grant", grant.body())
        return self.budget().grants[grant.number - 1]

    def settle(self, *, population: str, unit: str) -> None:
        """Say whose ledger it is, in place of what was said when it was opened.

        Only while nothing was ever granted: from then on population and unit stay.

        Raises:
            LedgerError: Something was granted, or the name holds what cannot be seen.
        """
        _check_population(population)
        with self._transaction("settle") as (budget, append):
            budget.require_ungranted()
            append("settle", {"population": population, "unit": unit})

    def lower(
        self,
        grant: int,
        *,
        epsilon: float,
        reason: str,
        insider_epsilon: float | None = None,
    ) -> Grant:
        """Permit less of a grant from now on, and never less than is charged to it.

        Raises:
            PlanError: More than it permits now.
            LedgerError: There is no such open grant, more is charged to it, or no reason is given.
        """
        if not reason.strip():
            raise LedgerError("to lower a grant needs a reason")
        with self._transaction("lower") as (budget, append):
            changed = budget.lowered(grant, epsilon, insider_epsilon)
            body: dict[str, object] = {"grant": grant, "epsilon": float(epsilon).hex()}
            insider = changed.insider_epsilon
            if insider is not None:
                body["insider_epsilon"] = float(insider).hex()
            if grant not in budget.charged_grants():
                body["orders"] = list(filter_orders(epsilon, changed.filter_delta))
                if insider is not None:
                    body["insider_orders"] = list(filter_orders(insider, changed.filter_delta))
            append("lower", {**body, "reason": reason.strip()})
        return self.budget().grants[grant - 1]

    def close_grant(self, grant: int, *, reason: str) -> Grant:
        """Let nothing more be reserved of a grant. What is reserved already goes on.

        Raises:
            LedgerError: There is no such open grant, or no reason is given.
        """
        if not reason.strip():
            raise LedgerError("to close a grant needs a reason")
        with self._transaction("close") as (budget, append):
            budget.require_grant(grant)
            append("close", {"grant": grant, "reason": reason.strip()})
        return self.budget().grants[grant - 1]

    def admit(self, public_key: bytes, *, name: str, custodian: bool = False) -> None:
        """Let another identity sign in this ledger: of the same people's site elsewhere.

        Args:
            public_key: Its 32-byte Ed25519 key.
            name: The custodian's name for it.
            custodian: Whether it may grant, admit and dismiss as well.

        Raises:
            LedgerError: It may sign already, or has no name; or this identity is no custodian.
        """
        body = {"key": public_key.hex(), "name": name.strip(), **_flag(custodian)}
        with self._transaction("admit") as (budget, append):
            budget.signers.copy().admit(body["key"], body["name"], custodian)
            append("admit", body)

    def dismiss(self, public_key: bytes, *, reason: str) -> None:
        """Let an identity sign no more. What it charged stays, and what it reserved stays held.

        Raises:
            LedgerError: It does not sign here, is the last custodian, or no reason is given.
        """
        if not reason.strip():
            raise LedgerError("a dismissal needs a reason")
        with self._transaction("dismiss") as (budget, append):
            budget.signers.copy().dismiss(public_key.hex(), budget.sequence + 1)
            append("dismiss", {"key": public_key.hex(), "reason": reason.strip()})

    def recover(
        self,
        heads: Iterable[str],
        *,
        reason: str,
        losses: Sequence[tuple[int, Event, int]] | None,
    ) -> Recovery:
        """Record what to charge for a history that was lost, and settle the heads kept of it.

        The officer's decision, like a grant. In doubt, charge more: what was trained and is not
        charged here will be forgotten.

        Args:
            heads: Heads, `SEQUENCE:DIGEST`, that others kept and that this ledger lacks.
            reason: What happened, in the officer's words.
            losses: Grant, event and rounds of what was lost, worst case. None charges everything:
                no grant made so far affords anything any more.

        Raises:
            LedgerError: A head is in the ledger, so nothing was lost there, or no reason is given.
        """
        lost = sorted(set(heads))
        if not (lost and reason.strip()):
            raise LedgerError("a recovery needs the heads that were lost, and a reason")
        with self._transaction("recover") as (budget, append):
            for head in lost:
                if budget.holds(head):
                    raise LedgerError(f"{head} is in the ledger: nothing was lost there")
            if losses is None:
                unknown = NonPrivate("lost, and not known")
                losses = [(grant.number, unknown, 1) for grant in budget.grants]
            charges = []
            for number, event, rounds in losses:
                if not 1 <= number <= len(budget.grants):
                    raise LedgerError(f"grant {number} does not exist")
                charges.append(Charge.of(event, rounds, budget.grants[number - 1]).body())
            append("recover", {"heads": lost, "charges": charges, "reason": reason})
        return self.budget().recoveries[-1]


def _check_population(name: str) -> None:
    if name != plain(name) or not name:
        raise LedgerError(
            f"the population's name is {name!r}: empty, or with white space or other characters "
            "that nobody sees",
            hint="Two populations whose names look alike are two ledgers for the same people.",
        )


def _flag(custodian: bool) -> dict[str, bool]:
    return {"custodian": True} if custodian else {}
