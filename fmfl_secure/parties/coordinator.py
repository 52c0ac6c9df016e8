"""The coordinator of a run: plans rounds, holds the global adapter, keeps the run's state.

It learns who takes part and each released sum, and nothing else. What it hands to every site is
signed, and a site recomputes the adapter itself from the sum that it verified.

`runtime.run_driver` calls it for a run's begin and end, and `runtime.round_driver` and
`runtime.attempt_driver` for each attempt: `plan_attempt`, `fix_cohort`, `following`, `apply`, then
`finish_round` or `lose_round`. What a call decides is in the run's store before anybody hears of
it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

import aggregation
from aggregation import Identity, Member, Quantization, RoundPlan, choose
from aggregation.protocol import (
    OF_NOTHING,
    REHEARSED,
    exchange_form,
    mask_graph,
    read_cohort,
    read_plan,
)
from fmfl_secure.errors import RunError
from fmfl_secure.parties.agreed_plan import KEY_AGREEMENT
from fmfl_secure.parties.workspace import AGGREGATOR, COORDINATOR, DECRYPTOR, Members
from fmfl_secure.planning.norms import norm_groups, rehearsed_norms
from fmfl_secure.planning.plans import rehearsed_grid
from fmfl_secure.run.call import sign_call
from fmfl_secure.run.end import evidence, sign_end
from fmfl_secure.run.history import ReleaseHistory, encode_history
from fmfl_secure.run.record import RehearsalRecord, RoundRecord, decode_round
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.storage.run_state import RunFacts, RunState
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.training.server_step import ServerStep
from fmfl_secure.vectors.adapter import adapter_digest
from fmfl_secure.vectors.adapter_line import EARLIER_FILE, LINE_FILE
from fmfl_secure.vectors.start import RunStart


class Opened(NamedTuple):
    """An attempt that too few sites may have opened, which only the same can open again.

    Attributes:
        invited: Names that its plan has, in order.
        cohort: Those whose updates it was to sum.
    """

    invited: tuple[str, ...]
    cohort: tuple[str, ...]


class Coordinator:
    """Plans the rounds of one run and applies what they release.

    Args:
        identity: The coordinator's key pair.
        members: All parties.
        config: The federation's settings.
        start: What the run starts from.
        store: The run's state, from `start_run`, or one that `check_resumable` lets go on.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        members: Members,
        config: FederationConfig,
        start: RunStart,
        store: RunStore,
    ) -> None:
        self._identity = identity
        self._protocol = aggregation.Coordinator(identity)
        self._members = members
        self._config = config
        self._start = start
        self._server_step = ServerStep(config)
        self.store = store
        self.run = store.state.run
        # `sha256:` of the membership list that plans are made under; empty where there is none.
        self.membership_digest = ""
        self._called: tuple[datetime, bytes] | None = None
        self._knowing: frozenset[str] = frozenset()  # sites that verified the last release
        self.recall()

    def recall(self) -> None:
        """Go on from the adapter that is kept, whatever was applied and did not become durable."""
        self.adapter = self.store.last_adapter() or self.store.public().initial_adapter

    @property
    def rounds(self) -> list[RoundRecord]:
        """Rounds that ended, in order."""
        return [decode_round(r) for r in self.store.rounds()]

    def enough(self, sites: Sequence[str]) -> bool:
        """Whether so few sites may be summed, by count and by weight."""
        least = self._config.smallest_cohort(len(self._members.sites))
        heard = self._config.sites_by_weight(sites)
        return len(sites) >= least and heard >= self._config.federation.min_sites

    def plan_attempt(self, round_number: int, sites: Sequence[str]) -> tuple[RoundPlan, bytes]:
        """Plan a new attempt at a round and record it before anyone hears of it (step 1).

        Args:
            round_number: The round.
            sites: Names of those invited.

        Raises:
            RunError: Fewer than the settings' smallest cohort are left.
        """
        known = len(self._members.sites)
        if len(sites) < self._config.smallest_cohort(known):
            raise RunError(
                f"{len(sites)} sites are left for round {round_number}, fewer than "
                f"{self._config.smallest_cohort_in_words(known)}"
            )
        if self._config.sites_by_weight(sites) < self._config.federation.min_sites:
            raise RunError(
                f"the {len(sites)} sites left for round {round_number} are worth fewer equal ones "
                f"than min_sites = {self._config.federation.min_sites}"
            )
        attempt = self.store.attempts(round_number) + 1
        turn = self._config.turn(round_number)
        grid = self._start.grid(turn)
        plan = self._plan(
            sites,
            grid,
            round=round_number,
            attempt=attempt,
            adapter_digest=adapter_digest(self.adapter),
            layout_digest=self._start.layout(turn).digest,
            base_model_digest=self._start.base_model_digest,
            custodians=tuple(
                self._members.custodians[name] for name in self._config.aggregation.custodians
            ),
            norms=norm_groups(self._config, turn, grid),
        )
        message = self._protocol.plan(plan)
        self.store.begin_attempt(round_number, attempt, message)
        return plan, message

    def plan_rehearsal(self, number: int, sites: Sequence[str]) -> bytes:
        """Plan a rehearsal: of public integers, no round and no adapter. Recorded by its caller.

        Args:
            number: Which of the run's.
            sites: Names of those invited.
        """
        grid = rehearsed_grid(self._config, self._start.size if self._config.trains else 0)
        plan = self._plan(
            sites,
            grid,
            round=number,
            attempt=1,
            adapter_digest=OF_NOTHING,
            layout_digest=OF_NOTHING,
            base_model_digest=OF_NOTHING,
            rehearsal=REHEARSED,
            norms=rehearsed_norms(self._config, grid),
        )
        return self._protocol.plan(plan)

    def _plan(self, sites: Sequence[str], grid: Quantization, **terms: Any) -> RoundPlan:
        """Makes a plan from the terms that rounds and rehearsals have in common."""
        vanishing = self._config.vanishing(len(self._members.sites))
        weights = self._config.weights()
        return RoundPlan(
            federation=self._config.federation.name,
            run=self.run,
            suite=self._config.aggregation.suite,
            parameter_set=choose(
                len(self._config.sites), grid.bits, suite=self._config.aggregation.suite
            ).id,
            quantization=grid,
            members=tuple(Member(self._members.sites[name], weights[name]) for name in sites),
            aggregator=self._members.aggregator,
            decryptor=self._members.decryptor,
            coordinator=self._members.coordinator,
            training_digest=self._config.digest,
            min_cohort=self._config.federation.min_sites,
            key_agreement=KEY_AGREEMENT,
            membership_digest=self.membership_digest,
            mask_graph=mask_graph(len(sites)),
            vanishing=vanishing,
            exchange=exchange_form(
                len(sites), KEY_AGREEMENT, vanishing=vanishing is not msgspec.UNSET
            ),
            **terms,
        )

    def rehearsal_cohort(
        self, message: bytes, announcement: bytes, readies: Iterable[bytes]
    ) -> bytes:
        """Fix a rehearsal's cohort, which the run's state knows nothing of.

        Raises:
            AggregationError: A message does not hold or too few sites are ready.
        """
        return self._protocol.cohort(message, announcement, readies, ())

    def fix_cohort(
        self,
        plan: RoundPlan,
        message: bytes,
        announcement: bytes,
        readies: Iterable[bytes],
        custodians: Iterable[bytes] = (),
    ) -> bytes:
        """Fix an attempt's cohort (step 4).

        Raises:
            AggregationError: A message does not hold or too few sites are ready.
        """
        cohort = self._protocol.cohort(message, announcement, readies, custodians)
        self.store.fix_cohort(plan.round, plan.attempt, cohort)
        return cohort

    def opened_before(self, round_number: int) -> Opened:
        """Whom a further attempt at a round has to be of, where sites may have opened one already.

        Of nobody where none was opened, and where every site has to open: those join no other.
        """
        for attempt in self.store.opened_attempts(round_number):
            round_ = read_plan(attempt.plan, self._members.coordinator)
            if round_.shares:
                invited = tuple(member.identity.name for member in round_.plan.members)
                return Opened(invited, read_cohort(round_, attempt.cohort).names)
        return Opened((), ())

    def following(self, plan: RoundPlan, total: NDArray[np.int64], sites: Sequence[str]) -> bytes:
        """The adapter that a release gives (step 9). Changes nothing.

        Args:
            plan: The round's.
            total: The verified release's sum, int64, shape (d,).
            sites: Names of the sites in it.
        """
        layout = self._start.layout(self._config.turn(plan.round))
        return self._server_step.after(plan, layout, self.adapter, total, sites)

    def apply(self, following: bytes) -> None:
        """Move to the next adapter, once sites verified what gives it. Not yet durable."""
        self.adapter = following

    @property
    def witnesses(self) -> int:
        """How many sites must say that a sum verifies before it is applied: c + 1.

        A site that was away takes the word of that many others for the adapter.
        """
        return self._config.privacy.colluding_sites + 1

    def keep_verdicts(self, plan: RoundPlan, verdicts: Mapping[str, bytes]) -> None:
        """Keep what sites said of an attempt whose release was not applied, for those it misled."""
        self.store.keep_verdicts(plan.round, plan.attempt, verdicts)
        self._knowing = frozenset()

    def history(self) -> tuple[bytes, frozenset[str]]:
        """Collects verdicts on the last release and since, and the sites that need none of them.

        Returns:
            A document for sites that were away, empty where nobody signed anything; and the
            sites that verified the last release themselves.
        """
        released = [r for r in self.rounds if r.status == "released"]
        since = (released[-1].round, released[-1].attempts) if released else (0, 0)
        kept = self.store.verdicts_since(*since)
        items = [ReleaseHistory(k.plan, k.cohort, tuple(k.verdicts.values())) for k in kept]
        if not items:
            return b"", frozenset()
        return encode_history(items), self._knowing

    def finish_round(
        self,
        plan: RoundPlan,
        release: bytes,
        *,
        sites: Sequence[str],
        refusals: dict[str, str],
        metrics: dict[str, float],
        verdicts: Mapping[str, bytes],
        verified: Iterable[str],
        total: NDArray[np.int64],
        vanished: Sequence[str] = (),
        rehearsals: Sequence[RehearsalRecord] = (),
    ) -> RoundRecord:
        """Make a released round durable, with its adapter and what sites said of it.

        Of a round that asked, the released sum is kept: it is the answer.
        """
        asked = self._config.turn(plan.round).asked
        record = RoundRecord(
            round=plan.round,
            status="released",
            attempts=plan.attempt,
            cohort=tuple(sites),
            refusals=dict(refusals),
            adapter_digest=adapter_digest(self.adapter),
            release_digest="sha256:" + hashlib.sha256(release).hexdigest(),
            metrics=metrics,
            at=_now(),
            answer=msgspec.UNSET if asked is None else tuple(total.tolist()),
            vanished=tuple(vanished) or msgspec.UNSET,
            rehearsals=tuple(rehearsals) or msgspec.UNSET,
        )
        self.store.finish_round(
            plan.round,
            msgspec.json.encode(record),
            self.adapter,
            attempt=plan.attempt,
            verdicts=verdicts,
        )
        self._knowing = frozenset(verified)
        return record

    def lose_round(
        self,
        round_number: int,
        refusals: dict[str, str],
        rehearsals: Sequence[RehearsalRecord] = (),
    ) -> RoundRecord:
        """Record that a round was opened and no release survived: spent, and never repeated."""
        record = RoundRecord(
            round=round_number,
            status="lost",
            attempts=self.store.attempts(round_number),
            cohort=(),
            refusals=dict(refusals),
            adapter_digest=adapter_digest(self.adapter),
            release_digest="",
            metrics={},
            at=_now(),
            rehearsals=tuple(rehearsals) or msgspec.UNSET,
        )
        self.store.finish_round(round_number, msgspec.json.encode(record), None)
        return record

    def call(self) -> bytes:
        """The signed call to this run, without which no site reserves; a new one every day."""
        now = datetime.now(UTC)
        if self._called is None or now >= self._called[0] + timedelta(days=1):
            self._called = (
                now,
                sign_call(
                    self._identity,
                    self.run,
                    self._config,
                    base_model=self._start.base_model_digest,
                    adapter=adapter_digest(self.store.public().initial_adapter),
                    now=now,
                ),
            )
        return self._called[1]

    def end(self) -> str:
        """Sign the end of the run: what entitles sites to take back rounds that never started.

        Returns:
            `sha256:` of the signed statement, which the run's state keeps.
        """
        return evidence(self.signed_end())

    def signed_end(self) -> bytes:
        """The signed end of the run: the one that is kept, or a new one that now is."""
        kept = self.store.state.end
        if kept is not None:
            return kept
        end = sign_end(self._identity, self.run, self.rounds)
        self.store.move(lambda state: state.signed(end))
        return end


def start_run(
    folder: Path,
    *,
    config: FederationConfig,
    members: Members,
    start: RunStart,
    origin: Path,
    database: str | None = None,
    keep_open: bool = False,
) -> RunStore:
    """Make a new run's folder with its settings and what is fixed for it.

    Args:
        folder: The run's folder.
        config: The federation's settings.
        members: All parties.
        start: What the run starts from.
        origin: Folder that relative paths in the settings start from.
        database: PostgreSQL URL for the run's state; None keeps it in the folder.
        keep_open: As for `RunStore`.

    Raises:
        RunError: The folder is in use, or the settings name who has no identity.
    """
    return RunStore.create(
        folder,
        RunState(run=secrets.token_hex(8), config=config, started=_now(), origin=origin.resolve()),
        _public_facts(config, members, start),
        database=database,
        keep_open=keep_open,
    )


def _public_facts(config: FederationConfig, members: Members, start: RunStart) -> RunFacts:
    sites, custodians = [entry.name for entry in config.sites], config.aggregation.custodians
    absent = [name for name in sites if name not in members.sites]
    absent += [name for name in custodians if name not in members.custodians]
    if absent:
        raise RunError(
            f"no identity is known of {', '.join(absent)}",
            hint="Run fmfl-secure init, or provision across machines, after a change of "
            "federation.toml; or take it out there.",
        )
    layout = start.layout(config.turn(1))
    return RunFacts(
        base_model=start.base_model,
        base_model_digest=start.base_model_digest,
        layout_digest=layout.digest,
        parameters=start.size if config.trains else layout.size,
        sites={name: members.sites[name].text for name in sites},
        roles={
            COORDINATOR: members.coordinator.fingerprint,
            AGGREGATOR: members.aggregator.fingerprint,
            DECRYPTOR: members.decryptor.fingerprint,
            **{f"custodian {name}": members.custodians[name].fingerprint for name in custodians},
        },
        initial_adapter=start.adapter,
        line=start.files.texts.get(EARLIER_FILE) or start.files.texts.get(LINE_FILE, ""),
    )


def check_resumable(store: RunStore, config: FederationConfig, start: RunStart) -> None:
    """Require that a run which was interrupted can go on.

    Args:
        store: The run's state.
        config: The federation's settings.
        start: What it would start from, were it new.

    Raises:
        RunError: It has ended, or its settings or its adapter were others.
    """
    state = store.state
    if state.config != config:
        raise RunError(
            f"the run in {store.folder} was started with other settings",
            hint="A run keeps its settings to the end. Start a new one to change them.",
        )
    if state.ended:
        raise RunError(f"the run in {store.folder} has ended; there is nothing to resume")
    if store.public().layout_digest != start.layout(config.turn(1)).digest:
        raise RunError(
            f"the run in {store.folder} was started with another adapter",
            hint="Bring the base model, or the start file, that it was started with.",
        )
    store.bring_up_to_date()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
