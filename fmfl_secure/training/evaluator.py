"""Utility figures of a run, on the evaluation set that was declared public."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from fmfl_secure.measures import Outcomes
from fmfl_secure.models.adapters import load_adapter_bytes, set_adapter_tensors
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.tasks import Task, TaskData

_LOG = logging.getLogger("fmfl_secure.training.evaluator")


class Utility:
    """Evaluates the adapter that a run has reached. Reads the set once, when it is first needed.

    Args:
        config: The federation's settings; `[evaluation]` names the set.
        task: The task that they describe.
        model: Base model and adapter; holds the adapter that was evaluated last.
        folder: What the set's path is relative to.
    """

    def __init__(
        self, config: FederationConfig, task: Task, model: nn.Module, folder: Path
    ) -> None:
        self._config = config
        self._task = task
        self._model = model
        self._folder = folder
        self._data: TaskData | None = None

    def prepare(self) -> None:
        """Read the set ahead, so that what is wrong with it ends no run that holds a budget.

        Raises:
            DataError: The set cannot be used.
        """
        if self._config.evaluation.file and self._config.trains:
            self._set()

    def before(self, adapter: bytes) -> dict[str, float]:
        """Metrics before the first round; empty without an evaluation set.

        Raises:
            DataError: The set cannot be used.
        """
        return self.measure(adapter) if self._config.evaluation.file else {}

    def after(self, round_number: int, adapter: bytes) -> dict[str, float]:
        """Metrics after a round that is evaluated, otherwise empty.

        Raises:
            DataError: The set cannot be used.
        """
        return self.before(adapter) if is_due(self._config, round_number) else {}

    def measure(self, adapter: bytes) -> dict[str, float]:
        """Metrics of an adapter.

        Raises:
            DataError: The set cannot be used.
        """
        set_adapter_tensors(self._model, load_adapter_bytes(adapter))
        return self._task.evaluate(self._model, self._set(), batch_size=self._batch_size)

    @property
    def records(self) -> int:
        """How many records the set has.

        Raises:
            DataError: The set cannot be used.
        """
        return self._set().records

    def outcomes(self, adapter: bytes) -> Outcomes:
        """Runs a model with an adapter on each record.

        Raises:
            DataError: The set cannot be used.
        """
        set_adapter_tensors(self._model, load_adapter_bytes(adapter))
        return self._task.outcomes(self._model, self._set(), batch_size=self._batch_size)

    @property
    def _batch_size(self) -> int:
        return self._config.training.physical_batch_size

    def _set(self) -> TaskData:
        if self._data is None:
            self._data = self._task.load(
                self._folder / self._config.evaluation.file,
                unit="record",
                on_bad_row=self._config.task.on_bad_row,
            )
            if self._data.left_out:
                _LOG.warning("evaluation.data: %s", self._data.left_out)
        return self._data


def is_due(config: FederationConfig, round_number: int) -> bool:
    """Whether the settings ask for figures of a round: every so many, the last, and 0."""
    last = round_number == config.federation.rounds
    return last or round_number % config.evaluation.every == 0
