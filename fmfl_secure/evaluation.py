"""Evaluating a finished adapter on a labelled file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fmfl_secure.config import ModelSection, decode_config
from fmfl_secure.planning import build_task
from fmfl_secure.run_store import RunStore


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
    if base is not None:
        model = ModelSection(
            base=str(base.resolve()), digest=config.model.digest, max_length=config.model.max_length
        )
        config = msgspec.structs.replace(config, model=model)
    origin = Path(store.require("origin").decode())
    task = build_task(config, relative_to=origin)
    loaded = task.load(data, unit="record", on_bad_row=config.task.on_bad_row)
    opened = task.open_adapter(run_folder / "adapter")
    return task.evaluate(opened, loaded, batch_size=config.training.physical_batch_size)
