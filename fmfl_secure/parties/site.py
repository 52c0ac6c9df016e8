"""A site: trains on its own data, charges its own ledger, and lets out what may leave.

What leaves, once data have been read, is the protocol's messages and nothing else. Whatever goes
wrong with data or training is told to others as one generic code.

The local engine (`transports.local.engine`), `fmfl-secure join` and Flower's host open one; agents
call it in order: `check`, `begin`, for each attempt `admit` and `train`, for each release
`released`, and `finish`. What it computes is in `site_training`, what it charges in `run_budget`,
and what it accepts as the adapter in `expected_adapter`.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from aggregation import (
    Identity,
    Quantization,
    RoundPlan,
    SiteAttempt,
    SqliteJournal,
    choose,
    hold_journal_to,
    recorded_opening,
    sign_journal_head,
    verdict_after_restart,
)
from aggregation.protocol import OF_NOTHING, read_plan
from fmfl_secure.errors import KNOWN_ERRORS, RunError, SiteFailure, is_passing
from fmfl_secure.models.adapters import adapter_bytes
from fmfl_secure.parties.agreed_plan import Agreed, AgreedAtSite, difference
from fmfl_secure.parties.expected_adapter import ExpectedAdapter
from fmfl_secure.parties.membership import MembershipFolder, digest_of
from fmfl_secure.parties.own_parts import OwnParts
from fmfl_secure.parties.run_budget import RunBudget, open_site_ledger
from fmfl_secure.parties.site_data import SiteSource
from fmfl_secure.parties.site_training import SiteTraining
from fmfl_secure.parties.stops import Stops
from fmfl_secure.parties.workspace import Members
from fmfl_secure.planning.answers import answer_grid, answer_layout
from fmfl_secure.planning.norms import norm_groups, rehearsed_norms
from fmfl_secure.planning.plans import (
    quantization,
    rehearsed_grid,
    run_proposal,
    site_plan,
)
from fmfl_secure.planning.task import largest_layout
from fmfl_secure.planning.terms import terms_of
from fmfl_secure.run.call import require_call
from fmfl_secure.run.ledger_statement import describe_ledger, sign_statement
from fmfl_secure.run.statement import SiteStatement
from fmfl_secure.settings.federation import FederationConfig, load_site
from fmfl_secure.settings.sections import SiteEntry
from fmfl_secure.settings.site import SiteConfig
from fmfl_secure.storage.anchor_store import AnchorStore
from fmfl_secure.storage.files import write_files
from fmfl_secure.storage.update_store import UpdateStore
from fmfl_secure.tasks import Task
from fmfl_secure.training.admission import check_admission, check_start
from fmfl_secure.training.server_step import ServerStep
from fmfl_secure.vectors.adapter import adapter_digest
from fmfl_secure.vectors.layout import FlatLayout
from privacy import (
    Anchor,
    DistributedPlan,
    Ledger,
    LedgerLocked,
    check_policy,
)

LOST_HEADS = "lost-heads.jsonl"  # of the ledger


class Site:
    """One site of a federation, in the folder that `init` made for it.

    Order of calls in a run: `check` where others are asked before anything is reserved; `begin`
    once; for each round `admit`, `train` and the attempt's own steps; `released` with the verified
    sum; `finish` once. All but `admit` may be called again after an interruption.

    Args:
        folder: The site's folder.
        run: Run id.
        entry: What the federation's settings say of it.
        config: Those settings.
        task: The task, with the base model this site holds.
        model: A model of that task, which this site may use while one of its methods runs.

    Raises:
        ConfigError: `site.toml` is wrong.
        LedgerError: There is no ledger, or it does not verify.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        entry: SiteEntry,
        config: FederationConfig,
        task: Task,
        model: nn.Module,
    ) -> None:
        self.name = entry.name
        self._folder = folder
        self._config = config
        self._task = task
        self._model = model
        self._server_step = ServerStep(config)
        self._size = largest_layout(task, model).size
        self._settings: SiteConfig = load_site(folder / "site.toml")
        self._identity = Identity.load(folder / "identity.pem", entry.name)
        self._held = MembershipFolder(folder)
        self._journal = SqliteJournal(folder / "journal.sqlite")
        self._updates = UpdateStore.open(folder)
        self.others = AnchorStore(folder / "anchors.sqlite")  # heads of the other sites' ledgers
        self._plan = site_plan(config, entry, self._size) if config.trains else None
        self._terms = terms_of(config, entry, self._size)
        self._ledger: Ledger | None = None
        self._budget: RunBudget | None = None  # none of data declared public, without noise
        if self._terms or self._exhausts:
            self._ledger = open_site_ledger(
                folder,
                site=self.name,
                settings=self._settings,
                unit=config.task.unit,
                identity=self._identity,
            )
            self._budget = RunBudget(self._ledger, run, self._terms, config, self._settings)
        self._source = SiteSource(folder, self._settings, config, task)
        self._own = OwnParts(
            folder,
            site=self.name,
            run=run,
            parts=config.adapter.personal_parts,
            earlier=task.own_parts_of,
            updates=self._updates,
        )
        self._training = SiteTraining(
            self._source,
            run=run,
            entry=entry,
            model=model,
            plan=self._plan,
            budget=self._budget,
            updates=self._updates,
            own=self._own,
        )
        self._run = run
        self._checked = False
        asked = config.asked.adapter if config.asked else ""
        self._initial_adapter = asked or adapter_digest(adapter_bytes(model))
        self._expected_adapter = ExpectedAdapter(
            self._journal,
            self._identity.public,
            federation=config.federation.name,
            run=run,
            colluders=max(
                config.privacy.colluding_sites, self._settings.policy.min_colluding_sites
            ),
        )

    def __repr__(self) -> str:
        return f"Site({self.name!r})"

    @property
    def visibility(self) -> Literal["private", "public"]:
        """Of its data, as its own file declares."""
        return self._settings.data.visibility

    @property
    def _exhausts(self) -> bool:
        """Whether training without noise here ends every grant of the ledger."""
        settings = self._settings
        private = settings.data.visibility != "public"
        return private and settings.policy.non_private == "exhaust"

    @property
    def _min_cohort(self) -> int:
        """The fewest sites whose sum may have this site in it: invited, and again once fixed."""
        least = [self._settings.policy.min_sites, self._config.federation.min_sites]
        if isinstance(self._plan, DistributedPlan):
            least.append(self._plan.min_cohort)  # with fewer shares of noise, more is spent
        return max(least)

    def hold_to(self, anchors: Iterable[str]) -> None:
        """Check the ledger against heads that others kept of it. Before `begin`, in every run.

        Heads that it lacks are written to `lost-heads.jsonl` in the site's folder, for the officer.

        Raises:
            LedgerLocked: It lacks one: it was rolled back, truncated or forked.
            LedgerError: One is not an anchor.
        """
        if self._ledger is None:
            return
        kept = [Anchor.parse(line) for line in anchors]
        file = self._folder / LOST_HEADS
        try:
            self._ledger.hold_to(kept)
        except LedgerLocked as error:
            lost = "".join(anchor.line + "\n" for anchor in kept if anchor.head in error.heads)
            write_files(self._folder, {LOST_HEADS: lost.encode()})
            hint = f"{error.hint} {self._ledger.name} --anchor {file}"
            raise LedgerLocked(f"{self.name}: {error}", heads=error.heads, hint=hint) from error
        file.unlink(missing_ok=True)

    def anchor(self) -> str | None:
        """The ledger's head, signed, for others to keep; None without a ledger."""
        return None if self._ledger is None else self._ledger.anchor().line

    def journal_head(self) -> str | None:
        """The head of its journal, signed, for others to keep."""
        return sign_journal_head(self._journal, self._identity)

    def hold_journal(self, heads: Iterable[str]) -> None:
        """Hold its journal to heads that others kept of it. Before it opens anything.

        Raises:
            JournalError: It lacks one: it was put back, or begun anew.
        """
        hold_journal_to(self._journal, self._identity.public, heads)

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Journal, ledger and stores stay open inside: for the calls of one assignment."""
        with ExitStack() as kept:
            for files in (self._journal, self._ledger, self._updates, self.others):
                if files is not None:
                    kept.enter_context(files.kept_open())
            yield

    def check(self) -> None:
        """Check what can be known before anything is reserved: the policy, and that data are there.

        Of the data, that they open as a whole, have the columns, and hold a row.

        Raises:
            PolicyRefusal: The policy rules the run out.
            ConfigError: What sets units apart cannot be used.
            ModelError: Its own parts of an earlier run's adapter cannot be used.
            DataError: The data are not there, or are not what the settings say.
        """
        config, base = self._config, self._task.base
        approved = base.digest_in(self._settings.policy.base_models)
        proposal = run_proposal(
            config, self._settings, approved, self._size, unlisted=base.unlisted
        )
        check_policy(self._settings.policy, proposal, now=_now())
        if self._budget is not None:
            self._budget.require_affordable()
            self._budget.require_few_answers()
        if self._ledger is not None and self._ledger.budget().reservations:
            self._source.require_key()
        self._source.check()
        self._own.require(self._model)
        self._checked = True

    def begin(self, call: bytes | None) -> None:
        """Check the run, and reserve its worst case. Uses no record.

        Args:
            call: The coordinator's signed call; a run that holds a reservation already needs none.

        Raises:
            RunHalted: The coordinator or a custodian has stopped the run.
            RunError: The call is not to this run, this federation and its settings.
            AggregationError: It is not the coordinator's.
            AdmissionError: The model, its loss or its batching couples records.
            PolicyRefusal: The policy rules it out.
            DataError: The data are not there, or are not what the settings say.
            BudgetExhausted: The ledger cannot afford it.
        """
        self._require_going()
        if not self._checked:
            self.check()
        config = self._config
        check_admission(config, self._task, self._model)
        has_begun = self._budget is not None and self._budget.has_begun
        if self._terms and not has_begun:
            self._require_call(call)
        if not has_begun:
            self._expected_adapter.begin(self._initial_adapter)
        if self._budget is not None:
            self._budget.reserve(call)

    def _require_going(self) -> None:
        Stops(self._folder, self._held.members()).require_none(self._run)

    def _require_call(self, call: bytes | None) -> None:
        require_call(
            call,
            coordinator=self._held.members().coordinator,
            run=self._run,
            config=self._config,
            base_models=self._task.base.digests,
            adapter=self._initial_adapter,
            now=_now(),
        )

    def admit(
        self, plan_message: bytes, adapter: bytes, history: Callable[[], bytes] = bytes
    ) -> SiteAttempt:
        """Decide whether to take part in one attempt at a round. Reads no data.

        The policy is asked again, of what the coordinator signed and at the time it is now.

        Args:
            plan_message: The signed plan.
            adapter: What the round starts from.
            history: Fetches what sites signed of earlier rounds, should this one have been away.

        Raises:
            RunHalted: The coordinator or a custodian has stopped the run.
            AdapterUnverified: This site was away, and too few others have signed for the adapter.
            PolicyRefusal: The policy rules it out, or has expired since the run began.
            RunError: The plan is not what was agreed here (`agreed_plan`), or its adapter is not
                the one that the last sum gives.
            ModelError: The adapter's layout differs; names the first tensor that does.
            AdmissionError: At that adapter records change each other's gradients.
            AggregationError: The plan does not hold.
        """
        self._require_going()
        members, membership = self._held.members(), self._held.last()
        attempt = self._attempt(plan_message, members, membership)
        plan = attempt.plan
        layout, grid = self._uploads(plan.round)
        base, planned = self._task.base, plan.base_model_digest
        if planned in base.digests:  # a policy of 0.1.0 names the same model otherwise
            planned = base.digest_in(self._settings.policy.base_models)
        proposal = dataclasses.replace(
            run_proposal(self._config, self._settings, planned, self._size, unlisted=base.unlisted),
            rounds=max(plan.round, self._config.all_rounds),
            min_sites=plan.min_cohort,
            suite=plan.suite,
            parameter_set=plan.parameter_set,
        )
        check_policy(self._settings.policy, proposal, now=_now())
        layout.require((s.name, s.size) for s in plan.quantization.segments)
        unagreed = difference(
            plan,
            Agreed(config=self._config, members=members, min_cohort=self._min_cohort),
            AgreedAtSite(
                run=self._run,
                training_digest=self._config.digest,
                base_model_digests=base.digests,
                layout_digest=layout.digest,
                adapter_digest=adapter_digest(adapter),
                quantization=grid,
                parameter_set=choose(
                    len(self._config.sites), grid.bits, suite=self._config.aggregation.suite
                ).id,
                membership_digest=digest_of(membership),
                norms=norm_groups(self._config, self._config.turn(plan.round), grid),
            ),
        )
        if unagreed is not None:
            raise RunError(
                f"{self.name}: the plan's {unagreed} is not the one agreed here",
                hint="Ask whoever runs the coordinator, and compare federation.toml and the keys.",
            )
        self._expected_adapter.require(plan, members, history)
        if self._config.turn(plan.round).asked is None:
            check_start(self._config, self._task, self._model, adapter, self._own.now())
        self._updates.forget_attempt(self._run)  # of an attempt that is over
        return attempt

    def rehearse(self, plan_message: bytes) -> SiteAttempt:
        """Decide whether to take part in a rehearsal. It reads no data and charges nothing.

        Raises:
            RunHalted: The coordinator or a custodian has stopped the run.
            RunError: The plan is no rehearsal's, or not what was agreed here.
            AggregationError: The plan does not hold.
        """
        self._require_going()
        members, membership = self._held.members(), self._held.last()
        attempt = self._attempt(plan_message, members, membership)
        grid = rehearsed_grid(self._config, self._size)
        unagreed = difference(
            attempt.plan,
            Agreed(config=self._config, members=members, min_cohort=self._min_cohort),
            AgreedAtSite(
                run=self._run,
                training_digest=self._config.digest,
                base_model_digests=(OF_NOTHING,),
                layout_digest=OF_NOTHING,
                adapter_digest=OF_NOTHING,
                quantization=grid,
                parameter_set=choose(
                    len(self._config.sites), grid.bits, suite=self._config.aggregation.suite
                ).id,
                membership_digest=digest_of(membership),
                norms=rehearsed_norms(self._config, grid),
            ),
        )
        if unagreed is not None:
            raise RunError(
                f"{self.name}: the rehearsal's {unagreed} is not the one agreed here",
                hint="Ask whoever runs the coordinator, and compare federation.toml and the keys.",
            )
        return attempt

    def _attempt(
        self, plan_message: bytes, members: Members, membership: bytes | None, **more: bool
    ) -> SiteAttempt:
        return SiteAttempt(
            self._identity,
            plan_message,
            coordinator=members.coordinator,
            pinned=members.pinned,
            journal=self._journal,
            min_cohort=self._min_cohort,
            floor=self._config.floor(len(members.sites), self._settings.policy.min_share),
            openings=self._config.openings(len(members.sites)),
            custodians=self._config.aggregation.custodians,
            membership=membership,
            witness=self.others,
            **more,
        )

    def keep(self, attempt: SiteAttempt) -> None:
        """Store, sealed, what opens an attempt after a restart; nothing where all must open.

        Raises:
            Unavailable: It cannot be written now; nothing was stored.
        """
        kept, plan = attempt.keep(), attempt.plan
        if kept:
            self._updates.keep_attempt(self._run, plan.round, plan.attempt, kept)

    def kept(self, plan_message: bytes) -> SiteAttempt | None:
        """The attempt that was under way before a restart, to be opened and no more; or None.

        Raises:
            AggregationError: Plan or cohort do not hold, or the round was opened otherwise.
            RunDamaged: What is stored was altered.
        """
        members, membership = self._held.members(), self._held.last()
        plan = read_plan(plan_message, members.coordinator).plan
        kept = self._updates.kept_attempt(self._run, plan.round, plan.attempt)
        integers = self._updates.get(self._run, plan.round)
        if not kept or integers is None or plan.run != self._run:
            return None
        attempt = self._attempt(plan_message, members, membership, goes_on=True)
        attempt.recall(kept, integers)
        return attempt

    def opened(self) -> None:
        """Erase what was kept of the attempt under way."""
        self._updates.forget_attempt(self._run)

    def _uploads(self, round_number: int) -> tuple[FlatLayout, Quantization]:
        """Returns a round's layout and grid; the model is left ready for it."""
        config, turn = self._config, self._config.turn(round_number)
        if turn.asked is not None:
            return answer_layout(config), answer_grid(config)
        layout = self._task.begin_round(self._model, turn.training)
        return layout, quantization(config, layout, self._size)

    def train(
        self, plan: RoundPlan, adapter: bytes, on_step: Callable[[int], None] | None = None
    ) -> NDArray[np.int32]:
        """The quantised update of a round: the stored one, or a newly trained one.

        In a round that asks something, the site's part in the answer. The charge is durable before
        data are read, and what was made of them is stored before this returns.

        Args:
            plan: The round's plan.
            adapter: What the round starts from.
            on_step: Called with the number of finished steps, 0 when charge and data are there.

        Returns:
            int32, shape (d,).

        Raises:
            SiteFailure: Something failed: the ledger, the data, a step's own checks, the machine.
                From here on what fails can depend on a unit, so others hear the same of all.
            Unavailable, LedgerUnavailable, MemoryError: What is kept here cannot be used now,
                whatever the data are, or memory is short before they are looked at. Called again it
                goes on where it was, and charges nothing twice.
        """
        try:
            return self._training.update(plan, adapter, on_step)
        except KNOWN_ERRORS as error:
            if is_passing(error):
                raise
            raise SiteFailure(str(error), hint=getattr(error, "hint", "")) from error
        except Exception as error:  # not ours: its text may quote data, so only its place is told
            if is_passing(error) and not self._training.looks_at_data:
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise SiteFailure(
                f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            ) from error

    def released(
        self, plan: RoundPlan, adapter: bytes, total: NDArray[np.int64], cohort: Sequence[str]
    ) -> bytes:
        """Apply a verified release, and forget what it makes unneeded. An answer changes nothing.

        The attempt's verdict comes next: with it this site remembers what the next adapter is.

        Args:
            plan: The round's plan.
            adapter: What the round started from.
            total: The sum, int64, shape (d,).
            cohort: Names of the sites in it.

        Returns:
            That adapter.
        """
        layout, _ = self._uploads(plan.round)
        following = self._server_step.after(plan, layout, adapter, total, cohort)
        self._updates.forget(self._run, plan.round)
        self._updates.forget_attempt(self._run)
        return following

    def verdict_after_restart(self, plan_message: bytes, cohort_message: bytes) -> bytes:
        """Returns this site's verdict from before a restart, or one that it cannot tell.

        Raises:
            AggregationError: Plan or cohort do not hold.
        """
        coordinator = self._held.members().coordinator
        return verdict_after_restart(
            self._identity, self._journal, plan_message, cohort_message, coordinator
        )

    def recorded_opening(self, plan_message: bytes) -> bytes | None:
        """Returns the opening recorded for a plan's round, to be sent again; None if there is none.

        Raises:
            AggregationError: The plan does not hold.
        """
        coordinator = self._held.members().coordinator
        return recorded_opening(self._journal, self._identity.public, plan_message, coordinator)

    def finish(self, evidence: str) -> None:
        """Close the run's reservation on the coordinator's signed end of the run."""
        if self._budget is not None:
            self._budget.refund(evidence)
        self._own.leave()
        self._updates.forget(self._run, self._config.all_rounds)
        self._updates.forget_attempt(self._run)

    def statement(self) -> tuple[SiteStatement | None, str]:
        """Describes this site's ledger, with its signature in hexadecimal."""
        if self._ledger is None:
            return None, ""
        statement = describe_ledger(
            self._ledger, site=self.name, run=self._run, identity=self._identity.public
        )
        return statement, sign_statement(self._identity, statement)


def _now() -> datetime:
    return datetime.now(UTC)
