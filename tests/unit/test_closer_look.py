"""A closer look at an adapter: what the table, the plots and their intervals say is so."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fmfl_secure.errors import RunError
from fmfl_secure.measures import Entities, Labelled, LabelSets, Outcomes, Responses, Tagged
from fmfl_secure.report import closely
from fmfl_secure.report.closer_look import MOST_CONFUSED, look_closer
from fmfl_secure.run.evaluation_record import (
    EVALUATION_NAME,
    EvaluationRecord,
    encode_evaluation,
    load_evaluation,
    point,
    wilson,
)

LABELS = ("ear", "eye", "skin")


def sure(said: list[int], confidence: list[float], labels: int = 3) -> np.ndarray:
    """Probabilities of which the likeliest is of this place, with this value."""
    rest = (1 - np.array(confidence)) / (labels - 1)
    table = np.repeat(rest[:, None], labels, axis=1)
    table[np.arange(len(said)), said] = confidence
    return table


def labelled(truth: list[int], said: list[int], confidence: list[float] | None = None) -> Labelled:
    return Labelled(
        losses=np.zeros(len(truth)),
        probabilities=sure(said, confidence or [0.9] * len(said)),
        labels=np.array(truth),
    )


def test_a_table_by_label_counts_what_was_answered() -> None:
    look = look_closer(labelled([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 0]), LABELS)
    assert look.confusion == ((2, 1, 0), (1, 2, 0), (0, 0, 0))
    ear, eye, skin = look.classes
    assert (ear.label, ear.records, ear.recall, ear.precision, ear.f1) == (
        "ear", 3, pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3),
    )  # fmt: skip
    assert eye.recall == pytest.approx(2 / 3)
    assert (skin.records, skin.recall, skin.precision, skin.f1) == (0, None, None, None)
    assert ear.recall_low < 2 / 3 < ear.recall_high


def test_a_label_that_is_answered_and_never_right_has_no_recall_and_precision_zero() -> None:
    look = look_closer(labelled([0, 0], [2, 2]), LABELS)
    assert (look.classes[2].recall, look.classes[2].precision, look.classes[2].f1) == (None, 0, 0)
    assert look.classes[0].recall == 0


def test_answers_are_put_into_bins_by_how_sure_they_are() -> None:
    look = look_closer(labelled([0, 0, 0, 0], [0, 1, 0, 0], [0.95, 0.95, 0.55, 1.0]), LABELS)
    filled = {each.low: each for each in look.reliability if each.records}
    assert set(filled) == {0.5, 0.9}
    assert filled[0.9].records == 3
    assert filled[0.9].right == pytest.approx(2 / 3)
    assert filled[0.9].confidence == pytest.approx((0.95 + 0.95 + 1.0) / 3)
    assert sum(each.records for each in look.reliability) == 4


def test_a_response_that_is_none_of_the_declared_is_missed_and_in_no_row() -> None:
    outcomes = Responses(
        losses=np.zeros(3),
        next_tokens=np.zeros(3),
        whole=np.zeros(3),
        probabilities=sure([0, 1, 1], [0.8, 0.8, 0.8], 2),
        labels=np.array([0, 1, -1]),
    )
    look = look_closer(outcomes, ("yes", "no"))
    assert look.confusion == ((1, 0), (0, 1))
    assert look.classes[1].precision == 0.5, "what was said of it is wrong"
    assert sum(each.right * each.records for each in look.reliability) == pytest.approx(2)


def test_sets_of_labels_and_entities_have_a_row_each_and_no_table_of_mistakes() -> None:
    claimed = np.array([[1, 0], [1, 1], [0, 0]], dtype=bool)
    truth = np.array([[1, 0], [0, 1], [0, 1]], dtype=bool)
    sets = LabelSets(losses=np.zeros(3), claimed=claimed, truth=truth)
    first, second = look_closer(sets, ("a", "b")).classes
    assert (first.precision, first.recall, first.records) == (0.5, 1.0, 1)
    assert (second.precision, second.recall, second.records) == (1.0, 0.5, 2)
    entities = Entities(np.array([[2.0]]), np.array([[1.0]]), np.array([[3.0]]))
    tagged = Tagged(losses=np.zeros(1), right=np.ones(1), entities=entities)
    look = look_closer(tagged, ("NAME",))
    assert (look.classes[0].precision, look.classes[0].recall) == (0.4, pytest.approx(2 / 3))
    assert (look.confusion, look.reliability) == ((), ())


def test_what_has_no_labels_shows_nothing() -> None:
    assert look_closer(labelled([0], [0]), ()).classes == ()
    assert look_closer(Outcomes(losses=np.zeros(2)), LABELS).classes == ()


def test_a_table_of_very_many_labels_is_left_out() -> None:
    names = [f"label-{n}" for n in range(MOST_CONFUSED + 1)]
    outcomes = Labelled(
        losses=np.zeros(2), probabilities=sure([0, 1], [0.9, 0.9], len(names)),
        labels=np.array([0, 1]),
    )  # fmt: skip
    look = look_closer(outcomes, names)
    assert (len(look.classes), look.confusion) == (len(names), ())


@pytest.mark.parametrize(
    ("share", "records", "low", "high"),
    # By Wilson's formula in R: binom.confint(x, n, methods = "wilson").
    [(0.5, 10, 0.2366, 0.7634), (0.0, 20, 0.0, 0.1611), (1.0, 20, 0.8389, 1.0)],
)
def test_an_interval_is_wilson_s(share: float, records: int, low: float, high: float) -> None:
    assert wilson(share, records) == pytest.approx((low, high), abs=2e-4)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    counts = np.arange(201)
    chances = np.array([math.comb(200, int(k)) * 0.3**k * 0.7 ** (200 - k) for k in counts])
    covered = [wilson(k / 200, 200)[0] <= 0.3 <= wilson(k / 200, 200)[1] for k in counts]
    assert 0.94 < float(chances[covered].sum()) < 0.96


def test_a_figure_that_is_no_share_has_no_interval() -> None:
    assert point(3, "macro_f1", 0.5, 100).low is None
    assert point(3, "accuracy", 0.5, 100).low is not None


def record(**more: Any) -> EvaluationRecord:
    look = look_closer(labelled([0, 0, 1, 2], [0, 1, 1, 2], [0.9, 0.6, 0.7, 0.95]), LABELS)
    fields: dict[str, Any] = {
        "format": 1, "run": "run-1", "settings_digest": "sha256:a", "round": 2,
        "data": "holdout.csv", "public": True, "records": 4,
        "metrics": {"accuracy": 0.75, "loss": 0.5}, "classes": look.classes,
        "confusion": look.confusion, "reliability": look.reliability,
        "curve": tuple(point(n, "accuracy", n / 4, 4) for n in range(4)),
    }  # fmt: skip
    return EvaluationRecord(**(fields | more))


def test_the_page_and_its_files_say_what_the_record_says(tmp_path: Path) -> None:
    hostile = "<script>a & $b_1$</script>"
    look = look_closer(labelled([0, 1], [0, 1]), (hostile, "b", "c"))
    given = record(classes=look.classes, confusion=look.confusion, data=hostile, public=False)
    files = closely.write_evaluation(given, tmp_path)
    assert [each.name for each in files] == [
        "evaluation.html", "evaluation.json", "curve.svg", "confusion.svg", "reliability.svg",
    ]  # fmt: skip
    page = files[0].read_text()
    assert "<script>" not in page
    assert "stays where the data are" in page
    assert "stays where the data are" not in closely.render_evaluation(record())
    assert json.loads(files[1].read_bytes())["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "plots of one page share no ids"
    for svg in files[2:]:
        text = svg.read_text()
        assert text.startswith("<svg")
        assert "<image" not in text, "which the page's policy forbids"
        assert "<title" in text


def test_the_same_record_gives_the_same_bytes() -> None:
    assert closely.render_evaluation(record()) == closely.render_evaluation(record())


def test_what_was_not_declared_public_gets_into_no_report(tmp_path: Path) -> None:
    named = {"run": "run-1", "settings_digest": "sha256:a"}
    assert load_evaluation(tmp_path, **named) is None
    (tmp_path / EVALUATION_NAME).write_bytes(encode_evaluation(record()))
    assert load_evaluation(tmp_path, **named) == record()
    with pytest.raises(RunError, match="another run"):
        load_evaluation(tmp_path, run="run-2", settings_digest="sha256:a")
    (tmp_path / EVALUATION_NAME).write_bytes(encode_evaluation(record(public=False)))
    with pytest.raises(RunError, match="nobody declared public"):
        load_evaluation(tmp_path, **named)
    (tmp_path / EVALUATION_NAME).write_bytes(b"{}")
    with pytest.raises(RunError, match="cannot read"):
        load_evaluation(tmp_path, **named)


def test_a_table_that_does_not_fit_its_labels_is_refused() -> None:
    data = msgspec.json.decode(encode_evaluation(record()))
    data["confusion"] = [[1]]
    with pytest.raises(msgspec.ValidationError, match="confusion"):
        msgspec.convert(data, EvaluationRecord)
