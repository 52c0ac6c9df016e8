"""A suite on a finished run: its adapter beside its base model, with and without examples.

`fmfl-secure evaluate --suite` (`cli.model`) and `Run.evaluate_suite` call `evaluate_suite`: the
run's own files first, then every benchmark by the base model, then by the adapter.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.errors import ConfigError
from fmfl_secure.measures import Labelled
from fmfl_secure.models.architectures import text_positions
from fmfl_secure.tasks.causal_lm import CausalLM
from fmfl_secure.tasks.prompts import exchange
from fmfl_secure.tasks.responses import chances
from fmfl_secure.training.finished_run import FinishedRun, open_run
from fmfl_secure.training.suite.plan import Benchmark, Suite
from fmfl_secure.training.suite.rows import Question, read_questions
from fmfl_secure.training.suite.scores import (
    calibration_error,
    exact_match,
    rouge_l,
    standard_error,
)

_LOG = logging.getLogger(__name__)
_LONGEST = 2048  # tokens of a question with its examples, where a model reads so many


@dataclass(frozen=True, slots=True)
class SuiteRow:
    """One row of the table.

    Attributes:
        benchmark: Its name.
        arm: `adapter`, `base model`, or `most frequent label`.
        shots: Examples before each question.
        records: How many the figures are of.
        metrics: By name; shares between 0 and 1.
        errors: Standard errors of those that are means over records.
        cut: Questions that were too long and lost their ends.
    """

    benchmark: str
    arm: str
    shots: int
    records: int
    metrics: Mapping[str, float]
    errors: Mapping[str, float] = field(default_factory=dict)
    cut: int = 0


def evaluate_suite(
    run_folder: Path, suite: Suite, *, relative_to: Path, base: Path | None = None
) -> Iterator[SuiteRow]:
    """Figures of a run's adapter and of what it is to be compared with, one row after another.

    They are exact: computed on private data they are not private, and must stay there.

    Args:
        run_folder: The run.
        suite: What is asked.
        relative_to: Folder that the suite's files start from.
        base: The base model's folder; None finds it as the run's settings say.

    Raises:
        FmflError: Run, adapter or a file are unusable, or the run has no language model to ask.
    """
    run = open_run(run_folder, base=base)
    asked = [each for each in suite.benchmarks if each.kind != "task"]
    if asked and not isinstance(run.task, CausalLM):
        raise ConfigError(
            f"{asked[0].name}: {run.task.kind} is no language model to ask",
            hint="Use kind = 'task' for a labelled file of the run's own task.",
        )
    # Whatever can be wrong with a file is found before the first figure.
    files = {each.name: _read(each, relative_to) for each in asked}
    opened = run.checked(run.task.open_adapter(run.adapter))
    for each in suite.benchmarks:
        if each.kind == "task":
            yield from _own_task(run, opened, each, relative_to)
    if not isinstance(run.task, CausalLM) or not asked:
        return
    task = _roomy(run.task)
    for arm in ("base model", "adapter"):
        model = opened if arm == "adapter" else task.bare_model()
        for each in asked:
            questions, examples = files[each.name]
            for shots in each.shots:
                yield _asked(run, task, model, arm, each, questions, examples[:shots])


def _read(benchmark: Benchmark, folder: Path) -> tuple[list[Question], list[Question]]:
    questions = read_questions(folder / benchmark.data, benchmark, limit=benchmark.limit)
    most = max(benchmark.shots)
    if not most:
        return questions, []
    examples = read_questions(folder / benchmark.examples, benchmark, limit=most)
    if len(examples) < most:
        raise ConfigError(f"{benchmark.name}: {len(examples)} examples for shots = {most}")
    return questions, examples


def _roomy(task: CausalLM) -> CausalLM:
    """The task with as much room for a question as its model has, up to a limit."""
    positions = text_positions(task.base.load_config(), task.architecture) or _LONGEST
    return replace(task, max_length=max(task.max_length, min(positions // 2, _LONGEST)))


def _asked(
    run: FinishedRun,
    task: CausalLM,
    model: nn.Module,
    arm: str,
    benchmark: Benchmark,
    questions: Sequence[Question],
    examples: Sequence[Question],
) -> SuiteRow:
    before = "".join(f"{each.asked}\n{each.answer}\n\n" for each in examples)
    prompts = [before + each.asked for each in questions]
    batch_size = run.config.training.physical_batch_size
    if benchmark.kind == "answers":
        inputs = task.prepare([exchange(prompt) for prompt in prompts])
        said = [
            str(each["response"]) for each in task.predict(model, inputs, batch_size=batch_size)
        ]
        pairs = list(zip(said, [each.answer for each in questions], strict=True))
        scores = {
            "exact_match": [exact_match(*pair) for pair in pairs],
            "rouge_l": [rouge_l(*pair) for pair in pairs],
        }
        metrics = {name: float(np.mean(values)) for name, values in scores.items()}
        cut = inputs.shortened
    else:
        scores, metrics, cut = _chosen(task, model, prompts, questions, batch_size)
    if cut:
        _LOG.warning("%s, %s shots: %s prompts were cut", benchmark.name, len(examples), cut)
    return SuiteRow(
        benchmark=benchmark.name,
        arm=arm,
        shots=len(examples),
        records=len(questions),
        metrics=metrics,
        errors={name: standard_error(values) for name, values in scores.items()},
        cut=cut,
    )


def _chosen(
    task: CausalLM,
    model: nn.Module,
    prompts: Sequence[str],
    questions: Sequence[Question],
    batch_size: int,
) -> tuple[dict[str, list[float]], dict[str, float], int]:
    """Scores by row, metrics, and how many prompts were cut."""
    asked = [
        exchange(prompt, choice)
        for prompt, question in zip(prompts, questions, strict=True)
        for choice in question.choices
    ]
    data = task.prepare(asked)
    likelihoods = -task.surprise(model, data, batch_size=batch_size)
    stops = np.cumsum([len(each.choices) for each in questions])
    by_row: list[NDArray[np.float64]] = np.split(likelihoods, stops[:-1])
    right = [each.right for each in questions]
    # By letter too, as longer answers are less likely whatever they say.
    letters = [np.array([max(1, len(c)) for c in each.choices]) for each in questions]
    scores = {
        "accuracy": [
            float(each.argmax() == place) for each, place in zip(by_row, right, strict=True)
        ],
        "accuracy_by_letter": [
            float((each / length).argmax() == place)
            for each, length, place in zip(by_row, letters, right, strict=True)
        ],
    }
    metrics = {name: float(np.mean(values)) for name, values in scores.items()}
    metrics["calibration_error"] = calibration_error([chances(each) for each in by_row], right)
    return scores, metrics, data.shortened


def _own_task(
    run: FinishedRun, opened: Any, benchmark: Benchmark, folder: Path
) -> Iterator[SuiteRow]:
    data = run.task.load(folder / benchmark.data, unit="record", on_bad_row="error")
    if benchmark.limit:
        data = data.only(np.arange(min(benchmark.limit, data.records)))
    batch_size = run.config.training.physical_batch_size
    metrics = run.task.evaluate(opened, data, batch_size=batch_size)
    outcomes = run.task.outcomes(opened, data, batch_size=batch_size)
    if isinstance(outcomes, Labelled):
        error = calibration_error(list(outcomes.probabilities), outcomes.labels.tolist())
        metrics = {**metrics, "calibration_error": error}
        ((_, most),) = Counter(outcomes.labels.tolist()).most_common(1)
        share = most / data.records
        row = SuiteRow(benchmark.name, "most frequent label", 0, data.records, {"accuracy": share})
        yield row
    yield SuiteRow(benchmark.name, "adapter", 0, data.records, metrics, cut=data.shortened)
