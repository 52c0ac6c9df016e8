"""What is said of an answer's precision beforehand is what its intervals keep to afterwards."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import settings as written

from fmfl_secure.planning.answers import answer_plan, asked_of
from fmfl_secure.planning.precision import Precision, precisions
from fmfl_secure.questions.registry import QUESTIONS
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.toml_file import convert_config
from privacy.queries import Figure

DRAWS = 40
ALMOST_NEVER = 0.1  # of answers said to be one in 20 at most, drawn a few dozen times


def asking(
    what: str, *, sites: int, population: int, epsilon: float, labels: int = 2, more: str = ""
) -> FederationConfig:
    text = written(Path("model"), sites=sites, evaluation=False)
    text = text.replace("population = 40", f"population = {population}")
    names = ", ".join(f'"label {n}"' for n in range(labels))
    text = text.replace('labels = ["no", "yes"]', f"labels = [{names}]")
    question = f'[question]\nwhat = ["{what}"]\nepsilon = {epsilon}\n{more}\n'
    text = text.replace('[evaluation]\ndata = ""\nvisibility = "public"', question)
    return convert_config(tomllib.loads(text), FederationConfig, source="test")


def halves(
    config: FederationConfig, what: str, exact: np.ndarray, *, sampling: bool = False
) -> np.ndarray:
    """Half widths of answers to these exact sums, with the noise that the plan says.

    float64, shape (draws, figures that are no counts).
    """
    plan, asked = answer_plan(config), asked_of(config)
    stddev = plan.answer_stddev(plan.release.queries[0], len(config.sites))
    noise = np.random.default_rng(5).normal(scale=stddev, size=(DRAWS, len(exact)))

    def half(figure: Figure) -> float:
        interval = figure.sampling if sampling else figure.noise
        return np.inf if interval is None else (interval[1] - interval[0]) / 2

    question = QUESTIONS.get(what)
    answers = [question.figures(config, asked, exact + row, stddev) for row in noise]
    shares = [n for n, figure in answers[0].items() if figure.noise is None or figure.sampling]
    return np.array([[half(answer[name]) for name in shares] for answer in answers])


def said_of(config: FederationConfig) -> Precision:
    (said,) = precisions(config)
    assume(said.widest is not None)
    return said


SITES = st.integers(3, 12)
POPULATIONS = st.integers(40, 2000)
EPSILONS = st.floats(0.2, 4.0)


@settings(max_examples=7, deadline=None, derandomize=True)
@given(SITES, POPULATIONS, EPSILONS, st.lists(st.floats(0.05, 0.95), min_size=2, max_size=16))
def test_a_choice_is_as_precise_as_was_said(sites, population, epsilon, rates) -> None:
    """Joint levels over the candidates and a denominator with noise of its own, whatever they are.

    Far below is not said either: at the rates drawn here, and where it is of use at all.
    """
    names = ", ".join(f'"round {n}"' for n in range(len(rates)))
    more = f"candidates = [{names}]"
    config = asking("choice", sites=sites, population=population, epsilon=epsilon, more=more)
    said, units = said_of(config), sites * population
    exact = units * np.array([*(rate - 0.5 for rate in rates), 0.5])
    came = halves(config, "choice", exact)
    assert np.mean(came > said.widest) <= ALMOST_NEVER
    assert np.mean(halves(config, "choice", exact, sampling=True) > said.sampling) <= ALMOST_NEVER
    if said.widest < 0.1:
        assert came.mean(axis=0).max() >= 0.72 * said.widest


def test_a_choice_among_more_is_said_to_be_less_precise() -> None:
    found = []
    for m in (2, 4, 16):
        names = ", ".join(f'"round {n}"' for n in range(m))
        config = asking(
            "choice", sites=4, population=600, epsilon=1.0, more=f"candidates = [{names}]"
        )
        (said,) = precisions(config)
        found.append(said.share)
    assert found[0] < found[1] < found[2]


@settings(max_examples=7, deadline=None, derandomize=True)
@given(SITES, POPULATIONS, EPSILONS, st.floats(0.05, 0.95))
def test_a_rate_is_as_precise_as_was_said(sites, population, epsilon, rate) -> None:
    config = asking("accuracy", sites=sites, population=population, epsilon=epsilon)
    said, units = said_of(config), sites * population
    exact = units * np.array([rate, 1 - rate])
    came = halves(config, "accuracy", exact)
    assert np.mean(came > said.share) <= ALMOST_NEVER
    assert np.mean(halves(config, "accuracy", exact, sampling=True) > said.sampling) <= ALMOST_NEVER


@settings(max_examples=7, deadline=None, derandomize=True)
@given(SITES, POPULATIONS, EPSILONS, st.lists(st.floats(0.1, 1.0), min_size=2, max_size=12))
def test_shares_of_labels_are_as_precise_as_was_said(sites, population, epsilon, parts) -> None:
    """With the noise of every cell in their denominator; up to a half of all, as is said."""
    config = asking(
        "labels", sites=sites, population=population, epsilon=epsilon, labels=len(parts)
    )
    said, units = said_of(config), sites * population
    of_all = np.array(parts) / sum(parts)
    assume(of_all.max() <= 0.5)
    came = halves(config, "labels", units * of_all)
    assert np.mean(came > said.widest) <= ALMOST_NEVER
    if said.widest < 0.1:
        even = 0.5 / (len(parts) - 1)
        half = halves(config, "labels", units * np.array([0.5, *[even] * (len(parts) - 1)]))
        assert half.mean(axis=0).max() >= 0.75 * said.widest
