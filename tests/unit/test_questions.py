"""What may be asked: every entry keeps its bound, and says of a unit what is that unit's alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
from support import settings, write_tiny_bert

from fmfl_secure.errors import ConfigError
from fmfl_secure.planning.task import build_task
from fmfl_secure.questions import gate
from fmfl_secure.questions.base import Question
from fmfl_secure.questions.gate import check_questions
from fmfl_secure.questions.registry import QUESTIONS, release_of
from fmfl_secure.questions.respondent import Respondent
from fmfl_secure.settings.federation import (
    FederationConfig,
    convert_config,
    decode_config,
    encode_config,
    load_federation,
)
from fmfl_secure.settings.questions import QuestionName, QuestionSection
from fmfl_secure.settings.tasks import ExtensionSection
from privacy.queries import Query


def asked(*what: str, **more) -> QuestionSection:
    return QuestionSection(what=what, epsilon=0.5, **more)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> FederationConfig:
    folder = tmp_path_factory.mktemp("asked")
    (folder / "federation.toml").write_text(settings(write_tiny_bert(folder / "model")))
    return load_federation(folder / "federation.toml")


@pytest.fixture(scope="module")
def respondent(config: FederationConfig) -> Respondent:
    task = build_task(config, relative_to=Path())
    model = task.build_model(seed=1)
    return Respondent("site-2", config, task, task.synthetic(), model)


def test_settings_name_all_that_may_be_asked() -> None:
    assert get_args(QuestionName) == QUESTIONS.names


# The others are of other tasks: test_questions_measured.py asks each of its own.
OF_A_CLASSIFIER = ["units", "labels", "lengths", "accuracy", "recall", "confusion", "calibration"]


@pytest.mark.parametrize("name", OF_A_CLASSIFIER)
def test_every_question_keeps_its_bound_and_minds_one_unit_at_a_time(
    respondent: Respondent, name: str
) -> None:
    check_questions(asked(name), respondent)


def test_a_unit_is_in_the_cell_of_its_site(respondent: Respondent) -> None:
    vectors = QUESTIONS.get("units").vectors(asked("units"), respondent)
    assert vectors.sum(axis=0).tolist() == [0.0, len(respondent.data.units), 0.0]


def test_a_unit_of_several_labels_is_divided_among_them(respondent: Respondent) -> None:
    labels = respondent.data.labels
    one, other = int(np.flatnonzero(labels == 0)[0]), int(np.flatnonzero(labels == 1)[0])
    units = [np.array([one, other, one, one]), np.array([other]), np.array([], dtype=np.int64)]
    own = dataclasses.replace(respondent, data=dataclasses.replace(respondent.data, units=units))
    vectors = QUESTIONS.get("labels").vectors(asked("labels"), own)
    assert vectors.tolist() == [[0.75, 0.25], [0.0, 1.0], [0.0, 0.0]]


def test_the_longest_record_of_a_unit_decides(respondent: Respondent) -> None:
    cost = respondent.data.lengths
    assert cost.max() > respondent.config.model.max_length, "of whole texts, not of what is read"
    units = [np.array([int(cost.argmin()), int(cost.argmax())]), np.array([int(cost.argmin())])]
    own = dataclasses.replace(respondent, data=dataclasses.replace(respondent.data, units=units))
    edges = (int(cost.min()), int(cost.max()))
    vectors = QUESTIONS.get("lengths").vectors(asked("lengths", lengths=edges), own)
    assert vectors.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


class Rude(Question):
    name = "labels"
    said = "anything"
    sort = "statistics"

    def __init__(self, vectors) -> None:
        self._vectors = vectors

    def query(self, config, asked) -> Query:
        return Query(self.name, ("a", "b"), 1.0)

    def vectors(self, asked, respondent) -> np.ndarray:
        return self._vectors(respondent.data)

    def sums(self, config, asked, units) -> np.ndarray:
        return np.zeros((1, 2))

    def figures(self, config, asked, cells, stddev) -> dict:
        return {}


@pytest.mark.parametrize(
    "vectors",
    [
        lambda data: np.full((len(data.units), 2), 0.8),
        lambda data: np.full((len(data.units), 2), 0.5 / len(data.units)),
        lambda data: np.zeros((len(data.units), 3)),
        lambda data: np.full((len(data.units), 2), np.nan),
    ],
    ids=["too-long", "minds-others", "another-shape", "no-number"],
)
def test_the_gate_refuses_what_breaks_its_promise(
    respondent: Respondent, vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "questions_of", lambda _: (Rude(vectors),))
    with pytest.raises(ConfigError, match="question 'labels'"):
        check_questions(asked("labels"), respondent)


def test_an_answer_says_counts_and_shares_that_cover_the_truth(config: FederationConfig) -> None:
    figures = QUESTIONS.get("labels").figures(
        config, asked("labels"), np.array([30.0, 90.0]), stddev=2.0
    )
    assert figures["no"].value == 30.0
    assert figures["share of no"].value == 0.25
    low, high = figures["share of no"].noise
    assert low < 0.25 < high
    wider = figures["share of no"].sampling
    assert wider[0] < low < high < wider[1]


def test_questions_asked_at_once_share_one_bound(config: FederationConfig) -> None:
    release = release_of(config, asked("units", "labels", shares=(0.2, 0.8)))
    assert [query.name for query in release.queries] == ["units", "labels"]
    assert release.shares == (0.2, 0.8)


def test_settings_without_a_question_keep_their_digest(config: FederationConfig) -> None:
    with_one = msgspec.structs.replace(config, question=asked("units"))
    assert b"question" not in encode_config(config)
    assert b'"what":["units"]' in encode_config(with_one)
    assert decode_config(encode_config(with_one)) == with_one


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ({"what": [], "epsilon": 1}, "at least 1 value"),
        ({"what": ["colour"], "epsilon": 1}, '"colour" is not known'),
        ({"what": ["units", "units"], "epsilon": 1}, "twice"),
        ({"what": ["units"]}, "epsilon"),
        ({"what": ["units"], "epsilon": 0}, "above 0"),
        ({"what": ["units", "labels"], "epsilon": 1, "shares": [0.5, 0.4]}, "adding up to 1"),
        ({"what": ["lengths"], "epsilon": 1, "lengths": [8, 4]}, "ascending"),
    ],
    ids=["none", "unknown", "twice", "free", "nothing", "shares", "edges"],
)
def test_what_cannot_be_asked_is_refused(question: dict, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        convert_config(question, QuestionSection, source="question")


@pytest.mark.parametrize("name", ["labels", "lengths"])
def test_what_a_task_has_not_cannot_be_asked_of_it(config: FederationConfig, name: str) -> None:
    other = msgspec.structs.replace(config, task=ExtensionSection(name="a-package:thing"))
    with pytest.raises(ConfigError, match="counted"):
        release_of(other, asked(name))
