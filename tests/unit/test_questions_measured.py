"""What a model makes of units, for every task: bounded, a unit's own, as `evaluate` has it."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from task_cases import TASKS, randomise, task_on
from tiny_models import write_tiny

from fmfl_secure.measures import measures_for
from fmfl_secure.questions.gate import check_questions
from fmfl_secure.questions.registry import QUESTIONS
from fmfl_secure.questions.respondent import Respondent
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.questions import QuestionSection
from fmfl_secure.settings.sections import EvaluationSection, FederationSection, SiteEntry

MODELS = {
    "text-classification": "bert",
    "multi-label-classification": "bert",
    "token-classification": "bert",
    "causal-lm": "gpt2",
    "preference": "gpt2",
    "image-classification": "vit",
    "image-text": "clip",
    "image-text-classification": "clip",
}
# What `evaluate` calls the first figure of each measure, where both are means over records.
EXACT = {
    "accuracy": "accuracy",
    "exact-sets": "subset_accuracy",
    "exact-match": "exact_match",
    "preferred": "pair_accuracy",
    "clipped-loss": "loss",
}


OVER_RESPONSES = "causal-lm over responses"


@pytest.fixture(scope="module", params=[*TASKS, OVER_RESPONSES])
def respondent(request, tmp_path_factory: pytest.TempPathFactory) -> Respondent:
    kind: str = request.param.partition(" ")[0]
    folder = write_tiny(tmp_path_factory.mktemp("base"), MODELS[kind])
    task = task_on(folder, kind)
    if request.param == OVER_RESPONSES:
        section = msgspec.structs.replace(TASKS[kind], responses=("pain", "no pain", "the"))
        task = dataclasses.replace(task, settings=section)
    model = task.build_model(seed=1)
    randomise(model)
    config = FederationConfig(
        federation=FederationSection(name="f", rounds=1),
        task=task.settings,
        evaluation=EvaluationSection(
            loss_bound=100.0, count_bound=50.0, subgroup_column="sex", subgroups=("f", "m")
        ),
        sites=tuple(SiteEntry(name=name, population=100) for name in ("a", "b", "c")),
    )
    data = task.synthetic()
    data = dataclasses.replace(data, groups=np.arange(data.records) % 3 - 1)
    return Respondent("a", config, task, data, model)


def asked(respondent: Respondent) -> QuestionSection:
    names = tuple(measures_for(respondent.config))
    return msgspec.convert({"what": names, "epsilon": 1.0}, QuestionSection)


def test_every_measure_keeps_its_bound_and_minds_one_unit_at_a_time(respondent) -> None:
    check_questions(asked(respondent), respondent)


def test_sums_of_vectors_are_what_evaluate_says(respondent) -> None:
    data, config = respondent.data, respondent.config
    exact = respondent.task.evaluate(respondent.model, data, batch_size=4)
    compared = 0
    for name in measures_for(config):
        question = QUESTIONS.get(name)
        cells = question.vectors(asked(respondent), respondent).sum(axis=0)
        figures = question.figures(config, asked(respondent), cells, 1e-9)
        first = next(iter(figures.values()))
        if EXACT.get(name) in exact:
            assert first.value == pytest.approx(exact[EXACT[name]], abs=1e-5)
            compared += 1
    assert compared


def test_a_unit_that_is_trained_on_answers_nothing(respondent) -> None:
    data = respondent.data
    held = np.zeros(len(data.units), dtype=np.bool_)
    held[1] = True
    own = dataclasses.replace(
        respondent, data=dataclasses.replace(data, held_out=held), _computed={}
    )
    for name in measures_for(respondent.config):
        question = QUESTIONS.get(name)
        apart = question.vectors(asked(own), own)
        together = question.vectors(asked(respondent), respondent)
        assert not apart[~held].any()
        assert apart[held] == pytest.approx(together[held], abs=1e-6)


def test_a_persons_records_are_one_vector(respondent) -> None:
    data = respondent.data
    person = np.array([0, 1, 2])
    own = dataclasses.replace(
        respondent,
        data=dataclasses.replace(data, units=[person, np.array([], dtype=np.int64)]),
        _computed={},
    )
    for name, measure in measures_for(respondent.config).items():
        question = QUESTIONS.get(name)
        rows = question.vectors(asked(own), own)
        apart = question.vectors(asked(respondent), respondent)[person]
        combined = apart.mean(axis=0) if measure.combine == "mean" else apart.sum(axis=0)
        assert rows[0] == pytest.approx(combined, abs=1e-5)
        assert not rows[1].any()
