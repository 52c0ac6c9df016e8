"""The coordinator: plans a round, fixes its cohort, checks what is released.

It holds no secret but its signing key. What it may do wrong is equivocate, and then the parties
derive different masks and the attempt fails.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from aggregation.crypto.identity import Identity
from aggregation.errors import CohortError, PlanError, RoleError, StateError
from aggregation.protocol import checks, messages
from aggregation.protocol.cohort_rule import effective_cohort
from aggregation.protocol.messages import Cohort, Ready
from aggregation.protocol.plan import Member, RoundPlan
from aggregation.protocol.round import FixedCohort, Round


class Coordinator:
    """Steps 1, 4 and 9 of a round, for any number of rounds.

    1. `plan` signs a plan.
    4. `check_ready` looks at each ready message as it comes; `cohort` fixes the cohort, once.
    9. `verify` checks a release.

    The caller carries the bytes, keeps track of time, and sends a release to the sites and to
    nobody else: the aggregator has no use for it.
    """

    def __init__(self, identity: Identity) -> None:
        if not isinstance(identity, Identity):
            raise RoleError("a coordinator holds an Identity and nothing else that is secret")
        self._identity = identity
        self._cohorts: dict[bytes, bytes] = {}
        self._plans: dict[bytes, bytes] = {}

    def plan(self, plan: RoundPlan) -> bytes:
        """Sign a plan (step 1).

        Raises:
            PlanError: It names another coordinator, or its weights are worth too few sites.
            MessageError: A field has another type or is out of range.
        """
        if plan.coordinator != self._identity.public:
            raise PlanError(f"the plan's coordinator is {plan.coordinator.name}, not this one")
        if effective_cohort(plan.members) < plan.min_cohort:
            raise PlanError(f"the weights are worth fewer sites than min_cohort {plan.min_cohort}")
        message = messages.seal(self._identity, plan)
        # Read back: a constructor checks no types and no ranges, the wire does.
        self._round(message)
        self._plans[messages.digest(message)] = message
        return message

    def check_ready(self, plan_message: bytes, ready: bytes) -> str:
        """Verify one ready message on arrival (step 4) and return its sender's name.

        Raises:
            RefusedError: It must not go into a cohort.
        """
        member, _ = checks.read_ready(self._round(plan_message), ready)
        return member.identity.name

    def cohort(
        self,
        plan_message: bytes,
        announcement: bytes,
        readies: Iterable[bytes],
        custodians: Iterable[bytes] = (),
    ) -> bytes:
        """Fix the cohort (step 4).

        Args:
            plan_message: The signed plan.
            announcement: The decryptor's message.
            readies: Ready messages in any order, one a member.
            custodians: Those of the plan's custodians, in the plan's order.

        Raises:
            StateError: Another cohort was fixed for this plan.
            RefusedError: A message does not hold, or too few sites are ready.
        """
        round_ = self._round(plan_message)
        names = [m.identity.name for m in round_.plan.members]
        by_name: dict[str, bytes] = {}
        for ready in readies:
            claimed = messages.sender(ready, Ready.CAP)
            if claimed not in names:
                raise CohortError("a ready message comes from nobody the plan invites")
            if by_name.setdefault(claimed, ready) != ready:
                raise CohortError(f"{claimed} sent two ready messages")
        ordered = tuple(by_name[name] for name in names if name in by_name)
        body = Cohort(round_.digest, announcement, ordered, tuple(custodians))
        message = messages.seal(self._identity, body)
        checks.read_cohort(round_, message)  # verifies all that is in it
        if self._cohorts.setdefault(round_.digest, message) != message:
            raise StateError("another cohort was fixed for this plan; make a new attempt")
        return message

    def members(
        self, cohort_message: bytes, plan_message: bytes | None = None
    ) -> tuple[Member, ...]:
        """Who takes part in a cohort, in the plan's order; arguments and errors as `verify`."""
        return self._cohort(cohort_message, plan_message).members

    def verify(
        self, cohort_message: bytes, release: bytes, plan_message: bytes | None = None
    ) -> npt.NDArray[np.int64]:
        """Check a release (step 9): whose it is, of which cohort, and its range.

        Only sites can check the MAC, so what is applied here is right once they say so.

        Args:
            cohort_message: The cohort it should be of.
            release: The decryptor's message.
            plan_message: The plan; needed if this object did not sign it, as after a restart.

        Returns:
            The sum of the cohort's integers, shape (d,), int64.

        Raises:
            StateError: The plan is not known here.
            RefusedError: It is not a release of that cohort.
        """
        return self.read_release(cohort_message, release, plan_message).integers

    def read_release(
        self, cohort_message: bytes, release: bytes, plan_message: bytes | None = None
    ) -> checks.Released:
        """As `verify`, with its tags and the mark that names it."""
        return checks.read_release(self._cohort(cohort_message, plan_message), release)

    def _cohort(self, cohort_message: bytes, plan_message: bytes | None) -> FixedCohort:
        if plan_message is None:
            body = messages.unseal(cohort_message, Cohort, self._identity.public)
            plan_message = self._plans.get(body.plan)
            if plan_message is None:
                raise StateError("hand in the plan message: this object did not sign it")
        return checks.read_cohort(self._round(plan_message), cohort_message)

    def _round(self, plan_message: bytes) -> Round:
        return checks.read_plan(plan_message, self._identity.public)
