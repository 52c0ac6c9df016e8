"""Which grants of a ledger stand: those whose deltas, added up, leave a guarantee of use.

Deltas of a ledger's grants add up, as its epsilons do. The sum is at most 1 / (10 n), unless the
custodian has said in words why not, and below 1 whatever the words. A grant that breaks this is
refused when it is made. One that a ledger holds all the same (version 0.1.0 took any delta; a key
can sign any record) does not make the ledger unreadable: the grant is shown, *affords nothing*, and
as long as nothing is charged to it adds nothing to what the ledger guarantees.

**n is the largest size that any grant or run has declared,** which gives the smallest bound. A
smaller size declared later cannot loosen it for people who are in the data already, and a run that
is planned for more people than the ledger knew of tightens it.

A grant's reason speaks for the sum up to and including that grant. It does not raise an earlier one
that nobody gave a reason for, nor cover a later one. While what is *charged* comes to more than the
bound, and no reason speaks for it, no grant stands at all.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from fractions import Fraction

from privacy.ledger.grants import Grant
from privacy.limits import MAX_EPSILON, as_written, largest_delta


def objections(
    grants: Sequence[Grant], charged: Container[int], population_size: int | None
) -> list[str]:
    """For each grant why it affords nothing; an empty text where it stands.

    Args:
        grants: In order.
        charged: Numbers of those to which something is charged; their deltas count either way.
        population_size: The largest that was declared; None where none ever was, and then only
            what holds for every size is checked.
    """
    found: list[str] = []
    counted = Fraction(0)
    unexplained = ""
    for grant in grants:
        if grant.closed and grant.number not in charged and grant.cap is None:
            found.append("")  # nothing was released under it, and nothing ever will be
            continue
        total = counted + as_written(grant.counted_delta)
        objection = _objection(grant, total, population_size)
        if not objection or grant.number in charged:
            counted = total
        if objection and grant.number in charged:
            unexplained = f"grant {grant.number} is charged, and {objection}"
        elif not objection and grant.delta_reason:
            unexplained = ""
        found.append(objection)
    if counted >= 1:
        unexplained = "with what is charged, the deltas add up to 1 or more"
    return [text or unexplained for text in found]


def _objection(grant: Grant, total: Fraction, population_size: int | None) -> str:
    for name, epsilon in (
        ("epsilon", grant.epsilon),
        ("insider_epsilon", grant.insider_epsilon or 0.0),
    ):
        if epsilon > MAX_EPSILON:
            return f"{name} is {epsilon:g}, above {MAX_EPSILON:g}"
    summed = f"the deltas of the grants up to it add up to {float(total):.4g}"
    if total >= 1:
        return f"{summed}, and from 1 on nothing is guaranteed"
    if population_size is None or grant.delta_reason:
        return ""
    if not above_limit(total, population_size):
        return ""
    return (
        f"{summed}, above 1 / (10 x {population_size:,} declared units) = "
        f"{largest_delta(population_size):.4g}, and no reason is recorded"
    )


def above_limit(total: Fraction, population_size: int) -> bool:
    """Whether a sum of deltas is above 1 / (10 n), both as they are written in decimals."""
    return total > as_written(largest_delta(population_size))
