"""Handing a finished adapter on: its files or merged weights, with a card that says what it cost.

Everything is safetensors and JSON. The card's statements about privacy come from the run's report
and from nowhere else.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fmfl_secure.errors import RunError
from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.adapter_files import name_base_by_place
from fmfl_secure.models.adapters import adapter_of
from fmfl_secure.models.library_errors import writing
from fmfl_secure.planning.warm_start import line_of_run
from fmfl_secure.report.merged import write_merged
from fmfl_secure.report.model_card import write_card
from fmfl_secure.report.signed import read_report
from fmfl_secure.tasks.adapter_task import AdapterTask
from fmfl_secure.training.finished_run import FinishedRun, open_run
from fmfl_secure.vectors.adapter_line import EARLIER_FILE, LINE_FILE, encode_line


def export_run(
    run_folder: Path,
    output: Path,
    *,
    merged: bool = False,
    base: Path | None = None,
    personal: Path | None = None,
) -> Path:
    """Write a run's adapter, or its base model with the adapter merged, into a new folder.

    Args:
        run_folder: The run, with its `report.json`.
        output: A folder that is not there yet, or is empty.
        merged: Write whole weights in place of the adapter.
        base: The base model's folder; None finds it as the run's settings say.
        personal: A site's own parts, where the run left each site some; written with the rest.

    Returns:
        The folder.

    Raises:
        RunError: The folder is in use, or there is no report.
        FmflError: Run, base model or adapter are unusable, or the adapter cannot be merged.
    """
    record = read_report(run_folder)
    run = open_run(run_folder, base=base)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(f"{output} is not empty", hint="Choose another --output.")
    task = run.task
    if not isinstance(task, AdapterTask):
        raise RunError(f"{task.kind} has no adapter to hand on")
    was_there = output.exists()
    try:
        with writing("what is exported", output):
            # Opened first: what is handed on is the run's own, and known to work.
            opened = run.checked(task.open_adapter(run.adapter, personal=personal))
            if merged:
                del opened  # of a large model there is no room for two
                write_merged(run, task, output, personal)
            else:
                _write_adapter(run, task, opened, output, whole=personal is not None)
            # Whoever goes on from it is told what it cost, this run included.
            (output / EARLIER_FILE).unlink(missing_ok=True)
            (output / LINE_FILE).write_text(encode_line(line_of_run(run_folder)), encoding="utf-8")
            two_towers = len(task.architecture.towers) > 1
            own = merged and task.own_head is not None
            write_card(record, output, merged=merged, own_class=own, two_towers=two_towers)
    except BaseException:
        # Nothing was there before: half of it would only be in the way of another try.
        shutil.rmtree(output, ignore_errors=True)
        if was_there:
            output.mkdir(exist_ok=True)
        raise
    return output


def _write_adapter(
    run: FinishedRun, task: AdapterTask[Any], opened: AdaptedModel, output: Path, *, whole: bool
) -> None:
    if whole:
        task.whole.save_adapter(opened, output)
    else:
        shutil.copytree(run.adapter, output, dirs_exist_ok=True)
    adapter_of(task.adapter).add_for_peft(opened.encoder, task.adapter, task.base, output)
    name_base_by_place(task.base, output)
