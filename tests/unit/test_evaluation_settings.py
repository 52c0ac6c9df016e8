"""`[evaluation]`: asked of the sites, or measured on a public file, and never by mistake."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from support import settings
from task_cases import TASKS

from fmfl_secure.errors import ConfigError
from fmfl_secure.measures import MEASURES, measures_for
from fmfl_secure.planning.answers import answer_epsilon, answer_plan
from fmfl_secure.questions.registry import QUESTIONS
from fmfl_secure.settings.federation import FederationConfig, encode_config, load_federation
from fmfl_secure.settings.questions import FIRST_MEASURES

SITES = 'data = "sites"\nholdout = 0.2\nepsilon = 0.5\n'


def load(folder: Path, evaluation: str, **more) -> FederationConfig:
    task = more.pop("task", 'unit = "patient"')
    text = settings(folder / "model", evaluation=False, task=task, **more)
    text = text.replace('data = ""\n', "").replace('visibility = "public"', evaluation)
    (folder / "federation.toml").write_text(text)
    return load_federation(folder / "federation.toml")


def test_figures_of_the_sites_are_a_question_of_the_run(tmp_path: Path) -> None:
    config = load(tmp_path, SITES + "every = 2", rounds=5)
    assert config.asked.what == ("accuracy",)
    assert (config.asked.epsilon, config.asked.every) == (0.5, 2)
    assert config.trains
    assert config.all_rounds == 8
    assert [config.turn(n).asked is not None for n in range(1, 9)] == [
        False, False, True, False, False, True, False, True
    ]  # fmt: skip
    assert not config.evaluation.file
    assert answer_plan(config).answers == 3
    assert answer_epsilon(config) < 0.5, "three of them cost that together"


def test_settings_without_answers_keep_their_digest(tmp_path: Path) -> None:
    text = encode_config(load(tmp_path, 'data = "x.csv"\nvisibility = "public"'))
    for name in (b"holdout", b"epsilon_", b"measures", b"loss_bound", b"subgroup", b"question"):
        assert name not in text


@pytest.mark.parametrize(
    ("evaluation", "why"),
    [
        ('data = "sites"', "evaluation.epsilon does not say"),
        (SITES + 'visibility = "public"', "what sites hold is not"),
        ('data = "x.csv"', "not declared public"),
        ('data = ""\nepsilon = 0.5', "are for evaluation.data = 'sites'"),
        (SITES + 'measures = ["accuracy", "accuracy"]', "twice"),
        (SITES + 'measures = ["units"]', "measures"),
        (SITES + 'subgroup_column = "sex"', "go together"),
        (SITES + '[question]\nwhat = ["units"]\nepsilon = 1.0', "both say"),
        ("holdout = 0.95", "holdout"),
    ],
    ids=[
        "free", "public", "no-file", "no-sites", "twice", "statistics", "half", "both", "too-much"
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(tmp_path: Path, evaluation: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load(tmp_path, evaluation)


def test_answers_always_have_noise(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="adds none"):
        load(tmp_path, SITES, privacy='noise = "none"')


def test_a_measure_of_another_task_is_refused_when_it_is_planned(tmp_path: Path) -> None:
    config = load(tmp_path, SITES + 'measures = ["next-token"]')
    with pytest.raises(ConfigError, match="is not measured of the task"):
        answer_plan(config)


def test_every_task_has_a_figure_for_its_curve() -> None:
    assert set(FIRST_MEASURES) == set(TASKS)
    assert {QUESTIONS.get(each.name).of_held_out for each in MEASURES} == {True}


@pytest.mark.parametrize("kind", FIRST_MEASURES)
def test_it_is_one_of_the_tasks_own(tmp_path: Path, kind: str) -> None:
    config = msgspec.structs.replace(load(tmp_path, ""), task=TASKS[kind])
    assert FIRST_MEASURES[kind] in measures_for(config)
