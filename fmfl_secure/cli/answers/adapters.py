"""Answers of the commands on models and finished adapters."""

from __future__ import annotations

import msgspec

from fmfl_secure.cli.answers.base import Answer


class ModelImported(Answer, frozen=True, kw_only=True):
    """A base model's folder.

    Attributes:
        folder: That was made.
        model_type: Its architecture.
        digest: To pin.
    """

    folder: str
    model_type: str
    digest: str


class Evaluated(Answer, frozen=True, kw_only=True):
    """Exact figures of an adapter on a file: of private data they are not private.

    Attributes:
        metrics: The task's, by name.
        records: How many they are of.
        left_out: Which rows are not among them, in words; empty where all are.
        shortened: Records longer than the model reads, which were cut.
        round: After which the adapter is; null for the one that the run left.
        curve: The metrics after each round, by its number; empty unless asked for.
        details: Files with a closer look, the page first; empty unless asked for.
    """

    metrics: dict[str, float]
    records: int
    left_out: str
    shortened: int
    round: int | None
    curve: dict[str, dict[str, float]]
    details: tuple[str, ...]


class BenchmarkRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a suite's table.

    Attributes:
        benchmark: Its name.
        arm: The adapter, its base model, or the most frequent label.
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
    metrics: dict[str, float]
    errors: dict[str, float]
    cut: int


class SuiteEvaluated(Answer, frozen=True, kw_only=True):
    """An adapter beside its base model.

    Attributes:
        rows: Of the table.
        output: File that it was written to; empty where none was named.
    """

    rows: tuple[BenchmarkRow, ...]
    output: str


class CurveFilled(Answer, frozen=True, kw_only=True):
    """A run's learning curve, kept in its report.

    Attributes:
        rounds: Metrics by round.
        report: The report's page.
    """

    rounds: dict[str, dict[str, float]]
    report: str


class Predicted(Answer, frozen=True, kw_only=True):
    """Answers of an adapter, in a file.

    Attributes:
        output: The file.
        answers: How many.
    """

    output: str
    answers: int


class AdapterExported(Answer, frozen=True, kw_only=True):
    """An adapter's folder, or merged weights.

    Attributes:
        folder: That was made.
        merged: Whether it has whole weights.
    """

    folder: str
    merged: bool
