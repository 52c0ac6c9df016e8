"""A site's own part of a round: its charge, then its data, then its update, made and stored once.

It reads the data and says nothing to anybody. The charge is durable before they are read, and what
was made of them is stored before it is handed out, so that no round is trained twice unpaid.

`parties.site` calls `update`. A stored update is handed out again; else the round's parameters are
set, the charge is written, data are read, the training or answer runs, and its integers are
stored.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import nn

from aggregation import RoundPlan
from fmfl_secure.parties.own_parts import OwnParts
from fmfl_secure.parties.run_budget import RunBudget
from fmfl_secure.parties.site_data import SiteSource
from fmfl_secure.planning.answers import asked_of
from fmfl_secure.planning.noise import Plan
from fmfl_secure.planning.task import require_asked
from fmfl_secure.settings.sections import SiteEntry
from fmfl_secure.storage.update_store import UpdateStore
from fmfl_secure.tasks import TaskData
from fmfl_secure.training.answering import answer_locally
from fmfl_secure.training.constant_work import even_rounds
from fmfl_secure.training.local_round import train_locally

_LOG = logging.getLogger("fmfl_secure.parties.site_training")


@dataclasses.dataclass(frozen=True, slots=True)
class _Trained:
    """A round's training or answer that is done, and not stored yet."""

    round: int
    integers: NDArray[np.int32]
    personal: bytes = b""


class SiteTraining:
    """Computes one site's updates from its data, in the rounds of one run.

    Args:
        source: Its data, with its own settings, the federation's, and the task.
        run: Run id.
        entry: What the federation's settings say of the site.
        model: A model of that task, which this may use while one of its methods runs.
        plan: What its privacy is held to; None without noise.
        budget: What is charged; None of data declared public, without noise.
        updates: Where what was made is stored.
        own: Parts of the adapter that the site keeps for itself, if any.

    Attributes:
        looks_at_data: Whether what `update` does depends on a unit by now, and so what fails in it.
    """

    def __init__(
        self,
        source: SiteSource,
        *,
        run: str,
        entry: SiteEntry,
        model: nn.Module,
        plan: Plan | None,
        budget: RunBudget | None,
        updates: UpdateStore,
        own: OwnParts,
    ) -> None:
        self.name = entry.name
        self._source = source
        self._config = source.config
        self._task = source.task
        self._model = model
        self._run = run
        self._plan = plan
        self._budget = budget
        self._updates = updates
        self._own = own
        self._data: TaskData | None = None
        self.looks_at_data = False
        # What the surroundings took apart goes on where it was, at no further charge.
        self._unstored: _Trained | None = None
        self._even = even_rounds(self._config, entry, self._task, least_s=source.site.time.round_s)
        self._even_answers = self._even.for_answers() if self._even else None

    def update(
        self, plan: RoundPlan, adapter: bytes, on_step: Callable[[int], None] | None
    ) -> NDArray[np.int32]:
        """The quantised update of a round, or its part in an answer: stored, or made now.

        Args:
            plan: The round's plan.
            adapter: What the round starts from.
            on_step: Called with the number of finished steps, 0 when charge and data are there.

        Returns:
            int32, shape (d,).
        """
        self.looks_at_data = False
        asks = self._config.turn(plan.round).asked is not None
        even = self._even_answers if asks else self._even
        with even.paced() if even else nullcontext():
            stored = self._updates.get(self._run, plan.round)
            if stored is not None:
                return stored
            if self._unstored is not None and self._unstored.round == plan.round:
                return self._store(self._unstored)
            if asks:
                return self._answer(plan, adapter, on_step)
            return self._train(plan, adapter, on_step)

    def _train(
        self, plan: RoundPlan, adapter: bytes, on_step: Callable[[int], None] | None
    ) -> NDArray[np.int32]:
        layout = self._task.begin_round(self._model, self._config.turn(plan.round).training)
        if self._even is not None:
            self._even.prepare(self._model)
        personal = self._own.now()
        self._look_again()
        if self._budget is not None:
            self._budget.charge(plan.round)
        data = self._read_data().to_train()
        work = None
        if self._even is not None:
            data, work = self._even.work_on(data, self._model)
        if on_step is not None:
            on_step(0)
        if self._budget is not None:
            self._budget.used()
        integers = train_locally(
            self._model,
            adapter,
            data,
            config=self._config,
            task=self._task,
            plan=self._plan,
            layout=layout,
            rank=self._config.ranks()[self.name],
            quantization=plan.quantization,
            weight=self._config.weights()[self.name],
            personal=personal,
            work=work,
            on_step=on_step,
        )
        self._unstored = _Trained(plan.round, integers, self._own.of(self._model))
        return self._store(self._unstored)

    def _store(self, trained: _Trained) -> NDArray[np.int32]:
        self._updates.put(self._run, trained.round, trained.integers, personal=trained.personal)
        self._unstored = None
        return trained.integers

    def _answer(
        self, plan: RoundPlan, adapter: bytes, on_step: Callable[[int], None] | None
    ) -> NDArray[np.int32]:
        answer = partial(
            answer_locally,
            self._model,
            adapter,
            site=self.name,
            config=self._config,
            task=self._task,
            personal=self._own.now(),
        )
        require_asked(self._model, adapter, asked_of(self._config))
        if self._even_answers is not None:
            self._even_answers.prepare_answer(answer)
        self._look_again()
        if self._budget is not None:
            self._budget.charge(plan.round)
        data = self._read_data()
        if self._even_answers is not None:
            data = self._even_answers.capped(data)
        if on_step is not None:
            on_step(0)
        if self._budget is not None:
            self._budget.used()
        integers = answer(data)
        self._unstored = _Trained(plan.round, integers)
        return self._store(self._unstored)

    def _look_again(self) -> None:
        """Check data that are not read yet: they may have changed since the run began."""
        if self._data is None:
            self._source.check()

    def _read_data(self) -> TaskData:
        self.looks_at_data = True
        if self._data is None:
            self._data = self._source.read()
            if self._data.left_out:
                # For this site's own people, on its own machine; no message says it.
                _LOG.warning("%s: %s", self.name, self._data.left_out, extra={"run": self._run})
            if self._data.shortened:
                _LOG.warning(
                    "%s: %d of %d records are longer than model.max_length, and were cut",
                    self.name,
                    self._data.shortened,
                    self._data.records,
                    extra={"run": self._run},
                )
            if self._data.unread:
                said = self._data.said_of_unread
                _LOG.warning("%s: %s", self.name, said, extra={"run": self._run})
        return self._data
