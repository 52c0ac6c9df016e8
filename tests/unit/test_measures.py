"""No unit moves a sum by more than its bound, sums say what they should, intervals cover."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fmfl_secure.errors import ConfigError
from fmfl_secure.measures import (
    Entities,
    Labelled,
    LabelSets,
    Measure,
    Outcomes,
    Pairs,
    Preferences,
    Responses,
    Tagged,
    measure_named,
    measures_for,
    unit_vectors,
)
from fmfl_secure.measures.base import Rate
from fmfl_secure.measures.counts import EntityCounts, LabelCounts
from fmfl_secure.measures.labels import Accuracy, Calibration, Confusion, Recall
from fmfl_secure.measures.rates import ClippedLoss
from fmfl_secure.measures.subgroups import OTHERS, BySubgroup
from fmfl_secure.settings.federation import FederationConfig, convert_config
from privacy.queries import Release

LABELS = ("asthma", "copd", "other")
ANYTHING = st.floats(allow_nan=True, allow_infinity=True, width=64)
TASKS = {
    "text-classification": {"text_columns": ["t"], "label_column": "l", "labels": LABELS},
    "image-classification": {"image_column": "i", "label_column": "l", "labels": LABELS},
    "image-text-classification": {
        "image_column": "i", "text_column": "t", "label_column": "l", "labels": LABELS
    },
    "multi-label-classification": {"text_columns": ["t"], "label_column": "l", "labels": LABELS},
    "token-classification": {"tokens_column": "t", "tags_column": "g", "entities": ["DRUG", "DAY"]},
    "causal-lm": {"prompt_column": "p", "response_column": "r"},
    "causal-lm of labels": {"prompt_column": "p", "response_column": "r", "responses": LABELS},
    "preference": {"prompt_column": "p"},
    "image-text": {"image_column": "i", "text_column": "t", "anchors": ["a", "b"]},
}  # fmt: skip


def config_of(kind: str, **evaluation: object) -> FederationConfig:
    settings = {
        "federation": {"name": "f", "rounds": 1},
        "task": {"kind": kind.partition(" ")[0], **TASKS[kind]},
        "evaluation": evaluation,
        "sites": [{"name": name, "population": 150} for name in ("a", "b", "c")],
    }
    return convert_config(settings, FederationConfig, source="test")


GROUPED = {"subgroup_column": "sex", "subgroups": ["f", "m"]}
EVERY = [(kind, name) for kind in TASKS for name in measures_for(config_of(kind, **GROUPED))]


def outcomes_of(kind: str, numbers: np.ndarray) -> Outcomes:
    """Whatever the numbers are, as what a model made of some records; shape (records, 12)."""
    whole = np.abs(np.nan_to_num(numbers, nan=0.0, posinf=2.0, neginf=1.0)).astype(np.int64) % 3
    common = {"losses": numbers[:, 0], "groups": whole[:, 1] - 1}
    match kind:
        case "multi-label-classification":
            return LabelSets(**common, claimed=numbers[:, 2:5] > 0, truth=numbers[:, 5:8] > 0)
        case "token-classification":
            counts = [numbers[:, start : start + 2] for start in (2, 4, 6)]
            return Tagged(**common, right=numbers[:, 8], entities=Entities(*counts))
        case "causal-lm":
            return Responses(**common, next_tokens=numbers[:, 2], whole=numbers[:, 3])
        case "causal-lm of labels":
            own = {"probabilities": numbers[:, 4:7], "labels": whole[:, 5] - 1}  # of some, none
            return Responses(**common, **own, next_tokens=numbers[:, 2], whole=numbers[:, 3])
        case "preference":
            return Preferences(**common, preferred=numbers[:, 2])
        case "image-text":
            return Pairs(**common, cosines=numbers[:, 2], matched=numbers[:, 3])
        case _:
            return Labelled(**common, probabilities=numbers[:, 2:5], labels=whole[:, 5])


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=lambda value: value)
@settings(max_examples=10)
@given(arrays(np.float64, (4, 12), elements=ANYTHING))
def test_no_unit_moves_the_sum_by_more_than_its_bound(kind, name, numbers) -> None:
    """Whatever its records hold, however many they are, and without a word."""
    measure = measure_named(config_of(kind, **GROUPED), name)
    units = [np.array([0]), np.array([1, 2, 3])]
    with np.errstate(all="ignore"):
        vectors = unit_vectors(measure, outcomes_of(kind, numbers), units)
    assert vectors.shape == (2, measure.query.dimension)
    release = Release.of(measure.query)
    moved = np.linalg.norm(release.joint({name: vectors}), axis=1)
    assert (moved <= 1 + 1e-9).all()


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=lambda value: value)
def test_ordinary_units_are_not_cut(kind, name) -> None:
    """Nothing is projected away of records as they come: the bound is one that vectors keep."""
    numbers = np.abs(np.random.default_rng(3).uniform(0.01, 0.33, size=(50, 12)))
    measure = measure_named(config_of(kind, **GROUPED), name)
    vectors = measure.vectors(outcomes_of(kind, numbers))
    assert (np.linalg.norm(vectors, axis=1) <= measure.query.l2 * (1 + 1e-12)).all()


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=lambda value: value)
def test_every_measure_has_figures_and_says_what_they_are(kind, name) -> None:
    measure = measure_named(config_of(kind, **GROUPED), name)
    found = list(measure.findings(np.full(measure.query.dimension, 400.0), 5.0))
    assert measure.said
    assert len({finding.name for finding in found}) == len(found)
    for finding in found:
        low, high = finding.figure.noise
        assert low <= finding.figure.value <= high
        if finding.figure.sampling is not None:
            assert finding.figure.sampling[0] <= low
            assert finding.figure.sampling[1] >= high
    for sums in measure.sums(600.0):  # as many units as are said, in vectors that may be
        assert sums.shape == (measure.query.dimension,)
        assert (sums >= 0).all()
        assert np.linalg.norm(sums) <= 600.0 * measure.query.l2 * (1 + 1e-9)


def labelled(right: Sequence[bool], labels: Sequence[int], **more: object) -> Labelled:
    truth = np.array(labels)
    said = np.where(right, truth, (truth + 1) % len(LABELS))
    probabilities = np.where(np.eye(len(LABELS))[said] == 1, 0.5, 0.25)
    return Labelled(losses=np.zeros(len(truth)), probabilities=probabilities, labels=truth, **more)


def figures(measure: Measure, outcomes: Outcomes, records: int) -> dict[str, float | None]:
    cells = measure.vectors(outcomes).sum(axis=0)
    assert records == len(measure.vectors(outcomes))
    return {f.name: f.figure.value for f in measure.findings(cells, 1e-9)}


def test_sums_without_noise_are_the_exact_figures() -> None:
    outcomes = labelled([True, True, False, True], [0, 0, 1, 2], groups=np.array([0, 1, 1, -1]))
    assert figures(Accuracy(), outcomes, 4)["accuracy"] == pytest.approx(0.75)
    recall = figures(Recall(LABELS), outcomes, 4)
    assert recall["recall of asthma"] == pytest.approx(1.0)
    assert recall["recall of copd"] == pytest.approx(0.0)
    confusion = figures(Confusion(LABELS), outcomes, 4)
    assert confusion["asthma as asthma"] == pytest.approx(2.0)
    assert confusion["copd as other"] == pytest.approx(1.0)
    sure = figures(Calibration(), outcomes, 4)
    assert sure["right where sure of 40-60 %"] == pytest.approx(0.75)
    assert sure["right where sure of 0-20 %"] is None
    groups = figures(BySubgroup(Accuracy(), "sex", ("f", "m")), outcomes, 4)
    assert groups["accuracy, sex f"] == pytest.approx(1.0)
    assert groups["accuracy, sex m"] == pytest.approx(0.5)
    assert groups[f"accuracy, sex {OTHERS}"] == pytest.approx(1.0)


def test_a_clipped_loss_is_the_mean_of_clipped_values() -> None:
    losses = np.array([1.0, 3.0, 100.0, math.nan])
    outcomes = Outcomes(losses=losses)
    assert figures(ClippedLoss(5.0), outcomes, 4)["clipped-loss"] == pytest.approx(14.0 / 4)


def test_entity_scores_are_the_fields() -> None:
    counted = Entities(*(np.array([[n, 0.0]]) for n in (2.0, 1.0, 1.0)))
    outcomes = Tagged(losses=np.zeros(1), right=np.ones(1), entities=counted)
    found = figures(EntityCounts(("DRUG", "DAY"), 5.0), outcomes, 1)
    assert found["F1"] == pytest.approx(4 / 6)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["F1 of DRUG"] == pytest.approx(4 / 6)
    assert found["F1 of DAY"] is None


def test_label_sets_are_counted_label_by_label() -> None:
    truth = np.array([[True, False, True], [False, False, False]])
    claimed = np.array([[True, True, False], [False, False, False]])
    outcomes = LabelSets(losses=np.zeros(2), claimed=claimed, truth=truth)
    found = figures(LabelCounts(LABELS), outcomes, 2)
    assert found["F1"] == pytest.approx(2 / 4)
    assert found["recall"] == pytest.approx(1 / 2)


def test_a_persons_records_are_averaged_or_summed() -> None:
    outcomes = labelled([True, True, False], [0, 0, 0])
    units = [np.array([0]), np.array([1, 2])]
    assert unit_vectors(Accuracy(), outcomes, units).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    counted = Entities(*(np.full((3, 1), n) for n in (1.0, 0.0, 2.0)))
    tagged = Tagged(losses=np.zeros(3), right=np.ones(3), entities=counted)
    summed = unit_vectors(EntityCounts(("DRUG",), 5.0), tagged, units)
    assert summed.tolist() == [[1.0, 0.0, 2.0], [2.0, 0.0, 4.0]]


def test_estimates_are_unbiased() -> None:
    """Over 10,000 answers, the mean of an accuracy is the exact one to a tenth of a point."""
    generator = np.random.default_rng(11)
    cells = np.array([360.0, 240.0]) + generator.normal(scale=8.0, size=(10_000, 2))
    values = [next(Accuracy().findings(row, 8.0)).figure.value for row in cells]
    assert np.mean(values) == pytest.approx(0.6, abs=0.001)


# Some units' counts (found, missed, invented), and how often each comes.
SORTS = np.array([[3, 0, 0], [0, 2, 1], [1, 1, 1], [0, 0, 3], [2, 2, 0]], dtype=np.float64)
OFTEN = np.array([0.4, 0.2, 0.2, 0.1, 0.1])


def test_intervals_of_f1_cover() -> None:
    """Of 10,000 answers at least 94 % hold the truth: of these units, and of where they are from.

    A person may have several entities, so units do not fall apart into single draws.
    """
    generator = np.random.default_rng(12)
    measure, stddev, units = EntityCounts(("DRUG",), 5.0), 12.0, 400
    counts = generator.multinomial(units, OFTEN, size=10_000) @ SORTS
    cells = counts + generator.normal(scale=stddev, size=counts.shape)
    found = [next(measure.findings(row, stddev)).figure for row in cells]
    own = counts[:, 0] / (counts @ [1.0, 0.5, 0.5])
    expected = OFTEN @ SORTS
    truth = expected[0] / (expected @ [1.0, 0.5, 0.5])
    assert np.mean([f.noise[0] <= t <= f.noise[1] for f, t in zip(found, own, strict=True)]) >= 0.94
    assert np.mean([f.sampling[0] <= truth <= f.sampling[1] for f in found]) >= 0.94


@pytest.mark.parametrize("name", ["recall", "calibration", "subgroups", "clipped-loss"])
def test_intervals_cover(name: str) -> None:
    """Of 10,000 answers at least 94 % hold the exact figure, and where one is given."""
    generator = np.random.default_rng(13)
    measure = measure_named(config_of("text-classification", **GROUPED), name)
    stddev, size = 8.0, measure.query.dimension
    exact = np.array([300.0, 100.0] * (size // 2))
    cells = exact + generator.normal(scale=stddev, size=(10_000, size))
    scale = 5.0 if name == "clipped-loss" else 1.0
    found = [next(measure.findings(row, stddev)).figure.noise for row in cells]
    assert np.mean([low <= 0.75 * scale <= high for low, high in found]) >= 0.94


def test_counts_of_a_confusion_matrix_are_counts_and_their_intervals_cover() -> None:
    generator = np.random.default_rng(14)
    exact, measure = np.array([50.0, 2.0, 0.0, 40.0]), Confusion(("a", "b"))
    cells = exact + generator.normal(scale=6.0, size=(3000, 4))
    found = [list(measure.findings(row, 6.0)) for row in cells]
    assert all(f.figure.value >= 0 for row in found for f in row)
    held = [
        f.figure.noise[0] <= truth <= f.figure.noise[1]
        for row in found
        for f, truth in zip(row, exact, strict=True)
    ]
    assert np.mean(held) >= 0.94


def test_the_first_measure_of_every_task_makes_a_curve() -> None:
    for kind in TASKS:
        first = next(iter(measures_for(config_of(kind)).values()))
        assert isinstance(first, Rate) or kind == "token-classification"


def test_a_measure_that_a_task_has_not_is_refused_with_those_it_has() -> None:
    with pytest.raises(ConfigError, match="not measured") as refused:
        measure_named(config_of("causal-lm"), "accuracy")
    assert "next-token" in refused.value.hint
