"""Multi-label classification: how labels are read, what is refused, loss, metrics and answers."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from task_cases import TASKS, task_on

from fmfl_secure.data import DataError
from fmfl_secure.errors import ConfigError
from fmfl_secure.settings.federation import convert_config
from fmfl_secure.settings.tasks import MultiLabelClassificationSection
from fmfl_secure.tasks import Task

LABELS = ("no", "yes", "maybe")
ROWS = [("alpha", ["yes"]), ("beta", ["maybe", "no"]), ("gamma", [])]
EXPECTED = np.array([[0, 1, 0], [1, 0, 1], [0, 0, 0]], dtype=np.float32)


def section(**more: object) -> MultiLabelClassificationSection:
    return msgspec.structs.replace(TASKS["multi-label-classification"], **more)


@pytest.fixture
def task(tiny_models) -> Task:
    return task_on(tiny_models("bert"), "multi-label-classification")


def write(folder: Path, name: str, rows: list[tuple[str, object]]) -> Path:
    path = folder / name
    if name.endswith("jsonl"):
        lines = (json.dumps({"text": text, "labels": labels}) for text, labels in rows)
        path.write_text("\n".join(lines) + "\n")
    elif name.endswith("parquet"):
        pq.write_table(
            pa.table({"text": [r[0] for r in rows], "labels": [r[1] for r in rows]}), path
        )
    else:
        lines = (f"{text},{labels}" for text, labels in rows)
        path.write_text("text,labels\n" + "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_lists_are_sets_of_labels(task, tmp_path: Path, name: str) -> None:
    data = task.load(write(tmp_path, name, ROWS), unit="record")
    assert np.array_equal(data.label_sets, EXPECTED)
    assert data.labels.size == 0


def test_texts_with_a_separator_read_the_same(tiny_models, tmp_path: Path) -> None:
    rows = [("alpha", "yes"), ("beta", "maybe ; no"), ("gamma", "none"), ("delta", "no;no")]
    task = task_on(tiny_models("bert"), section(label_separator=";", no_label="none"))
    data = task.load(write(tmp_path, "a.csv", rows), unit="record")
    assert np.array_equal(data.label_sets, np.concatenate([EXPECTED, [[1, 0, 0]]]))


@pytest.mark.parametrize(
    ("held", "sort"),
    [
        pytest.param(["Yes"], "in case", id="case"),
        pytest.param(["yes "], "in white space", id="space"),
        pytest.param(["yes", "unheard"], "label that is not configured", id="unknown"),
        pytest.param("yes", "a text in place of a list", id="text"),
        pytest.param("['yes', 'no']", "a text in place of a list", id="printed"),
        pytest.param([["yes"]], "a text in place of a list", id="nested"),
        pytest.param({"yes": 1}, "a text in place of a list", id="object"),
        pytest.param(1, "a text in place of a list", id="number"),
        pytest.param(None, "no list of labels", id="null"),
        pytest.param("", "no list of labels", id="empty"),
    ],
)
def test_what_is_no_set_of_labels_is_named(task, tmp_path: Path, held: object, sort: str) -> None:
    path = write(tmp_path, "a.jsonl", [*ROWS, ("delta", held)])
    left_out = task.load(path, unit="record", on_bad_row="skip").left_out
    assert left_out.count == 1
    assert sort in str(left_out)
    with pytest.raises(DataError, match="row 4"):
        task.load(path, unit="record")


def test_an_empty_part_between_separators_is_a_bad_row(tiny_models, tmp_path: Path) -> None:
    task = task_on(tiny_models("bert"), section(label_separator=";"))
    path = write(tmp_path, "a.csv", [("alpha", "yes"), ("beta", "yes;"), ("gamma", "")])
    told = str(task.load(path, unit="record", on_bad_row="skip").left_out)
    assert "1 with no label between two separators (row 2)" in told
    assert "1 with no list of labels (row 3)" in told


def test_aliases_are_spellings_of_each(tiny_models, tmp_path: Path) -> None:
    task = task_on(tiny_models("bert"), section(label_aliases=(("Y", "yes"),)))
    path = write(tmp_path, "a.jsonl", [("alpha", ["Y", "no"])])
    assert task.load(path, unit="record").label_sets.tolist() == [[1, 1, 0]]


@pytest.mark.parametrize(
    "wrong", [{"label_separator": "y"}, {"no_label": "yes"}, {"labels": ["a", "a"]}]
)
def test_settings_that_contradict_themselves_are_refused(wrong: dict[str, object]) -> None:
    given = {"text_columns": ["text"], "labels": list(LABELS), **wrong}
    with pytest.raises(ConfigError):
        convert_config(given, MultiLabelClassificationSection, source="test")


class Answers(torch.nn.Module):
    """Says what it is told to."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self._logits = torch.tensor(logits)

    def forward(self, batch) -> torch.Tensor:
        return self._logits[batch.records]


def test_figures_are_the_field_s(task, tmp_path: Path) -> None:
    data = task.load(write(tmp_path, "a.jsonl", ROWS), unit="record")
    model = Answers([[-1.0, 2.0, 1.0], [3.0, -2.0, 1.0], [-1.0, -1.0, -1.0]])
    metrics = task.evaluate(model, data, batch_size=2)
    assert list(metrics) == ["micro_f1", "macro_f1", "subset_accuracy", "loss"]
    # True: yes; no, maybe; nothing. Claimed: yes, maybe; no, maybe; nothing.
    assert metrics["micro_f1"] == pytest.approx(2 * 3 / (3 + 4))
    assert metrics["macro_f1"] == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert metrics["subset_accuracy"] == pytest.approx(2 / 3)
    own = [float(task.per_record_loss(model, data.collate(np.array([n])))) for n in range(3)]
    assert metrics["loss"] == pytest.approx(np.mean(own))
    first = torch.nn.functional.softplus(torch.tensor([-1.0, -2.0, 1.0])).mean()
    assert own[0] == pytest.approx(float(first), rel=1e-5)
    answers = task.predict(model, data, batch_size=2)
    assert [answer["labels"] for answer in answers] == [["yes", "maybe"], ["no", "maybe"], []]
    assert answers[0]["probabilities"]["yes"] == pytest.approx(1 / (1 + np.exp(-2.0)))
