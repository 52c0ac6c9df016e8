"""Evaluating a finished adapter on a labelled file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fmfl_secure.config import ModelSection, decode_config
from fmfl_secure.planning import build_task
from fmfl_secure.run_store import RunStore
from fmfl_secure.tasks import Task


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
    store = RunStore(run_folder)
    config = decode_config(store.require("config"))
    task = task_of_run(store, base=base)
    loaded = task.load(data, unit="record", on_bad_row=config.task.on_bad_row)
    opened = task.open_adapter(run_folder / "adapter")
    return task.evaluate(opened, loaded, batch_size=config.training.physical_batch_size)


def task_of_run(store: RunStore, *, base: Path | None = None) -> Task:
    """The task that a run's stored settings describe.

    Args:
        store: The run's state.
        base: The base model's folder; None finds it as the settings say.

    Raises:
        FmflError: The state is damaged, or the base model missing, unsafe or not the pinned one.
    """
    config = decode_config(store.require("config"))
    if base is not None:
        model = ModelSection(
            base=str(base.resolve()), digest=config.model.digest, max_length=config.model.max_length
        )
        config = msgspec.structs.replace(config, model=model)
    return build_task(config, relative_to=Path(store.require("origin").decode()))
