"""The form of a suite file: which files, what is asked of each row, and how answers are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from fmfl_secure.settings.toml_file import load_toml
from fmfl_secure.settings.types import NonEmpty, Section


class Benchmark(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[benchmarks]]` entry.

    Attributes:
        name: What it is called in the table.
        kind: `multiple-choice`: the likeliest of a row's choices; `answers`: what is generated;
            `task`: the run's own task on a labelled file, with its own metrics.
        data: A file, from the suite's folder.
        question: What is asked of a row; `{COLUMN}` stands for a column's text.
        answer_column: The right answer: a choice's text, its place from 0 or its letter; for
            `answers`, the text. Not for `task`.
        choices_column: Column with a row's choices: a list, or ARC's `{"text": [...]}`.
        choices: The choices of all rows, where no column has any.
        examples: A file of the same form, whose first rows stand before a question as examples.
        shots: How many examples, each number an arm of its own.
        limit: Most rows, the first ones; 0 for all.
    """

    name: NonEmpty
    kind: Literal["multiple-choice", "answers", "task"]
    data: NonEmpty
    question: str = ""
    answer_column: str = ""
    choices_column: str = ""
    choices: tuple[NonEmpty, ...] = ()
    examples: str = ""
    shots: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=0, le=64)], ...], msgspec.Meta(min_length=1)
    ] = (0,)
    limit: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        own = self.kind == "task"
        if own == bool(self.question) or own == bool(self.answer_column):
            raise ValueError(
                f"{self.name}: question and answer_column are for every kind but 'task'"
            )
        several = self.kind == "multiple-choice"
        if several != (bool(self.choices) or bool(self.choices_column)):
            raise ValueError(f"{self.name}: choices are for 'multiple-choice', which needs them")
        if self.choices and self.choices_column:
            raise ValueError(f"{self.name}: choices or choices_column, not both")
        if own and (self.examples or any(self.shots)):
            raise ValueError(f"{self.name}: examples and shots are for every kind but 'task'")
        if any(self.shots) != bool(self.examples):
            raise ValueError(f"{self.name}: examples and shots above 0 go together")


class Suite(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A suite file.

    Attributes:
        benchmarks: In the table's order.
    """

    benchmarks: Annotated[tuple[Benchmark, ...], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        names = [each.name for each in self.benchmarks]
        if len(set(names)) != len(names):
            raise ValueError("a name of a benchmark is there twice")


def load_suite(path: Path) -> Suite:
    """Read a suite file.

    Raises:
        ConfigError: It is not there, not TOML, or a setting is unknown or wrong.
    """
    return load_toml(path, Suite, hint="Write one: docs/models.md has an example.")
