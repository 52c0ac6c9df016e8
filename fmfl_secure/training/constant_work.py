"""A round whose work does not tell who was sampled, and whose time does not tell its work.

What is computed is declared (`privacy.StepWork`); dummies are a made-up record. A round answers at
the end of a period that was measured on dummies, before data were read, or at its next multiple.

`parties.site_training` makes a site's `EvenRounds` from settings, calls `prepare` before its first
round, and computes `work_on` its data inside `paced`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.errors import ConfigError
from fmfl_secure.models.batches import Batch, join_evenly
from fmfl_secure.models.prefix import RecordCache
from fmfl_secure.planning.work import declared_records, step_work
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.sections import SiteEntry
from fmfl_secure.tasks import Task, TaskData
from privacy import DUMMY, ConstantWork, PaddedCollate, StepWork, cap_contributions

_LOG = logging.getLogger("fmfl_secure.training.constant_work")
# A period is so many times what a round of dummies took: machines have other things to do.
_ROOM = 1.5


@dataclass(frozen=True, slots=True)
class Declared:
    """Declared sizes of a site's data, which constant work is made for.

    Attributes:
        records: Of all units, at most `most` of each.
        most: Records of one unit.
        shares: (tokens, share): so large a share of them belong to units with a longer record.
    """

    records: int
    most: int
    shares: tuple[tuple[int, float], ...]

    def exceeded_by(self, data: TaskData) -> list[str]:
        """In which ways data are more than was declared. For the site's own people alone."""
        sizes = np.array([min(len(unit), self.most) for unit in data.units], dtype=np.int64)
        longest = np.array([data.record_cost[unit].max(initial=0) for unit in data.units])
        found = []
        if sizes.sum() > self.records:
            found.append(
                f"{sizes.sum()} records, at most {self.most} a person, are more than the "
                f"{self.records} declared: declare more, or rounds take longer for some people"
            )
        for tokens, share in self.shares:
            long = int(sizes[longest > tokens].sum())
            if long > share * self.records:
                found.append(
                    f"{long} records belong to people with one of more than {tokens} tokens, and "
                    f"a share of {share:g} was declared: declare a larger one"
                )
        return found


def declared_by(config: FederationConfig, entry: SiteEntry) -> Declared:
    """Reads the declared sizes of a site's data from settings."""
    privacy = config.privacy
    most = privacy.max_records_per_unit
    return Declared(declared_records(config, entry), most, privacy.length_shares)


@dataclass(slots=True)
class EvenRounds:
    """A site's rounds, each of the same work, answered at times fixed before data are read.

    Attributes:
        site: Whose, for its own log.
        task: The task, which makes up the dummies.
        step: What every step computes.
        steps: Of a round.
        least_s: Shortest period, in seconds.
        declared: What the work is made for.
        cache_bytes: Memory that outputs of frozen layers may take.
        clock: Seconds, from anywhere.
        sleep: Waits so many seconds.
        period_s: Of this run; 0 until it is measured.
    """

    site: str
    task: Task
    step: StepWork
    steps: int
    least_s: float
    declared: Declared
    cache_bytes: int = 0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    period_s: float = 0.0
    _cache: RecordCache = field(default_factory=lambda: RecordCache(0))
    _work: tuple[TaskData, ConstantWork] | None = None

    def prepare(self, model: nn.Module) -> None:
        """Fix the period, the first time, by how long a round of dummies takes. Reads no data."""
        if self.period_s:
            return
        self._cache = RecordCache(self.cache_bytes)
        self._measure(model)
        if not self._keeps_all():  # then nothing is kept: what is would be told by time
            self._cache = RecordCache(0)
        # The faster of two: a machine that was busy with something else would set the pace.
        took_s = min(self._measure(model), self._measure(model))
        self.period_s = max(self.least_s, _ROOM * self.steps * took_s)

    def for_answers(self) -> EvenRounds:
        """The same site's, for rounds that ask instead of training: of a period of their own."""
        return replace(self, period_s=0.0, _work=None)

    def capped(self, data: TaskData) -> TaskData:
        """At most so many records of a unit as declared, drawn anew."""
        return replace(data, units=cap_contributions(data.units, self.declared.most))

    def prepare_answer(self, answer: Callable[[TaskData], object]) -> None:
        """Fix the period, the first time, by how long made-up records take. Reads no data.

        Args:
            answer: Answers from these data.
        """
        if self.period_s:
            return
        made_up = self.task.synthetic()
        took_s = []
        for _ in range(2):
            began_s = self.clock()
            answer(made_up)
            took_s.append(self.clock() - began_s)
        # The faster of two, as for training; per record, for all that were declared.
        rounds = max(1.0, self.declared.records / made_up.records)
        self.period_s = max(self.least_s, _ROOM * rounds * min(took_s))

    def work_on(self, data: TaskData, model: nn.Module) -> tuple[TaskData, ConstantWork]:
        """The site's data, at most so many records of a unit as declared, and their constant work.

        The first time, frozen layers compute as many rows as were declared, whatever there are.

        Args:
            data: All of the site's.
            model: Prepared, and as it will be trained.
        """
        if self._work is None:
            for complaint in self.declared.exceeded_by(data):
                _LOG.warning("%s: %s", self.site, complaint)
            # Once for the run: another draw would bring records that frozen layers have not seen.
            units = cap_contributions(data.units, self.declared.most)
            collate = padded_collate(data, self.task.synthetic(), self._cache)
            work = ConstantWork(self.step, collate, self._over)
            self._work = replace(data, units=units), work
            self._compute_prefix(units, collate, model)
        return self._work

    @contextmanager
    def paced(self) -> Iterator[None]:
        """Makes the block inside end, failing or not, at the end of a period, or of a later one."""
        began_s = self.clock()
        try:
            yield
        finally:
            if self.period_s:  # else nothing was read
                took_s = self.clock() - began_s
                periods = max(1, math.ceil(took_s / self.period_s))
                self.sleep(max(0.0, periods * self.period_s - took_s))

    def _measure(self, model: nn.Module) -> float:
        made_up = self.task.synthetic()
        collate = padded_collate(made_up, made_up, self._cache)
        from privacy.training import measure_step  # noqa: PLC0415 - brings Opacus

        return measure_step(
            model,
            parameters=[p for p in model.parameters() if p.requires_grad],
            loss=self.task.per_record_loss,
            collate=made_up.collate,
            work=ConstantWork(self.step, collate, lambda _: None),
        )

    def _keeps_all(self) -> bool:
        """Whether what is kept of the dummy fits for all records declared, of the longest kind."""
        size_bytes = 0
        for key in self._cache:
            kept = self._cache[key]
            values = kept.shape[-1] * self._longest if key[0] == "text" else kept.numel()
            size_bytes += values * kept.element_size()
        return size_bytes * (self.declared.records + 1) <= self.cache_bytes

    @property
    def _longest(self) -> int:
        return self.step.lengths[-1]

    def _compute_prefix(
        self, units: Sequence[NDArray[np.int64]], collate: PaddedCollate, model: nn.Module
    ) -> None:
        if not self._cache:
            return  # nothing is kept
        usable = self.step.rows - 1
        passes = math.ceil(max(self.declared.records, sum(map(len, units))) / usable)
        records = np.full(passes * usable, DUMMY, dtype=np.int64)
        own = np.concatenate([*units, np.empty(0, dtype=np.int64)])
        records[: len(own)] = own
        from privacy.training import whole_float32  # noqa: PLC0415 - brings Opacus

        with torch.no_grad(), whole_float32():
            for chosen in np.split(records, passes):
                # Every row is new to a cache of this pass alone, dummies as well.
                passing = RecordCache(self.cache_bytes)
                batch = collate(np.append(chosen, DUMMY), self._longest)
                self.task.per_record_loss(model, replace(batch, cache=passing))
                for key in passing:
                    self._cache.put(key, passing[key])

    def _over(self, rows: int) -> None:
        # For the site's own people: this step took longer, and whoever watches saw that.
        _LOG.warning(
            "%s: %d rows did not fit the declared work; declare more records, or longer ones",
            self.site,
            rows,
        )


def even_rounds(
    config: FederationConfig, entry: SiteEntry, task: Task, *, least_s: float
) -> EvenRounds | None:
    """A site's even rounds; None where the settings do not ask for them.

    Raises:
        ConfigError: The task, of another package, cannot do it.
        PlanError: The work that settings declare is out of range.
    """
    if not config.constant_work:
        return None
    if not isinstance(task.synthetic().collate(np.zeros(1, dtype=np.int64)), Batch):
        raise ConfigError(
            f"the task {task.kind!r} has batches that cannot be filled up with dummies",
            hint="privacy.constant_time = false; round times then tell of people with many records",
        )
    return EvenRounds(
        site=entry.name,
        task=task,
        step=step_work(config, entry),
        steps=config.privacy.steps_per_round,
        least_s=least_s,
        declared=declared_by(config, entry),
        cache_bytes=config.training.cache_mib << 20,
    )


def padded_collate(data: TaskData, made_up: TaskData, cache: RecordCache) -> PaddedCollate:
    """Batches of records and, in the place of dummies, of a made-up one; all rows equally long.

    Args:
        data: Whose records these are.
        made_up: Its first record is the dummy.
        cache: Where outputs of frozen layers are kept, of all batches.
    """

    def collate(records: NDArray[np.int64], length: int) -> Batch:
        own = records[records != DUMMY]
        dummies = np.zeros(len(records) - len(own), dtype=np.int64)
        parts = [data.collate(own)] if len(own) else []
        if len(dummies):
            parts.append(made_up.collate(dummies))
        batch: Batch = join_evenly(parts, length)
        return replace(batch, records=records.tolist(), cache=cache)

    return collate
