"""Using a finished adapter: metrics on a labelled file, and answers for an unlabelled one.

evaluate_run(folder, file)    # metrics of a labelled file
predict_run(folder, file)     # answers for an unlabelled one, a row each
open_run(folder)              # for others: exports, attacks, suites

Commands (`cli.model`) and `api` call these; each opens the run's own settings, builds its task,
and opens the adapter by that task.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from torch import nn

from fmfl_secure.data import DataError, LeftOut
from fmfl_secure.errors import ConfigError, ModelError, RunError, os_failure
from fmfl_secure.measures import Outcomes
from fmfl_secure.models.adapters import adapter_tensors, load_adapter_bytes, set_adapter_tensors
from fmfl_secure.models.language import GREEDY, Sampling
from fmfl_secure.models.personal import belongs_to
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.storage.files import write_output
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.tasks import Task
from fmfl_secure.tasks.causal_lm import CausalLM
from fmfl_secure.tasks.preference import PreferenceTask

_LOG = logging.getLogger(__name__)
Model = TypeVar("Model", bound=nn.Module)
_BATCHES = 8  # that are answered before what they say is written


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
        """Folder that the adapter is in."""
        return self.folder / "adapter"

    def checked(self, opened: Model) -> Model:
        """A model that was opened with the run's adapter, once that is the one it released last.

        A site's own parts are no run's to compare.

        Args:
            opened: What `open_adapter` made of the folder.

        Raises:
            ModelError: The folder holds another adapter.
        """
        store = RunStore(self.folder)
        released = load_adapter_bytes(store.last_adapter() or store.adapter_after(0))
        kept = self.config.adapter.personal_parts
        for name, found in adapter_tensors(opened).items():
            if belongs_to(name, kept) or name not in released:
                continue
            if not torch.equal(released[name], found.cpu()):
                raise ModelError(
                    f"{self.adapter} is not the adapter that this run released last: {name} "
                    "has other values",
                    hint="Put back the folder as the run wrote it; of a run that was cut off, "
                    "run --resume writes it anew.",
                )
        return opened


def open_run(run_folder: Path, *, base: Path | None = None) -> FinishedRun:
    """Open a run for using its adapter, as a user would, from its files.

    Args:
        run_folder: The run.
        base: The base model's folder; None finds it as the run's settings say.

    Raises:
        FmflError: The run or its base model is unusable.
    """
    state = RunStore(run_folder).state
    config = state.config
    # What its adapter started from is in its values and in the run's, and need not be at hand.
    fresh = msgspec.structs.replace(config.adapter, initial="")
    config = msgspec.structs.replace(config, adapter=fresh)
    if base is not None:
        model = msgspec.structs.replace(config.model, base=str(base.resolve()))
        config = msgspec.structs.replace(config, model=model)
    elif config.model.base != "minilm" and not (state.origin / config.model.base).exists():
        raise ModelError(
            f"the run's base model is no longer at {state.origin / config.model.base}",
            hint="Say with --base where its folder is now.",
        )
    task = build_task(config, relative_to=state.origin)
    if isinstance(task, PreferenceTask) and state.config.adapter.initial:
        began = load_adapter_bytes(RunStore(run_folder).adapter_after(0))
        task = replace(task, began=began)
    return FinishedRun(run_folder, config, task)


# Largest share of rows without which figures still stand for a file.
MAX_LEFT_OUT = 0.05


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """Exact figures of an adapter: computed on private data they are not private.

    Attributes:
        metrics: The task's metrics.
        records: How many records they are of.
        left_out: The rows that are not among them.
        shortened: Records whose text is longer than the model reads, and was cut.
    """

    metrics: dict[str, float]
    records: int
    left_out: LeftOut
    shortened: int = 0


class OnFile:
    """A run's adapters on a labelled file: its own at the end, and those after its rounds.

    The figures are exact: computed on private data they are not private, and must stay there.

    Args:
        run_folder: The run.
        data: Labelled data with the task's columns.
        base: The base model's folder; None finds it as the run's settings say.
        max_left_out: Largest share of rows that may be left out as unusable.

    Raises:
        FmflError: Run or data are unusable, or too many rows of them.
    """

    def __init__(
        self,
        run_folder: Path,
        data: Path,
        *,
        base: Path | None = None,
        max_left_out: float = MAX_LEFT_OUT,
    ) -> None:
        self.run = open_run(run_folder, base=base)
        self._store = RunStore(run_folder)
        self.data = self.run.task.load(
            data, unit="record", on_bad_row=self.run.config.task.on_bad_row
        )
        left_out = self.data.left_out
        if left_out.share > max_left_out:
            raise DataError(
                f"figures would be of {self.data.records} records: {left_out}",
                hint="mend the rows or the settings; or allow so large a share to be left out with "
                f"--max-left-out, which is {max_left_out:g}",
                path=data,
            )

    @property
    def name(self) -> str:
        """The id of the run."""
        return self._store.state.run

    @property
    def rounds(self) -> tuple[int, ...]:
        """Rounds that have an adapter, in order; 0 is before the first."""
        return self._store.rounds_with_adapter()

    def model(self, *, after: int | None = None, personal: Path | None = None) -> nn.Module:
        """A model with the run's adapter.

        Args:
            after: A round; None for the adapter that the run left.
            personal: A site's own parts of that, where the run left each site some.

        Raises:
            ConfigError: Own parts are of the end alone.
            FmflError: Base model or adapter are unusable, or there is no such round.
        """
        if after is None:
            opened = self.run.task.open_adapter(self.run.adapter, personal=personal)
            return self.run.checked(opened)
        if personal is not None or self.run.config.adapter.personal_parts:
            raise ConfigError(
                "a site's own parts are of the run's end, and the adapter of a round is not whole "
                "without them"
            )
        adapter = self._store.adapter_after(after)
        model = self.run.task.build_model(seed=self.run.config.federation.seed)
        set_adapter_tensors(model, load_adapter_bytes(adapter))
        return model

    def metrics(self, model: nn.Module) -> dict[str, float]:
        """The task's metrics; higher is better for the first."""
        return self.run.task.evaluate(model, self.data, batch_size=self._batch_size)

    def outcomes(self, model: nn.Module) -> Outcomes:
        """Runs a model on each record."""
        return self.run.task.outcomes(model, self.data, batch_size=self._batch_size)

    @property
    def _batch_size(self) -> int:
        return self.run.config.training.physical_batch_size


def evaluate_run(
    run_folder: Path,
    data: Path,
    *,
    base: Path | None = None,
    personal: Path | None = None,
    max_left_out: float = MAX_LEFT_OUT,
) -> Evaluation:
    """Metrics of a run's adapter. See `OnFile`.

    Args:
        run_folder: The run.
        data: Labelled data with the task's columns.
        base: The base model's folder; None finds it as the run's settings say.
        personal: A site's own parts, where the run left each site some.
        max_left_out: Largest share of rows that may be left out as unusable.

    Raises:
        FmflError: Run, adapter or data are unusable, or too many rows of them.
    """
    on_file = OnFile(run_folder, data, base=base, max_left_out=max_left_out)
    metrics = on_file.metrics(on_file.model(personal=personal))
    loaded = on_file.data
    return Evaluation(metrics, loaded.records, loaded.left_out, loaded.shortened)


def predict_run(
    run_folder: Path,
    data: Path,
    *,
    base: Path | None = None,
    personal: Path | None = None,
    sampling: Sampling = GREEDY,
) -> list[dict[str, Any]]:
    """Answers of a run's adapter, one for each row of a file and in its order.

    Args:
        run_folder: The run.
        data: Data with the task's columns but for those that are predicted.
        base: The base model's folder; None finds it as the run's settings say.
        personal: A site's own parts, where the run left each site some.
        sampling: How a language model chooses tokens.

    Returns:
        JSON-ready answers, numbered by row from 1.

    Raises:
        FmflError: Run, adapter or data are unusable; a bad row is named, and never left out.
    """
    return list(answers_of(run_folder, data, base=base, personal=personal, sampling=sampling))


def answers_of(
    run_folder: Path,
    data: Path,
    *,
    base: Path | None = None,
    personal: Path | None = None,
    sampling: Sampling = GREEDY,
) -> Iterator[dict[str, Any]]:
    """The same, each as soon as it is there. See `predict_run`.

    Raises:
        FmflError: As there, before the first answer.
    """
    run = open_run(run_folder, base=base)
    if sampling != GREEDY and not isinstance(run.task, CausalLM):
        raise ConfigError(f"{run.task.kind} draws nothing: its answers have no temperature or stop")
    inputs = run.task.load_inputs(data)
    if inputs.left_out.beside:
        _LOG.warning("%s: %s", data.name, inputs.left_out.passed_over)
    if inputs.shortened:
        _LOG.warning("%s of %s rows are too long, and were cut", inputs.shortened, inputs.records)
    if inputs.unread:
        _LOG.warning("%s: %s", data.name, inputs.said_of_unread)
    if isinstance(run.task, CausalLM) and (tight := run.task.with_little_room(inputs)):
        _LOG.warning(
            "%s of %s prompts leave the model room for fewer than task.max_new_tokens = %s tokens: "
            "their answers may end in the middle",
            tight, inputs.records, run.task.settings.max_new_tokens,
        )  # fmt: skip
    opened = run.checked(run.task.open_adapter(run.adapter, personal=personal))
    batch_size = run.config.training.physical_batch_size
    # Some batches at a time: alike in length within them, and in the file's order between them.
    together = _BATCHES * batch_size
    for start in range(0, inputs.records, together):
        some = inputs.only(np.arange(start, min(start + together, inputs.records)))
        if isinstance(run.task, CausalLM):
            seeded = replace(sampling, seed=sampling.seed + start)
            answers = run.task.predict(opened, some, batch_size=batch_size, sampling=seeded)
        else:
            answers = run.task.predict(opened, some, batch_size=batch_size)
        for number, answer in enumerate(answers, start=start + 1):
            yield {"row": number, **answer}


def stream_answers(answers: Iterable[dict[str, Any]], path: Path) -> int:
    """Write answers as they come: JSON Lines line by line, CSV once all are there.

    Returns:
        How many.

    Raises:
        RunError: Another extension, or the file cannot be written.
        FmflError: What an answer raises. Lines written before it stay.
    """
    if path.suffix.lower() != ".jsonl":
        found = list(answers)
        write_answers(found, path)
        return len(found)
    count = 0
    for answer in answers:
        # The file is made with the first answer: what is wrong with run or data is found before.
        try:
            with path.open("ab" if count else "wb") as file:
                file.write(msgspec.json.encode(answer) + b"\n")
        except OSError as error:
            raise os_failure(RunError, f"cannot write {path}", error) from error
        count += 1
    return count


def write_answers(answers: Sequence[dict[str, Any]], path: Path) -> None:
    """Write answers as JSON Lines or CSV, by the file's extension.

    In CSV a list, or a figure for each label, is its JSON text.

    Raises:
        RunError: Another extension, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        data = b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers)
    elif suffix == ".csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(answers[0])
        for answer in answers:
            writer.writerow(
                value
                if isinstance(value, str | int | float)
                else msgspec.json.encode(value).decode()
                for value in answer.values()
            )
        data = buffer.getvalue().encode()
    else:
        raise RunError(f"answers are written as .jsonl or .csv, not {suffix or 'without a suffix'}")
    write_output(path, data)
