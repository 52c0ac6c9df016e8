"""A site: trains on its own data, charges its own ledger, and lets out what may leave.

What leaves, once data have been read, is the protocol's messages and nothing else. Whatever goes
wrong with data or training is told to others as one generic code.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from aggregation import Identity, RoundPlan, SiteAttempt, SqliteJournal, quantize
from aggregation.recovery import recorded_opening
from fmfl_secure.config import FederationConfig, SiteConfig, SiteEntry, load_site
from fmfl_secure.errors import ConfigError, RunError
from fmfl_secure.membership import MembershipFolder
from fmfl_secure.models import Layout
from fmfl_secure.models.adapters import (
    adapter_bytes,
    adapter_digest,
    load_adapter_bytes,
    set_adapter_tensors,
)
from fmfl_secure.plain_training import train_plain_round
from fmfl_secure.planning import encryption_parameters, privacy_plan, quantization
from fmfl_secure.record import SiteStatement
from fmfl_secure.server_step import apply_release
from fmfl_secure.statement import describe_ledger, sign_statement
from fmfl_secure.tasks import Task, TaskData
from fmfl_secure.updates import UpdateStore
from privacy import Ledger, PrivacyPlan
from privacy.training import PrivateTrainer


class Site:
    """One site of a federation, in the folder that `init` made for it.

    Order of calls in a run: `begin` once; for each round `admit`, `train` and the attempt's own
    steps; `released` with the verified sum; `finish` once. All but `admit` may be called again
    after an interruption.

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
        self._layout = Layout.of(model)
        self._settings: SiteConfig = load_site(folder / "site.toml")
        self._identity = Identity.load(folder / "identity.pem", entry.name)
        self._held = MembershipFolder(folder)
        self._journal = SqliteJournal(folder / "journal.sqlite")
        self._updates = UpdateStore.open(folder)
        self._plan: PrivacyPlan | None = None
        self._ledger: Ledger | None = None
        if config.privacy.mode != "none":
            self._plan = privacy_plan(config, entry)
            self._ledger = self._open_ledger()
        self._data: TaskData | None = None
        self._run = run
        # The adapter this site computed from the last sum it verified; a plan for any other is
        # refused, so that a coordinator cannot hand one site an adapter of its own making.
        # After an interruption it is not known until the next sum.
        self._expected_adapter: str | None = self._initial_adapter()

    def __repr__(self) -> str:
        return f"Site({self.name!r})"

    @property
    def visibility(self) -> Literal["private", "public"]:
        """Of its data, as its own file declares."""
        return self._settings.data.visibility

    def _initial_adapter(self) -> str | None:
        """Digest of the adapter that the settings' seed gives, if the run has not begun here."""
        if self._ledger is None or self._run in self._ledger.budget().reservations:
            return None
        return adapter_digest(adapter_bytes(self._model))

    def _open_ledger(self) -> Ledger:
        ledger = Ledger(self._folder / self._settings.budget.ledger, signer=self._identity)
        budget = ledger.budget()
        if budget.public_key != self._identity.public.key:
            raise ConfigError(
                f"{self.name}: the ledger was opened by another identity than this site's",
                hint="Restore the site's own; one that was made anew has forgotten what was spent.",
            )
        if budget.population != self._settings.budget.population:
            raise ConfigError(
                f"{self.name}: the ledger is of population {budget.population!r}, site.toml says "
                f"{self._settings.budget.population!r}"
            )
        if budget.unit != self._config.task.unit:
            raise ConfigError(
                f"{self.name}: the ledger's unit is {budget.unit!r}, the federation's "
                f"{self._config.task.unit!r}; a ledger's unit never changes"
            )
        return ledger

    def begin(self) -> None:
        """Check the run against this site's policy and reserve its worst case. Reads no data.

        Raises:
            ConfigError: The policy or the data's visibility rules it out.
            BudgetExhausted: The ledger cannot afford it.
        """
        policy, config = self._settings.policy, self._config
        if config.federation.min_sites < policy.min_sites:
            raise ConfigError(
                f"{self.name}: the federation opens sums of {config.federation.min_sites} sites, "
                f"this site's policy asks for at least {policy.min_sites}"
            )
        base_digest = self._task.base.digest
        if policy.base_model_digest not in {"", base_digest}:
            raise ConfigError(f"{self.name}: base model {base_digest} is not the one allowed here")
        if self._plan is None or self._ledger is None:
            if self._settings.data.visibility != "public":
                raise ConfigError(
                    f"{self.name}: training without privacy needs data declared public",
                    hint="Set privacy.mode = 'local', or data.visibility = 'public' if it is.",
                )
        else:
            if config.privacy.epsilon > policy.max_epsilon_per_run:
                raise ConfigError(
                    f"{self.name}: epsilon {config.privacy.epsilon:g} for one run is above this "
                    f"site's limit of {policy.max_epsilon_per_run:g}"
                )
            self._ledger.reserve(
                run=self._run,
                event=self._plan.round_event(),
                rounds=self._plan.rounds + self._plan.repeats,
                plan=config.digest,
                purpose=config.federation.name,
            )

    def admit(self, plan_message: bytes, adapter: bytes) -> SiteAttempt:
        """Decide whether to take part in one attempt at a round.

        Raises:
            RunError: The plan is not of this run, its settings, or the adapter that came with it.
            ModelError: The adapter's layout differs; names the first tensor that does.
            AggregationError: The plan does not hold.
        """
        members = self._held.members()
        attempt = SiteAttempt(
            self._identity,
            plan_message,
            coordinator=members.coordinator,
            pinned=members.pinned,
            journal=self._journal,
            min_cohort=self._settings.policy.min_sites,
            membership=self._held.last(),
        )
        plan = attempt.plan
        self._layout.require((s.name, s.size) for s in plan.quantization.segments)
        expected = {
            "run": (plan.run, self._run),
            "training settings": (plan.training_digest, self._config.digest),
            "base model": (plan.base_model_digest, self._task.base.digest),
            "adapter layout": (plan.layout_digest, self._layout.digest),
            "adapter": (plan.adapter_digest, adapter_digest(adapter)),
            "quantisation": (plan.quantization, quantization(self._config, self._layout)),
            "parameter set": (plan.parameter_set, encryption_parameters(self._config).id),
            # The mean is taken over equal weights; others would let one site outweigh the rest.
            "weights": ({member.weight for member in plan.members}, {1.0}),
        }
        for what, (theirs, ours) in expected.items():
            if theirs != ours:
                raise RunError(f"{self.name}: the plan's {what} is not the one agreed here")
        if self._expected_adapter not in {None, plan.adapter_digest}:
            raise RunError(f"{self.name}: the adapter is not the one the last sum gives")
        return attempt

    def train(
        self, plan: RoundPlan, adapter: bytes, on_step: Callable[[int], None] | None = None
    ) -> NDArray[np.int32]:
        """The quantised update of a round: the stored one, or a newly trained one.

        The charge is durable before data are read, and the update is stored before this returns.

        Returns:
            int32, shape (d,).

        Raises:
            PrivacyError: Nothing is left of the reservation, or a step failed its checks.
            DataError: The data are unusable.
        """
        stored = self._updates.get(self._run, plan.round)
        if stored is not None:
            return stored
        if self._ledger is not None:
            self._ledger.commit(run=self._run, round=plan.round)
        set_adapter_tensors(self._model, load_adapter_bytes(adapter))
        before = self._layout.flatten(self._model)
        self._train_round(on_step)
        update = self._layout.flatten(self._model) - before
        weight = next(m.weight for m in plan.members if m.identity == self._identity.public)
        integers = quantize(update, plan.quantization, weight)
        self._updates.put(self._run, plan.round, integers)
        return integers

    def _train_round(self, on_step: Callable[[int], None] | None) -> None:
        data, training = self._read_data(), self._config.training
        optimizer = _build_optimizer(self._model, self._config)
        if self._plan is None:
            train_plain_round(
                self._model,
                config=self._config,
                task=self._task,
                data=data,
                optimizer=optimizer,
                on_step=on_step,
            )
            return
        PrivateTrainer(
            self._model,
            plan=self._plan,
            loss=self._task.per_record_loss,
            collate=data.collate,
            units=data.units,
            optimizer=optimizer,
            physical_batch_size=training.physical_batch_size,
            record_cost=data.record_cost,
        ).train_round(on_step)

    def _read_data(self) -> TaskData:
        if self._data is None:
            self._data = self._task.load(
                self._folder / self._settings.data.path,
                unit=self._config.task.unit,
                on_bad_row=self._config.task.on_bad_row,
            )
        return self._data

    def released(
        self, plan: RoundPlan, adapter: bytes, total: NDArray[np.int64], sites: int
    ) -> bytes:
        """Take note of a verified release: what the next adapter must be, and what to forget.

        Returns:
            That adapter.
        """
        following = apply_release(self._model, self._layout, plan, adapter, total, sites)
        self._expected_adapter = adapter_digest(following)
        self._updates.forget(self._run, plan.round)
        return following

    def recorded_opening(self, plan_message: bytes) -> bytes | None:
        """What this site opened in a plan's round and may send again after a restart, or None.

        Raises:
            AggregationError: The plan does not hold.
        """
        coordinator = self._held.members().coordinator
        return recorded_opening(self._journal, self._identity.public, plan_message, coordinator)

    def finish(self, evidence: str) -> None:
        """Close the run's reservation on the coordinator's signed end of the run."""
        if self._ledger is not None:
            held = self._ledger.budget().reservations.get(self._run)
            if held is not None and held.open:
                self._ledger.refund(run=self._run, evidence=evidence)
        self._updates.forget(self._run, self._config.federation.rounds)

    def statement(self) -> tuple[SiteStatement | None, str]:
        """What this site states of its ledger, with its signature in hexadecimal."""
        if self._ledger is None:
            return None, ""
        statement = describe_ledger(self._ledger, site=self.name, run=self._run)
        return statement, sign_statement(self._identity, statement)


def _build_optimizer(model: nn.Module, config: FederationConfig) -> torch.optim.Optimizer:
    training = config.training
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name.startswith("head.")].append(parameter)
    rates = {True: training.head_learning_rate, False: training.learning_rate}
    settings = [{"params": p, "lr": rates[head]} for head, p in groups.items() if p]
    if training.optimizer == "adam":
        return torch.optim.Adam(settings)
    return torch.optim.SGD(settings)
