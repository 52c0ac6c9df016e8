"""A site that trains nothing: real keys, real ciphertexts, random updates. For load and for tests.

It keeps no ledger and reads no data, so it has no place in a federation that protects anybody.

`bench.service` and Flower's parties (`transports.flower.parties`) put one in a `Site`'s place.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aggregation import (
    Identity,
    Journal,
    RoundPlan,
    SiteAttempt,
    StateError,
    recorded_opening,
    verdict_after_restart,
)
from fmfl_secure.parties.expected_adapter import ExpectedAdapter
from fmfl_secure.parties.workspace import Members
from fmfl_secure.run.statement import SiteStatement
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.training.server_step import ServerStep
from fmfl_secure.vectors.adapter import Adapter
from fmfl_secure.vectors.layout import FlatLayout, TensorSlot


class SimulatedSite:
    """Takes part in a run as a `Participant` does.

    Args:
        identity: The site's key pair.
        members: All parties.
        journal: The protocol's record.
        membership: The membership list it approved, if there is one.
        config: The federation's settings. Without them it cannot say what a sum gives, so it
            takes part by calls alone and not in a run.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        members: Members,
        journal: Journal,
        membership: bytes | None = None,
        config: FederationConfig | None = None,
    ) -> None:
        self._membership = membership
        self._config = config
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
        """Does nothing: there is no ledger."""

    def journal_head(self) -> None:
        """Nobody keeps a head of it."""

    def hold_journal(self, heads: Iterable[str]) -> None:
        """There is nothing to hold."""

    def kept_open(self) -> AbstractContextManager[None]:
        """Keeps the journal open, as a site's."""
        return self._journal.kept_open()

    def check(self) -> None:
        """There are no data to look for."""

    def begin(self, call: bytes | None) -> None:
        """Does nothing: nothing is reserved."""

    def admit(
        self,
        plan_message: bytes,
        adapter: bytes,  # noqa: ARG002
        history: Callable[[], bytes] = bytes,
    ) -> SiteAttempt:
        """As a site does, but for what only a model and a ledger could say.

        So it believes the first adapter that it hears of.
        """
        attempt = SiteAttempt(
            self._identity,
            plan_message,
            coordinator=self._members.coordinator,
            pinned=self._members.pinned,
            journal=self._journal,
            membership=self._membership,
        )
        if self._config is not None:
            ExpectedAdapter(
                self._journal,
                self._identity.public,
                federation=self._config.federation.name,
                run=attempt.plan.run,
                colluders=self._config.privacy.colluding_sites,
            ).require(attempt.plan, self._members, history)
        return attempt

    def rehearse(self, plan_message: bytes) -> SiteAttempt:
        """As a site does, but for the settings, where it has none."""
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
        """Returns the opening recorded in the plan's round, or None."""
        coordinator = self._members.coordinator
        return recorded_opening(self._journal, self._identity.public, plan_message, coordinator)

    def keep(self, attempt: SiteAttempt) -> None:
        """It keeps nothing: a restart is a vanishing."""

    def kept(self, plan_message: bytes) -> None:
        """Returns None: nothing is kept."""

    def opened(self) -> None:
        """Does nothing: nothing was kept."""

    def released(
        self, plan: RoundPlan, adapter: bytes, total: NDArray[np.int64], cohort: Sequence[str]
    ) -> bytes:
        """Keep the sum, and apply it."""
        self.verified[plan.round] = total
        if self._config is None:
            raise StateError("a simulated site without settings takes part in no run")
        tensors = Adapter.read(adapter).tensors
        layout = FlatLayout(
            tuple(
                TensorSlot(s.name, tensors[s.name].shape if s.name in tensors else (s.size,))
                for s in plan.quantization.segments
            )
        )
        step = ServerStep(self._config)
        return step.after(plan, layout, adapter, total, cohort)

    def verdict_after_restart(self, plan_message: bytes, cohort_message: bytes) -> bytes:
        """Returns the recorded verdict, as a site does."""
        coordinator = self._members.coordinator
        return verdict_after_restart(
            self._identity, self._journal, plan_message, cohort_message, coordinator
        )

    def finish(self, evidence: str) -> None:
        """Does nothing: there is no reservation to close."""

    def statement(self) -> tuple[SiteStatement | None, str]:
        """There is no ledger to state."""
        return None, ""
