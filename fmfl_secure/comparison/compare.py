"""Arms x privacy targets x seeds, on a federation's own public data."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch

from fmfl_secure.comparison.arms import ARMS
from fmfl_secure.comparison.rows import FORMAT, Comparison, Row, go_on, keep
from fmfl_secure.comparison.simulate import simulate
from fmfl_secure.comparison.sources import Sources
from fmfl_secure.errors import ConfigError, ModelError
from fmfl_secure.planning.plans import site_plan
from fmfl_secure.planning.steps import USUAL_STEPS
from fmfl_secure.planning.task import largest_layout
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.tasks.classification import macro_f1
from privacy import DistributedPlan, PlanError, pld_epsilon

UNTRAINED = "untrained"
"""The row before all arms: the majority class, or the model before any training."""

OnRow = Callable[[Row], None]
OnRound = Callable[[str, int, int], None]
"""Told an arm's title, how many rounds are over, and of how many."""


def compare(
    federation: Path,
    *,
    arms: Sequence[str] = tuple(ARMS),
    epsilons: Sequence[float] = (),
    seeds: int = 3,
    steps_per_round: int | None = None,
    output: Path | None = None,
    on_row: OnRow | None = None,
    on_round: OnRound | None = None,
) -> Comparison:
    """Train every arm and evaluate it on the settings' evaluation data.

    Args:
        federation: Path of `federation.toml`.
        arms: Names of `ARMS`.
        epsilons: Privacy targets; empty takes the settings' own.
        seeds: How many, from 1 on.
        steps_per_round: Of the arm that steps at the sites; None takes the settings' own, or 4
            where they step at the server.
        output: Kept after every row, and gone on with if it is there.
        on_row: Told each new row.
        on_round: Told about progress.

    Returns:
        All rows, those of an earlier start with them.

    Raises:
        ConfigError: Data are not declared public, nothing is there to evaluate on, or an arm is
            not known.
        FmflError: Settings, model or data are unusable.
    """
    config = load_federation(federation)
    unknown = sorted(set(arms) - set(ARMS))
    if unknown:
        raise ConfigError(f"no arm is called {unknown[0]!r}", hint=f"Known: {', '.join(ARMS)}.")
    if config.adapter.personal_head:
        raise ConfigError("a comparison scores one model, and adapter.personal_head leaves many")
    sources = Sources(federation, config)
    done = Comparison(
        format=FORMAT,
        federation=config.federation.name,
        settings_digest=config.digest,
        base_model_digest=sources.task(config).base.digest,
        machine=_machine(),
    )
    if output is not None:
        done = go_on(done, output)
    for row in _rows(
        config,
        sources,
        done,
        arms=[name for name in ARMS if name in set(arms)],
        epsilons=tuple(epsilons) or (config.privacy.epsilon,),
        seeds=range(1, seeds + 1),
        steps_per_round=steps_per_round or _steps_at_once(config),
        on_round=on_round,
    ):
        if isinstance(row, Row):
            done = done.with_row(row)
            if on_row is not None:
                on_row(row)
        else:
            done = done.with_refusal(*row)
        if output is not None:
            keep(done, output)
    return done


def _rows(
    config: FederationConfig,
    sources: Sources,
    done: Comparison,
    *,
    arms: Sequence[str],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    steps_per_round: int,
    on_round: OnRound | None,
) -> Iterator[Row | tuple[str, str]]:
    """The rows that are not done yet, and the name and reason of each arm that cannot be."""
    if not done.has((UNTRAINED, None, 0)):
        yield Row(arm=UNTRAINED, epsilon=None, seed=0, metrics=_untrained(config, sources))
    refused: set[str] = set()
    for seed in seeds:
        for name in arms:
            arm = ARMS[name]
            for epsilon in epsilons if arm.private else (None,):
                if name in refused or done.has((name, epsilon, seed)):
                    continue
                try:
                    changed = arm.settings(
                        config,
                        steps_per_round=steps_per_round,
                        epsilon=epsilon or config.privacy.epsilon,
                        seed=seed,
                    )
                    yield _row(name, epsilon, changed, sources, on_round)
                except (ValueError, PlanError, ModelError) as error:
                    refused.add(name)
                    yield name, str(error)


def _row(
    name: str,
    epsilon: float | None,
    config: FederationConfig,
    sources: Sources,
    on_round: OnRound | None,
) -> Row:
    arm, task = ARMS[name], sources.task(config)
    began = time.process_time()
    found: dict[str, dict[str, float]] = {}
    for parties in sources.parties(arm, config):
        model = simulate(
            config,
            task,
            parties,
            on_round=None
            if on_round is None
            else lambda n: on_round(arm.title, n, config.federation.rounds),
        )
        found[next(iter(parties))] = task.evaluate(
            model, sources.evaluation(config), batch_size=config.training.physical_batch_size
        )
    spent = time.process_time() - began
    metrics = {
        m: float(np.mean([of[m] for of in found.values()])) for m in next(iter(found.values()))
    }
    size = largest_layout(task, task.build_model(seed=config.federation.seed)).size
    plan = site_plan(config, config.sites[0], size)
    steps = config.federation.rounds * config.privacy.steps_per_round
    row = Row(
        arm=name,
        epsilon=epsilon,
        seed=config.federation.seed,
        metrics=metrics,
        by_site=found if arm.parties == "alone" else {},
        steps=steps,
        cpu_s=round(spent, 2),
    )
    if plan is None:
        return row
    return msgspec.structs.replace(
        row,
        noise_multiplier=plan.noise_multiplier,
        pld_epsilon=pld_epsilon([plan.round_event()] * plan.rounds, config.privacy.delta),
        insider_epsilon=plan.insider_epsilon() if isinstance(plan, DistributedPlan) else None,
    )


def _steps_at_once(config: FederationConfig) -> int:
    return USUAL_STEPS if config.steps_at_server else config.privacy.steps_per_round


def _untrained(config: FederationConfig, sources: Sources) -> dict[str, float]:
    data = sources.evaluation(config)
    if not data.labels.size:
        task = sources.task(config)
        model = task.build_model(seed=config.federation.seed)
        return task.evaluate(model, data, batch_size=config.training.physical_batch_size)
    training = np.concatenate([each.labels for each in sources.by_site(config).values()])
    answers = np.full_like(data.labels, np.bincount(training).argmax())
    return {
        "accuracy": float((answers == data.labels).mean()),
        "macro_f1": macro_f1(answers, data.labels),
    }


def _machine() -> dict[str, str | int]:
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
