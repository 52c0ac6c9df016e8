"""A site that trains nothing: real keys, real ciphertexts, random updates. For load and for tests.

It keeps no ledger and reads no data, so it has no place in a federation that protects anybody.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aggregation import Identity, Journal, RoundPlan, SiteAttempt, recorded_opening
from fmfl_secure.parties.workspace import Members
from fmfl_secure.run.record import SiteStatement


class SimulatedSite:
    """Takes part in a run as a `Participant` does.

    Args:
        identity: The site's key pair.
        members: All parties.
        journal: The protocol's record.
        membership: The membership list it approved, if there is one.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        members: Members,
        journal: Journal,
        membership: bytes | None = None,
    ) -> None:
        self._membership = membership
        self._identity = identity
        self._members = members
        self._journal = journal
        self.updates: dict[int, NDArray[np.int32]] = {}
        self.verified: dict[int, NDArray[np.int64]] = {}

    @property
    def visibility(self) -> Literal["private", "public"]:
        """Of data that it does not have."""
        return "public"

    @property
    def others(self) -> None:
        """It keeps no heads of ledgers."""

    def hold_to(self, anchors: Iterable[str]) -> None:
        """There is no ledger to hold."""

    def anchor(self) -> None:
        """There is no ledger."""

    def journal_head(self) -> None:
        """Nobody keeps a head of it."""

    def hold_journal(self, heads: Iterable[str]) -> None:
        """There is nothing to hold."""

    def check(self) -> None:
        """There are no data to look for."""

    def begin(self, call: bytes | None) -> None:
        """Nothing to reserve."""

    def admit(self, plan_message: bytes, adapter: bytes) -> SiteAttempt:  # noqa: ARG002
        """As a site does, but for what only a model and a ledger could say."""
        return SiteAttempt(
            self._identity,
            plan_message,
            coordinator=self._members.coordinator,
            pinned=self._members.pinned,
            journal=self._journal,
            membership=self._membership,
        )

    def train(
        self,
        plan: RoundPlan,
        adapter: bytes,  # noqa: ARG002
        on_step: Callable[[int], None] | None = None,  # noqa: ARG002
    ) -> NDArray[np.int32]:
        """Random values over the whole range; the same ones in every attempt at a round."""
        if plan.round not in self.updates:
            limit = (1 << (plan.quantization.bits - 1)) - 1
            generator = np.random.Generator(np.random.PCG64(secrets.randbits(128)))
            self.updates[plan.round] = generator.integers(
                -limit, limit, plan.quantization.size, dtype=np.int32, endpoint=True
            )
        return self.updates[plan.round]

    def recorded_opening(self, plan_message: bytes) -> bytes | None:
        """See `aggregation.roles.recovery`."""
        coordinator = self._members.coordinator
        return recorded_opening(self._journal, self._identity.public, plan_message, coordinator)

    def released(
        self,
        plan: RoundPlan,
        adapter: bytes,  # noqa: ARG002
        total: NDArray[np.int64],
        cohort: Sequence[str],  # noqa: ARG002
    ) -> bytes:
        """Keep the sum; without a model, the next adapter is fetched."""
        self.verified[plan.round] = total
        return b""

    def finish(self, evidence: str) -> None:
        """Nothing to close."""

    def statement(self) -> tuple[SiteStatement | None, str]:
        """There is no ledger to state."""
        return None, ""
