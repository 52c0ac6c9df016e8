"""Adapters x arms x privacy targets x seeds x partitions, on a federation's own public data.

`fmfl-secure compare` (`cli.compare`) and `Federation.compare` (`api`) call `compare`. It lists the
cells that are wanted, passes over those that the file already has, trains and evaluates one after
the other, and appends each row as it is measured.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import torch

from fmfl_secure.comparison.arms import ARMS, Arm
from fmfl_secure.comparison.partitions import Shares, check_partition, label_mix
from fmfl_secure.comparison.rows import (
    FORMAT,
    OWN,
    Comparison,
    Header,
    Refusal,
    Row,
    append,
    go_on,
)
from fmfl_secure.comparison.scores import SITE_ACCURACY, Mixes, mean_of, mean_on_mixes, score
from fmfl_secure.comparison.simulate import simulate
from fmfl_secure.comparison.sources import Sources, with_populations
from fmfl_secure.errors import ConfigError, ModelError
from fmfl_secure.planning.plans import site_plan
from fmfl_secure.planning.steps import USUAL_STEPS
from fmfl_secure.planning.task import largest_layout
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.settings.types import AdapterKind
from fmfl_secure.tasks.classification import macro_f1
from privacy import DistributedPlan, PlanError, pld_epsilon

UNTRAINED = "untrained"
"""The row before all arms: the majority class, or the model before any training."""

START = "start"
"""The row after it, where there is a majority class and yet a model that answers untrained: with
a head that starts from its labels' texts, or a language model that says a declared response."""

OnRow = Callable[[Row], None]
OnRound = Callable[[str, int, int], None]
"""Told an arm's title, how many rounds are over, and of how many."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """One row to be: everything that tells it from others."""

    partition: str
    adapter: str
    arm: str
    epsilon: float | None
    seed: int


def compare(
    federation: Path,
    *,
    adapters: Sequence[str] = (),
    arms: Sequence[str] = tuple(ARMS),
    epsilons: Sequence[float] = (),
    partitions: Sequence[str] = (OWN,),
    seeds: int = 3,
    steps_per_round: int | None = None,
    output: Path | None = None,
    on_row: OnRow | None = None,
    on_round: OnRound | None = None,
) -> Comparison:
    """Train every arm with every adapter and evaluate it on the settings' evaluation data.

    Args:
        federation: Path of `federation.toml`.
        adapters: Kinds; empty takes the linear probe, `head`, and the settings' own.
        arms: Names of `ARMS`.
        epsilons: Privacy targets; empty takes the settings' own.
        partitions: `own`, and `dirichlet:ALPHA` to share all sites' units out anew by label, for
            each seed once.
        seeds: How many, from 1 on.
        steps_per_round: Of the arms that step at the sites; None takes the settings' own, or 4
            where they step at the server.
        output: Rows are appended to it as they come, and those that are there are not made again.
        on_row: Told each new row.
        on_round: Told about progress.

    Returns:
        All rows, those of an earlier start with them.

    Raises:
        ConfigError: Data are not declared public, nothing is there to evaluate on, or an arm, an
            adapter or a partition is not known.
        FmflError: Settings, model or data are unusable.
    """
    config = load_federation(federation)
    adapters = tuple(dict.fromkeys(adapters or ("head", config.adapter.kind)))
    _check_names(config, adapters, arms, partitions)
    _check_effect(arms, epsilons, partitions, steps_per_round)
    sources = Sources(federation, config)
    header = Header(
        format=FORMAT,
        federation=config.federation.name,
        settings_digest=config.digest,
        base_model_digest=sources.task(config).base.digest,
        machine=_machine(),
    )
    done = go_on(header, output)
    runner = _Runner(config, sources, steps_per_round or _steps_at_once(config), on_round)
    cells = _cells(
        config,
        adapters=adapters,
        arms=[name for name in ARMS if name in set(arms)],
        epsilons=tuple(epsilons) or (config.privacy.epsilon,),
        partitions=partitions,
        seeds=range(1, seeds + 1),
    )
    for line in runner.lines(cells, done):
        before, done = done, done.adding(line)
        if output is not None and done is not before:
            append(output, line)
        if isinstance(line, Row) and on_row is not None:
            on_row(line)
    return done


def _cells(
    config: FederationConfig,
    *,
    adapters: Sequence[str],
    arms: Sequence[str],
    epsilons: Sequence[float],
    partitions: Sequence[str],
    seeds: Sequence[int],
) -> Iterator[_Cell]:
    """In an order in which a start that is cut short leaves whole tables of fewer seeds."""
    yield _Cell(OWN, "", UNTRAINED, None, 0)
    if getattr(config.task, "label_texts", ()) or getattr(config.task, "responses", ()):
        yield _Cell(OWN, "", START, None, 0)
    for seed in seeds:
        for adapter in adapters:
            for partition in partitions:
                for arm in arms:
                    # Whoever has all data has them however they were shared out.
                    where = OWN if ARMS[arm].parties == "pooled" else partition
                    for epsilon in epsilons if ARMS[arm].private else (None,):
                        yield _Cell(where, adapter, arm, epsilon, seed)


class _Runner:
    """Makes rows of cells."""

    def __init__(
        self,
        config: FederationConfig,
        sources: Sources,
        steps_per_round: int,
        on_round: OnRound | None,
    ) -> None:
        self._config, self._sources = config, sources
        self._steps_per_round, self._on_round = steps_per_round, on_round

    def lines(self, cells: Iterator[_Cell], done: Comparison) -> Iterator[Row | Refusal]:
        """A row of each cell that is not there yet, or why there is none."""
        made = {row.key for row in done.rows}
        for cell in cells:
            row = Row(
                partition=cell.partition,
                adapter=cell.adapter,
                arm=cell.arm,
                epsilon=cell.epsilon,
                seed=cell.seed,
                metrics={},
            )
            if row.key in made:
                continue
            made.add(row.key)
            if cell.arm == START and not self._labelled(self._config):
                continue  # then the row before it is the same
            if cell.arm in {UNTRAINED, START}:
                metrics = self._start() if cell.arm == START else self._untrained()
                yield msgspec.structs.replace(row, metrics=metrics)
                continue
            try:
                yield self._trained(row)
            except (ValueError, PlanError, ModelError) as error:
                yield Refusal(cell.partition, cell.adapter, cell.arm, cell.epsilon, str(error))

    def _trained(self, row: Row) -> Row:
        arm, replace = ARMS[row.arm], msgspec.structs.replace
        config = replace(self._config, adapter=replace(self._config.adapter, kind=row.adapter))
        shares = self._sources.shares(config, row.partition, row.seed)
        if row.partition != OWN:
            config = with_populations(config, shares)
        config = arm.settings(
            config,
            steps_per_round=self._steps_per_round,
            epsilon=row.epsilon or config.privacy.epsilon,
            seed=row.seed,
        )
        found, spent = self._train(arm, config, shares)
        task = self._sources.task(config)
        size = largest_layout(task, task.build_model(seed=row.seed)).size
        plan = site_plan(config, config.sites[0], size)
        row = replace(
            row,
            metrics=mean_of(found),
            by_site=found if len(found) > 1 else {},
            steps=config.federation.rounds * config.privacy.steps_per_round,
            size=size,
            cpu_s=round(spent, 2),
        )
        if plan is None:
            return row
        return replace(
            row,
            noise_multiplier=plan.noise_multiplier,
            pld_epsilon=pld_epsilon([plan.round_event()] * plan.rounds, config.privacy.delta),
            insider_epsilon=plan.insider_epsilon() if isinstance(plan, DistributedPlan) else None,
        )

    def _train(
        self, arm: Arm, config: FederationConfig, shares: Shares
    ) -> tuple[dict[str, dict[str, float]], float]:
        """Metrics of every model that there is in the end, and CPU seconds."""
        task, sources = self._sources.task(config), self._sources
        held_out, mixes = sources.evaluation(config), self._mixes(config, shares)
        began, found = time.process_time(), {}
        for parties in sources.parties(arm, config, shares):
            trained = simulate(config, task, parties, on_round=self._teller(arm, config))
            alone = arm.parties == "alone"
            for site in trained.own or list(parties)[:1]:
                own = alone or bool(trained.own)
                found[site] = score(
                    task,
                    trained.at(site),
                    held_out,
                    {site: mixes[site]} if own and mixes else mixes,
                    batch_size=config.training.physical_batch_size,
                )
        return found, time.process_time() - began

    def _teller(self, arm: Arm, config: FederationConfig) -> Callable[[int], None] | None:
        tell, rounds = self._on_round, config.federation.rounds
        return None if tell is None else lambda done: tell(arm.title, done, rounds)

    def _mixes(self, config: FederationConfig, shares: Shares) -> Mixes:
        if not self._labelled(config):
            return {}
        data = self._sources.pooled(config)
        return {site: label_mix(data, units) for site, units in shares.items()}

    def _labelled(self, config: FederationConfig) -> bool:
        """Whether every record has one label, or one of the declared responses."""
        sources = self._sources
        return bool(sources.pooled(config).labels.size and sources.evaluation(config).labels.size)

    def _untrained(self) -> dict[str, float]:
        config, sources = self._config, self._sources
        held_out = sources.evaluation(config)
        if not self._labelled(config):
            return self._start()
        answer = int(np.bincount(sources.pooled(config).labels).argmax())
        answers = np.full_like(held_out.labels, answer)
        mixes = self._mixes(config, sources.shares(config, OWN, 0))
        return {
            "accuracy": float((answers == held_out.labels).mean()),
            "macro_f1": macro_f1(answers, held_out.labels),
            SITE_ACCURACY: mean_on_mixes(answers, held_out.labels, mixes),
        }

    def _start(self) -> dict[str, float]:
        config, sources = self._config, self._sources
        task = sources.task(config)
        return score(
            task,
            task.build_model(seed=config.federation.seed),
            sources.evaluation(config),
            self._mixes(config, sources.shares(config, OWN, 0)),
            batch_size=config.training.physical_batch_size,
        )


def _check_names(
    config: FederationConfig,
    adapters: Sequence[str],
    arms: Sequence[str],
    partitions: Sequence[str],
) -> None:
    # Another package's adapter is code, which the settings name or nobody does.
    kinds = dict.fromkeys((*get_args(AdapterKind), config.adapter.kind))
    for given, known, what in ((arms, tuple(ARMS), "arm"), (adapters, tuple(kinds), "adapter")):
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ConfigError(
                f"no {what} is called {unknown[0]!r}", hint=f"Known: {', '.join(known)}."
            )
    for partition in partitions:
        check_partition(partition, OWN)


def _check_effect(
    arms: Sequence[str],
    epsilons: Sequence[float],
    partitions: Sequence[str],
    steps_per_round: int | None,
) -> None:
    """Refuse what none of the arms would heed."""
    chosen = [ARMS[name] for name in arms]
    heeded = {
        "--epsilon": not epsilons or any(arm.private for arm in chosen),
        "--partition": set(partitions) <= {OWN} or any(a.parties != "pooled" for a in chosen),
        "--steps-per-round": steps_per_round is None or any(arm.at_sites for arm in chosen),
    }
    for option, is_heeded in heeded.items():
        if not is_heeded:
            raise ConfigError(
                f"{option} changes nothing of {', '.join(arms)}",
                hint="Leave it out, or choose other arms with --only.",
            )


def _steps_at_once(config: FederationConfig) -> int:
    return USUAL_STEPS if config.steps_at_server else config.privacy.steps_per_round


def _machine() -> dict[str, str | int]:
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
