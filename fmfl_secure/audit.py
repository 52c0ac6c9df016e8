"""The empirical audit of a run or of settings: canaries through the training that they describe.

The plan, the task, the model with its adapter and the private trainer are those of a site. Data
are not: an audit opens no site's folder, trains on canaries and the task's synthetic records, and
so charges no ledger.

`fmfl-secure audit` (`cli.audit`) and `api` call `audit_run`, `audit_settings` or `audit_answers`.
Each takes its claim from the plan, designs the audit for it, observes canaries through the real
trainer (`privacy.auditing`), and bounds epsilon from below by what was seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

from fmfl_secure._version import __version__
from fmfl_secure.errors import RunError
from fmfl_secure.planning.answers import answer_plan, asked_of
from fmfl_secure.planning.audit_claim import (
    Against,
    Claim,
    TrainingPlan,
    claim_of,
    claim_of_answers,
)
from fmfl_secure.planning.task import build_task, largest_layout
from fmfl_secure.questions.registry import questions_of
from fmfl_secure.questions.respondent import Respondent
from fmfl_secure.report.results import write_results
from fmfl_secure.run.audit_record import FORMAT, AuditRecord, save_audit
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.settings.sections import TrainingSection
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.tasks import Task
from fmfl_secure.training.finished_run import open_run
from fmfl_secure.training.local_round import step_optimizer
from privacy import AuditError
from privacy.auditing import (
    DESIGN_FAULT,
    AuditDesign,
    Observation,
    SyntheticRecords,
    design_audit,
    evaluate,
    expected_bound,
    observe_answers,
    observe_canaries,
)
from privacy.queries import QueryPlan

# Where a unit is a person, a canary has as many records as make the classical mistake, clipping
# record by record, as gross as the noise that every audit is designed to catch.
_RECORDS_OF_A_PERSON = round(1 / DESIGN_FAULT)
_BEYOND = 1e9  # a canary's value in a question, before it is projected

OnStep = Callable[[int, int], None]
"""Finished steps, of how many."""


def audit_settings(
    federation: Path,
    *,
    confidence: float = 0.95,
    canaries: int | None = None,
    against: Against = "outsiders",
    on_step: OnStep | None = None,
) -> AuditRecord:
    """Audit what a `federation.toml` describes, before any run of it.

    Args:
        federation: Path of `federation.toml`.
        confidence: Of the lower bound.
        canaries: How many; None lets the claim decide.
        against: Whose view is audited, of the two that distributed noise is charged in.
        on_step: Told about progress.

    Raises:
        ConfigError: The settings are wrong.
        ModelError: The base model is missing, unsafe, or another than pinned.
        AuditError: There is no private claim, or it is too large to be refuted.
    """
    config = load_federation(federation)
    _require_noise(config)
    task = build_task(config, relative_to=federation.parent)
    return _audit(
        config,
        task,
        run="",
        confidence=confidence,
        canaries=canaries,
        against=against,
        on_step=on_step,
    )


def audit_run(
    folder: Path,
    *,
    base: Path | None = None,
    confidence: float = 0.95,
    canaries: int | None = None,
    against: Against = "outsiders",
    on_step: OnStep | None = None,
) -> AuditRecord:
    """Audit what a run's stored settings describe; writes `audit.json` and the report anew.

    Args:
        folder: The run's folder.
        base: The base model's folder; None finds it as the settings say.
        confidence: Of the lower bound.
        canaries: How many; None lets the claim decide.
        against: Whose view is audited, of the two that distributed noise is charged in.
        on_step: Told about progress.

    Raises:
        RunError: There is no run, it is damaged, or the base model is not the one it used.
        ModelError: The base model is missing, unsafe, or another than pinned.
        AuditError: There is no private claim, or it is too large to be refuted.
    """
    store = RunStore(folder)
    state = store.state
    config = state.config
    _require_noise(config)
    task = open_run(folder, base=base).task
    used = store.public().base_model_digest
    if used not in task.base.digests:
        raise RunError(
            f"the base model's digest is {task.base.digest}, the run's was {used}",
            hint="Name the folder of the model that the run used with --base.",
        )
    record = _audit(
        config,
        task,
        run=state.run,
        confidence=confidence,
        canaries=canaries,
        against=against,
        on_step=on_step,
    )
    # As the run has it: one of 0.1.0 digested fewer of the base model's files.
    record = msgspec.structs.replace(record, base_model_digest=used)
    save_audit(folder, record)
    write_results(store)
    return record


def _require_noise(config: FederationConfig) -> None:
    if not config.privacy.noise_mechanism.private:
        raise AuditError(
            "these settings train without privacy: there is no epsilon to audit",
            hint="Set privacy.noise = 'local' or 'distributed'.",
        )
    if not config.trains:
        raise AuditError(
            "these settings train nothing: there is no training to audit",
            hint="Name federation.toml with --answers, which audits what they ask.",
        )


def _audit(
    config: FederationConfig,
    task: Task,
    *,
    run: str,
    confidence: float,
    canaries: int | None,
    against: Against,
    on_step: OnStep | None,
) -> AuditRecord:
    started = time.process_time()
    model = task.build_model(seed=config.federation.seed)
    claim = claim_of(config, largest_layout(task, model).size, against)
    plan, mechanism = claim.plan, claim.mechanism
    # Everything that decides about guesses is fixed here, before anything is trained.
    design = design_audit(
        mechanism,
        epsilon=claim.epsilon,
        delta=plan.delta,
        confidence=confidence,
        canaries=canaries,
    )
    records_per_canary = 1 if plan.unit == "record" else _RECORDS_OF_A_PERSON
    synthetic = task.synthetic()
    observed = observe_canaries(
        model,
        plan=plan,
        loss=task.per_record_loss,
        records=SyntheticRecords(synthetic.collate, synthetic.record_cost),
        canaries=design.canaries,
        shares=max(claim.shares, 1),
        gradients=config.steps_at_server,
        records_per_canary=records_per_canary,
        build_optimizer=lambda parameters: _optimizer(parameters, config.training),
        physical_batch_size=config.training.physical_batch_size,
        begin_round=lambda number: task.begin_round(model, number),
        on_step=None if on_step is None else lambda step: on_step(step, mechanism.steps),
    )
    return _record(
        config,
        task,
        claim,
        design,
        observed,
        run=run,
        records_per_canary=records_per_canary,
        started=started,
    )


def audit_answers(
    federation: Path,
    *,
    confidence: float = 0.95,
    canaries: int | None = None,
    against: Against = "outsiders",
) -> AuditRecord:
    """Audit the answers that a `federation.toml` asks for, before any run of it.

    The questions, their vectors of made-up records, projection, sum, noise and grid are a site's.

    Args:
        federation: Path of `federation.toml`.
        confidence: Of the lower bound.
        canaries: How many; None lets the claim decide.
        against: Whose view is audited, of the two that distributed noise is charged in.

    Raises:
        ConfigError: The settings are wrong, or ask nothing.
        ModelError: The base model is missing, unsafe, or another than pinned.
        AuditError: The claim is too large to be refuted.
    """
    started = time.process_time()
    config = load_federation(federation)
    claim = claim_of_answers(config, against)
    task = build_task(config, relative_to=federation.parent)
    model = task.build_model(seed=config.federation.seed)
    design = design_audit(
        claim.mechanism,
        epsilon=claim.epsilon,
        delta=claim.plan.delta,
        confidence=confidence,
        canaries=canaries,
    )
    asked, plan = asked_of(config), answer_plan(config)
    respondent = Respondent(config.sites[0].name, config, task, task.synthetic(), model)
    vectors = {}
    for question in questions_of(asked):
        own = question.vectors(asked, respondent)
        # Far beyond the bound: what is left of it is what projection lets through.
        canary = np.zeros((1, own.shape[1]))
        canary[0, 0] = _BEYOND
        vectors[question.name] = np.concatenate([own, canary])
    observed = observe_answers(
        plan,
        vectors=vectors,
        trials=design.canaries,
        shares=max(claim.shares, 1),
        noise_multiplier=claim.mechanism.noise_multiplier,
    )
    record = _record(
        config, task, claim, design, observed, run="", records_per_canary=1, started=started
    )
    return msgspec.structs.replace(record, audited="answers")


def _record(
    config: FederationConfig,
    task: Task,
    claim: Claim[TrainingPlan] | Claim[QueryPlan],
    design: AuditDesign,
    observed: Observation,
    *,
    run: str,
    records_per_canary: int,
    started: float,
) -> AuditRecord:
    plan, mechanism = claim.plan, claim.mechanism
    result = evaluate(design, included=observed.included, scores=observed.scores)
    above = result.lower_bound > claim.epsilon
    return AuditRecord(
        format=FORMAT,
        federation=config.federation.name,
        run=run,
        settings_digest=config.digest,
        base_model_digest=task.base.digest,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        unit=plan.unit,
        rounds=plan.answers if isinstance(plan, QueryPlan) else plan.rounds,
        steps=mechanism.steps,
        sample_rate=mechanism.sample_rate,
        noise_multiplier=mechanism.noise_multiplier,
        claimed_epsilon=claim.epsilon,
        charged_epsilon=claim.charged_epsilon,
        delta=plan.delta,
        canaries=design.canaries,
        spare_canaries=observed.spare,
        records_per_canary=records_per_canary,
        guesses_in=design.guesses_in,
        guesses_out=design.guesses_out,
        correct=result.correct,
        confidence=design.confidence,
        lower_bound=result.lower_bound,
        verdict="above-claim" if above else "below-claim",
        expected_without_noise=expected_bound(design, mechanism, noise_factor=0.0),
        expected_noise_eighth=expected_bound(design, mechanism, noise_factor=DESIGN_FAULT),
        expected_noise_half=expected_bound(design, mechanism, noise_factor=0.5),
        expected_correct=expected_bound(design, mechanism, noise_factor=1.0),
        cpu_s=time.process_time() - started,
        against=claim.against,
        shares=claim.shares,
    )


def _optimizer(parameters: list[nn.Parameter], training: TrainingSection) -> torch.optim.Optimizer:
    # It moves weights by what the auditor has already seen, so any would do; canaries lie in
    # the head and elsewhere, and one rate for all keeps the weights in range.
    return step_optimizer(training)(parameters, lr=training.learning_rate)
