"""A site's word about a release (step 9): from what to what it moves the adapter, if it verifies.

Only a site of the cohort can check the MAC, so it alone can say so. A site that was away takes
another's word for an adapter, once enough of those say the same that it pinned.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

import msgspec

from aggregation.errors import CohortError
from aggregation.protocol import messages
from aggregation.protocol.messages import Body, Bytes32
from aggregation.protocol.plan import Counter
from aggregation.protocol.round import FixedCohort

Outcome = Literal["verified", "refused", "lost"]
VERIFIED: Final = "verified"
REFUSED: Final = "refused"
LOST: Final = "lost"

_Digest = Annotated[str, msgspec.Meta(max_length=71)]


class Verdict(Body, frozen=True, forbid_unknown_fields=True):
    """A site's word on one attempt's release, and the adapter that follows.

    Attributes:
        plan: Digest of the plan.
        transcript: Of the attempt.
        federation: As in the plan.
        run: As in the plan.
        round: As in the plan.
        attempt: As in the plan.
        outcome: `verified`; `refused`, as the MAC does not fit; `lost` with this site's secrets,
            which could have told.
        before: `sha256:` of the adapter that the round started from.
        after: `sha256:` of the one that the sum gives; empty unless verified.
    """

    KIND: ClassVar[str] = "verdict"

    plan: Bytes32
    transcript: Bytes32
    federation: str
    run: str
    round: Counter
    attempt: Counter
    outcome: Outcome
    before: _Digest
    after: _Digest = ""


def verdict_on(cohort: FixedCohort, outcome: Outcome, after: str = "") -> Verdict:
    """Makes the verdict that a site of a cohort signs.

    Args:
        cohort: The verified cohort.
        outcome: What became of the release there.
        after: `sha256:` of the adapter that the sum gives, if it verified.

    Raises:
        CohortError: It is a rehearsal, which moves no adapter: there is no word on one.
    """
    plan = cohort.round.plan
    if cohort.round.is_rehearsal:
        raise CohortError("a rehearsal moves no adapter, and there is no word on one")
    return Verdict(
        plan=cohort.round.digest,
        transcript=cohort.transcript,
        federation=plan.federation,
        run=plan.run,
        round=plan.round,
        attempt=plan.attempt,
        outcome=outcome,
        before=plan.adapter_digest,
        after=after,
    )


def read_verdict(cohort: FixedCohort, message: bytes) -> tuple[str, Verdict]:
    """Verify a verdict.

    Returns:
        Whose it is, and what it says.

    Raises:
        RefusedError: Malformed, not by a site of the cohort, or about anything else.
    """
    name = messages.sender(message, Verdict.cap())
    verdict = messages.unseal(message, Verdict, cohort.member(name))
    if verdict != verdict_on(cohort, verdict.outcome, verdict.after):
        raise CohortError(f"the verdict of {name} is about another attempt")
    if bool(verdict.after) != (verdict.outcome == VERIFIED):
        raise CohortError(f"the verdict of {name} contradicts itself")
    return name, verdict
