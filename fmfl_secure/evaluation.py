"""Evaluating a finished adapter on a labelled file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from fmfl_secure.config import FederationConfig, ModelSection, decode_config
from fmfl_secure.planning import build_task
from fmfl_secure.run_store import RunStore
from fmfl_secure.tasks import Task


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run whose adapter is used.

    Attributes:
        folder: The run's folder.
        config: The settings it ran with.
        task: The task, with the base model found and checked.
    """

    folder: Path
    config: FederationConfig
    task: Task

    @property
    def adapter(self) -> Path:
        """Folder of the adapter."""
        return self.folder / "adapter"


def open_run(run_folder: Path, *, base: Path | None = None) -> FinishedRun:
    """Open a run for using its adapter, as a user would, from its files.

    Args:
        run_folder: The run.
        base: The base model's folder; None finds it as the run's settings say.

    Raises:
        FmflError: The run or its base model is unusable.
    """
    store = RunStore(run_folder)
    config = decode_config(store.require("config"))
    if base is not None:
        model = ModelSection(
            base=str(base.resolve()), digest=config.model.digest, max_length=config.model.max_length
        )
        config = msgspec.structs.replace(config, model=model)
    origin = Path(store.require("origin").decode())
    return FinishedRun(run_folder, config, build_task(config, relative_to=origin))


def evaluate_run(run_folder: Path, data: Path, *, base: Path | None = None) -> dict[str, float]:
    """Metrics of a run's adapter, opened from its files as a user would.

    The figures are exact: computed on private data they are not private, and must stay there.

    Args:
        run_folder: The run.
        data: A labelled file with the task's columns.
        base: The base model's folder; None finds it as the run's settings say.

    Raises:
        FmflError: Run, adapter or data are unusable.
    """
    run = open_run(run_folder, base=base)
    loaded = run.task.load(data, unit="record", on_bad_row=run.config.task.on_bad_row)
    opened = run.task.open_adapter(run.adapter)
    batch_size = run.config.training.physical_batch_size
    return run.task.evaluate(opened, loaded, batch_size=batch_size)
