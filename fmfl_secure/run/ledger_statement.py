"""Makes a site's statement of its ledger, for a report, and its signature under it.

`parties.site` describes its ledger with `describe_ledger` and signs that when it joins a run and
when it ends; `runtime.inbox` and `report.signed` check a signature with `verify_statement`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from aggregation import Identity, PublicIdentity
from fmfl_secure.planning.terms import reservations_of
from fmfl_secure.run.statement import ELSEWHERE, GrantRecord, RecoveryNote, RunCharge, SiteStatement
from privacy import Budget, GrantStatus, Ledger, Reservation, pld_epsilon

_DOMAIN = b"fmfl-secure/site-statement/v1\x00"


def sign_statement(identity: Identity, statement: SiteStatement) -> str:
    """A site's Ed25519 signature under its statement, in hexadecimal."""
    return identity.sign(_DOMAIN + _canonical(statement)).hex()


def verify_statement(identity: PublicIdentity, statement: SiteStatement, signature: str) -> None:
    """Check a statement from a report against the key of the site it names.

    Raises:
        AggregationError: The signature is not the site's under this statement.
    """
    try:
        raw = bytes.fromhex(signature)
    except ValueError:
        raw = b""
    identity.verify(raw, _DOMAIN + _canonical(statement))


def _canonical(statement: SiteStatement) -> bytes:
    return msgspec.json.encode(statement, order="sorted")


def grant_record(status: GrantStatus) -> GrantRecord:
    """A grant and what has become of it, as reports show it."""
    grant = status.grant
    return GrantRecord(
        number=grant.number,
        epsilon=grant.epsilon,
        delta=grant.delta,
        purpose=grant.purpose,
        at=grant.at,
        epsilon_spent=status.epsilon_committed,
        epsilon_charged=status.epsilon_charged,
        epsilon_left=status.epsilon_left,
        insider_epsilon=grant.insider_epsilon,
        insider_epsilon_spent=status.insider_epsilon_committed,
        insider_epsilon_charged=status.insider_epsilon_charged,
        population_size=grant.population_size or msgspec.UNSET,
        delta_reason=grant.delta_reason or msgspec.UNSET,
        rationale=grant.decided.rationale or msgspec.UNSET,
        decided_by=grant.decided.by or msgspec.UNSET,
        review_on=grant.decided.review_on or msgspec.UNSET,
        objection=status.objection or msgspec.UNSET,
        lowered_from=grant.lowered_from or msgspec.UNSET,
        closed=grant.closed or msgspec.UNSET,
        exact=True if grant.exact else msgspec.UNSET,
        is_used=True if status.is_used else msgspec.UNSET,
        cap=grant.cap or msgspec.UNSET,
    )


def describe_ledger(
    ledger: Ledger, *, site: str, run: str, identity: PublicIdentity | None = None
) -> SiteStatement:
    """A ledger as a report shows it.

    Where several federations charge one ledger, each report has the figures of all runs, and of
    another federation's neither id nor purpose: who else uses the data is not this one's to tell.

    Args:
        ledger: The ledger.
        site: Whose.
        run: The run that is reported on; may be empty.
        identity: With which the site signs there; None where it opened the ledger.

    Raises:
        LedgerDamaged: It does not verify.
    """
    budget, head = ledger.state()
    own_name = budget.signers.name_of(identity.key if identity else budget.public_key)
    names = reservations_of(run)  # of its training, and of its answers
    held = [budget.reservations[name] for name in names if name in budget.reservations]
    own = [spend for spend in budget.history if spend.run in names]
    grants = {spend.grant for spend in own} or {held[0].grant if held else 1}
    # What training and answers charged to several grants adds up.
    spent = {
        s.grant: s.epsilon
        for s in budget.history
        if s.grant in grants and s.run not in names and (not own or s.at <= own[0].at)
    }
    before, by_round = math.fsum(spent.values()), []
    for spend in own:
        spent[spend.grant] = spend.epsilon
        by_round.append(math.fsum(spent.values()))
    _, delta = budget.guarantee()
    return SiteStatement(
        site=site,
        population=budget.population,
        unit=budget.unit,
        grants=tuple(grant_record(status) for status in budget.status()),
        runs=tuple(
            _charge_of(
                reservation,
                is_own=reservation.signer == own_name,
                is_reported=reservation.run in names,
            )
            for reservation in budget.reservations.values()
        ),
        epsilon_by_round=tuple(by_round),
        epsilon_before=before,
        pld_epsilon_run=pld_epsilon([e for n in names for e in budget.events(n)], delta),
        pld_epsilon_life=pld_epsilon(budget.events(), delta),
        head_sequence=head.sequence,
        head_digest=head.digest,
        verified=True,
        recoveries=tuple(
            RecoveryNote(recovery.at, sum(charge.rounds for charge in recovery.charges))
            for recovery in budget.recoveries
        ),
        population_size=budget.population_size or msgspec.UNSET,
        runs_left=_runs_left(budget, held) if held else msgspec.UNSET,
    )


def _charge_of(reservation: Reservation, *, is_own: bool, is_reported: bool) -> RunCharge:
    """A run as a statement tells of it: of the one reported on, what it was reserved for too."""
    is_told = is_own and is_reported
    return RunCharge(
        run=reservation.run if is_own else ELSEWHERE,
        grant=reservation.grant,
        purpose=reservation.purpose if is_own else "",
        at=reservation.at,
        rounds_reserved=reservation.rounds,
        rounds_trained=tuple(number for number, _ in reservation.commits),
        open=reservation.open,
        plan=reservation.plan if is_told else msgspec.UNSET,
        event=reservation.event.canonical() if is_told else msgspec.UNSET,
    )


def _runs_left(budget: Budget, like: Sequence[Reservation]) -> int:
    """How many more runs of the same mechanisms and lengths would be admitted, answers and all."""
    headroom = budget.headroom(like[0].dataset, population_size=like[0].population_size)
    return headroom.runs([(each.event, each.rounds) for each in like])
