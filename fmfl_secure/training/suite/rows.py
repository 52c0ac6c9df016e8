"""Rows of a benchmark's file: a question, its choices, and which answer is right."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmfl_secure.data import DataError, read_table
from fmfl_secure.outside import parse_json
from fmfl_secure.training.suite.plan import Benchmark

_DIGITS = 10  # no place among choices has so many; Python reads no number of thousands
_HOLE = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Question:
    """One row.

    Attributes:
        asked: What the model is asked.
        answer: The right answer's text.
        choices: All answers there are; empty where it is to be written.
    """

    asked: str
    answer: str
    choices: tuple[str, ...] = ()

    @property
    def right(self) -> int:
        """Place of the right one among the choices."""
        return self.choices.index(self.answer)


def read_questions(path: Path, benchmark: Benchmark, *, limit: int = 0) -> list[Question]:
    """The rows of a file, in its order.

    Args:
        path: A table of any form that a site's data may have.
        benchmark: What is asked of a row.
        limit: Most rows; 0 for all.

    Raises:
        DataError: The file cannot be read, lacks a column, or a row has no right answer.
    """
    table = read_table(path)
    if limit:
        table = table.slice(0, limit)
    names = [*_HOLE.findall(benchmark.question), benchmark.answer_column]
    names += [benchmark.choices_column] if benchmark.choices_column else []
    missing = sorted(set(names) - set(table.column_names))
    if missing:
        raise DataError(
            f"there is no column {missing[0]!r}; the columns are {', '.join(table.column_names)}",
            path=path,
        )
    rows = table.select(list(dict.fromkeys(names))).to_pylist()
    if not rows:
        raise DataError("the file has no rows", path=path)
    return [_question(path, n, row, benchmark) for n, row in enumerate(rows, start=1)]


def _question(path: Path, number: int, row: Mapping[str, Any], benchmark: Benchmark) -> Question:
    asked = _HOLE.sub(lambda found: _text(row[found[1]]), benchmark.question)
    answer = _text(row[benchmark.answer_column])
    choices = benchmark.choices or (
        _choices(row[benchmark.choices_column]) if benchmark.choices_column else ()
    )
    if benchmark.kind == "multiple-choice":
        answer = _chosen(answer, choices)
        if len(choices) < 2 or len(set(choices)) != len(choices):
            answer = ""
    if not asked.strip() or not answer.strip():
        raise DataError(
            "the row has no question, no right answer, or not two different choices",
            hint="write a choice's text into answer_column, its place from 0, or its letter",
            path=path,
            row=number,
        )
    return Question(asked, answer, choices)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _choices(value: Any) -> tuple[str, ...]:
    """A list of texts, as it stands or as JSON; of an object with a list of texts, that one."""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            return ()
    if isinstance(value, dict):
        value = value.get("text")
    return tuple(_text(each) for each in value) if isinstance(value, list) else ()


def _chosen(answer: str, choices: tuple[str, ...]) -> str:
    """The choice that an answer means; empty for none. A choice's own text goes first."""
    if answer in choices:
        return answer
    letter = string.ascii_uppercase.find(answer) if len(answer) == 1 else -1
    is_place = answer.isascii() and answer.isdigit() and len(answer) < _DIGITS
    place = int(answer) if is_place else letter
    return choices[place] if 0 <= place < len(choices) else ""
