"""Figures as people read them: never without their intervals."""

from __future__ import annotations

import msgspec
import pytest

from fmfl_secure.run.answer_record import AnswerRecord, FigureRecord, records_of
from privacy.queries import Figure

SHARE = FigureRecord(0.612, (0.59, 0.634), (0.57, 0.655))


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (SHARE, "0.612 (noise 0.590 to 0.634, with sampling 0.570 to 0.655)"),
        (FigureRecord(312.2, (300.0, 324.4), None), "312 (noise 300 to 324)"),
        (FigureRecord(None, None, None), "none: the noise leaves no figure"),
        (
            FigureRecord(0.5, (0.3, 0.7), (0.28, 0.72)),
            "0.500 (noise 0.300 to 0.700, with sampling 0.280 to 0.720; imprecise)",
        ),
        (FigureRecord(5.0, (-20.0, 30.0), None), "5.000 (noise -20 to 30; imprecise)"),
    ],
    ids=["share", "count", "none", "imprecise-share", "imprecise-count"],
)
def test_a_figure_says_how_far_to_trust_it(figure: FigureRecord, text: str) -> None:
    assert figure.text == text
    assert figure.imprecise == (figure.value is None or "imprecise" in text)


def test_the_first_figure_is_the_one_to_watch_and_its_price_stands_beside_it() -> None:
    answer = AnswerRecord(6, 5, 4, 0.4567, {"accuracy": {"accuracy": SHARE}, "recall": {}})
    assert answer.first == ("accuracy", SHARE)
    assert answer.line.startswith("accuracy 0.612 (noise")
    assert answer.line.endswith("for epsilon 0.457 by itself")
    assert AnswerRecord(6, 5, 4, 0.5, {}).line == ""


def test_what_is_kept_is_read_again() -> None:
    figures = records_of({"accuracy": {"accuracy": Figure(0.6, (0.5, 0.7), None)}})
    answer = AnswerRecord(1, 0, 3, 0.5, figures)
    assert msgspec.json.decode(msgspec.json.encode(answer), type=AnswerRecord) == answer


@pytest.mark.parametrize(
    ("ahead", "told"),
    [
        pytest.param(
            {"round 2": (3.0, 9.0), "round 4": (-3.0, 3.0), "round 6": (1.0, 7.0)},
            "round 4 is ahead of all others, by more than noise does.",
            id="clear",
        ),
        pytest.param(
            {"round 2": (3.0, 9.0), "round 4": (-3.0, 3.0), "round 6": (-1.0, 5.0)},
            "round 4 is ahead; noise may have put it before round 6.",
            id="close",
        ),
    ],
)
def test_a_choice_says_who_is_ahead_and_whether_noise_did_it(
    ahead: dict[str, tuple[float, float]], told: str
) -> None:
    figures = {"choice": dict.fromkeys(ahead, SHARE)}
    answer = AnswerRecord(1, 0, 4, 0.5, figures, ahead)
    assert answer.who_is_ahead == told
    assert answer.line == f"{told}  for epsilon 0.500 by itself"
    kept = msgspec.convert(msgspec.to_builtins(answer), AnswerRecord)
    assert kept.who_is_ahead == told
    assert AnswerRecord(1, 0, 4, 0.5, {"accuracy": {"accuracy": SHARE}}).who_is_ahead == ""
