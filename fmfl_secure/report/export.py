"""Handing a finished adapter on: its files or merged weights, with a card that says what it cost.

Everything is safetensors and JSON. The card's statements about privacy come from the run's report
and from nowhere else.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from fmfl_secure.errors import RunError
from fmfl_secure.models.adapter_files import HEAD_FILE
from fmfl_secure.models.base_files import behaviour_files
from fmfl_secure.models.computation import EXACT
from fmfl_secure.models.invented_heads import invented_heads
from fmfl_secure.models.merge import merged_model
from fmfl_secure.report.model_card import write_card
from fmfl_secure.run.record import RunRecord, decode_record
from fmfl_secure.tasks.adapter_task import TASK_FILE, AdapterTask
from fmfl_secure.training.finished_run import FinishedRun, open_run


def export_run(
    run_folder: Path,
    output: Path,
    *,
    merged: bool = False,
    base: Path | None = None,
    head: Path | None = None,
) -> Path:
    """Write a run's adapter, or its base model with the adapter merged, into a new folder.

    Args:
        run_folder: The run, with its `report.json`.
        output: A folder that is not there yet, or is empty.
        merged: Write whole weights in place of the adapter.
        base: The base model's folder; None finds it as the run's settings say.
        head: A site's own head, where the run left each site one; written with the rest.

    Returns:
        The folder.

    Raises:
        RunError: The folder is in use, or there is no report.
        FmflError: Run, base model or adapter are unusable, or the adapter cannot be merged.
    """
    record = _read_record(run_folder)
    run = open_run(run_folder, base=base)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(f"{output} is not empty", hint="Choose another --output.")
    if merged:
        _write_merged(run, output, head)
    else:
        # Opened first: what is handed on is known to work.
        run.task.open_adapter(run.adapter, head=head)
        shutil.copytree(run.adapter, output, dirs_exist_ok=True)
    if head is not None:
        shutil.copyfile(head, output / HEAD_FILE)
    write_card(record, output, merged=merged)
    return output


def _read_record(run_folder: Path) -> RunRecord:
    path = run_folder / "report.json"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(
            f"{run_folder} has no report.json, so nothing could be said of what it cost",
            hint=f"fmfl-secure report {run_folder}",
        ) from error
    return decode_record(data)


def _write_merged(run: FinishedRun, output: Path, head: Path | None) -> None:
    task = run.task
    if not isinstance(task, AdapterTask):
        raise RunError(f"{task.kind} has no weights to merge")
    # Without a cache no layer is replaced, and every weight has the name that transformers gives.
    # In float32: most of an update is smaller than what bfloat16 rounds off a weight.
    task = dataclasses.replace(task, cache_bytes=0, computation=EXACT)
    model = merged_model(task.open_adapter(run.adapter, head=head).encoder, task.adapter)
    output.mkdir(parents=True, exist_ok=True)
    weights = model.state_dict() | invented_heads(model, task.kind)
    model.save_pretrained(output, state_dict=weights, safe_serialization=True)
    for path in behaviour_files(task.base.path):
        # The configuration too: dropout was turned off in the one that was loaded.
        below = path.relative_to(task.base.path)
        if ".safetensors" not in path.name:
            (output / below).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, output / below)
    _describe(output / "config.json", task)
    for name in (HEAD_FILE, TASK_FILE):
        if (run.adapter / name).is_file():
            shutil.copyfile(run.adapter / name, output / name)


def _describe(path: Path, task: AdapterTask[Any]) -> None:
    """Say in a merged model's configuration what its weights are kept in, and its labels."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)  # as earlier versions of transformers wrote it
    config["dtype"] = "float32"
    labels = task.answers
    if labels:
        # pipeline would fall back on this class, and fail at the first answer and not before.
        config.pop("architectures", None)
        config["id2label"] = {str(index): label for index, label in enumerate(labels)}
        config["label2id"] = {label: index for index, label in enumerate(labels)}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
