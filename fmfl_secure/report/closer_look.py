"""A closer look at what a model made of each record: by label, mistaken for what, and how sure.

Exact: of private data the figures are not private.

`cli.evaluate_file` and `report.learning_curve` call `record_of`, which runs the adapter on the
file and has `look_closer` count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fmfl_secure.measures import Labelled, LabelSets, Outcomes, Responses, Tagged
from fmfl_secure.run.evaluation_record import (
    FORMAT,
    ClassFigures,
    EvaluationRecord,
    ReliabilityBin,
    point,
    wilson,
)
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.tasks import TaskBase

BINS: Final = 10
MOST_CONFUSED: Final = 100  # labels; a table of more is no picture of anything


@dataclass(frozen=True, slots=True, repr=False)
class CloserLook:
    """The figures of a look at outcomes; fields as those of `EvaluationRecord` by their names."""

    classes: tuple[ClassFigures, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    reliability: tuple[ReliabilityBin, ...] = ()


def record_of(
    config: FederationConfig,
    run: str,
    outcomes: Outcomes,
    *,
    round_number: int,
    data: str,
    public: bool,
    metrics: Mapping[int, Mapping[str, float]],
) -> EvaluationRecord:
    """Makes the record of a closer look at an adapter.

    Args:
        config: The run's settings.
        run: The run's id.
        outcomes: What a model with the adapter made of each record.
        round_number: After which the adapter is.
        data: Name of the set.
        public: Whether the settings declare it public.
        metrics: The task's, by round; that of `round_number` among them.
    """
    look, own = look_closer(outcomes, classes_of(config.task)), metrics[round_number]
    records, watched = len(outcomes.losses), next(iter(own))
    return EvaluationRecord(
        format=FORMAT,
        run=run,
        settings_digest=config.digest,
        round=round_number,
        data=data,
        public=public,
        records=records,
        metrics=dict(own),
        classes=look.classes,
        confusion=look.confusion,
        reliability=look.reliability,
        curve=tuple(
            point(number, watched, each[watched], records)
            for number, each in sorted(metrics.items())
            if len(metrics) > 1 and watched in each
        ),
    )


def classes_of(section: TaskBase) -> tuple[str, ...]:
    """Labels, types of entity or declared responses of a task's settings; empty without any."""
    names = ("labels", "entities", "responses")
    return next((tuple(found) for n in names if (found := getattr(section, n, ()))), ())


def look_closer(outcomes: Outcomes, labels: Sequence[str]) -> CloserLook:
    """Looks at outcomes closely, by what a task's records have; empty without labels.

    Args:
        outcomes: Of all records.
        labels: Names of labels, types of entity or declared responses, in the order of indices.
    """
    if not labels:
        return CloserLook()
    if isinstance(outcomes, Labelled | Responses):
        return _of_one_label(outcomes.probabilities, outcomes.labels, labels)
    if isinstance(outcomes, LabelSets):
        claimed, truth = outcomes.claimed, outcomes.truth
        right, said = (claimed & truth).sum(axis=0), claimed.sum(axis=0)
        return CloserLook(_classes(labels, right, said, truth.sum(axis=0)))
    if isinstance(outcomes, Tagged):
        found, missed, invented = (
            getattr(outcomes.entities, name).sum(axis=0) for name in ("found", "missed", "invented")
        )
        return CloserLook(_classes(labels, found, found + invented, found + missed))
    return CloserLook()


def _of_one_label(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], labels: Sequence[str]
) -> CloserLook:
    said, known = probabilities.argmax(axis=1), truth >= 0
    table = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(table, (truth[known], said[known]), 1)
    # What is none of the labels is in no row, and whatever was said of it is wrong.
    answered = np.bincount(said, minlength=len(labels))
    classes = _classes(labels, np.diag(table), answered, table.sum(axis=1))
    confusion = tuple(tuple(map(int, row)) for row in table) if len(labels) <= MOST_CONFUSED else ()
    return CloserLook(classes, confusion, _reliability(probabilities.max(axis=1), said == truth))


def _classes(
    labels: Sequence[str],
    right: NDArray[np.number],
    said: NDArray[np.number],
    there: NDArray[np.number],
) -> tuple[ClassFigures, ...]:
    found = []
    for label, hits, claims, all_there in zip(labels, right, said, there, strict=True):
        interval = wilson(float(hits / all_there), float(all_there)) if all_there else (None, None)
        found.append(
            ClassFigures(
                label=label,
                records=int(all_there),
                precision=float(hits / claims) if claims else None,
                recall=float(hits / all_there) if all_there else None,
                f1=float(2 * hits / (claims + all_there)) if claims + all_there else None,
                recall_low=interval[0],
                recall_high=interval[1],
            )
        )
    return tuple(found)


def _reliability(
    confidence: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[ReliabilityBin, ...]:
    places = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    found = []
    for place in range(BINS):
        inside = places == place
        some = bool(inside.any())
        found.append(
            ReliabilityBin(
                low=place / BINS,
                high=(place + 1) / BINS,
                records=int(inside.sum()),
                confidence=min(1.0, float(confidence[inside].mean())) if some else 0.0,
                right=float(right[inside].mean()) if some else 0.0,
            )
        )
    return tuple(found)
