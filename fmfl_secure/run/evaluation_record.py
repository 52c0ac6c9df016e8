"""A closer look at a finished adapter: by label, mistaken for what, how sure, by round.

Exact figures: of private data they are not private, and stay where the data are. What lies in a
run's folder, and so in its report, is of a set that was declared public.

`report.closer_look` fills a record in, and `report.closely` writes it; `report.results` loads the
one that a run's folder keeps.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Final

import msgspec

from fmfl_secure.errors import RunError
from fmfl_secure.run.beside_report import read_record
from fmfl_secure.run.ranges import Count, Number, Share, Text

EVALUATION_NAME: Final = "evaluation.json"
FORMAT: Final = 1
CONFIDENCE: Final = 0.95
# Metrics that are a share of the records, whose interval follows from how many there are.
SHARES: Final = frozenset({"accuracy", "subset_accuracy", "exact_match"})
_Z: Final = 1.959963984540054  # of the normal distribution, two-sided at CONFIDENCE
_Metric = Annotated[float, msgspec.Meta(ge=-1e308, le=1e308)]


class ClassFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one label, or type of entity, is recognised.

    Attributes:
        label: Its name.
        records: How often it is right.
        precision: Of how often it was answered, how often it was right; null where it never was.
        recall: Of how often it is right, how often it was answered; null where it never is.
        f1: 2 precision recall / (precision + recall); null where both are.
        recall_low: Of `recall`, the lower end of the interval; null without it.
        recall_high: The upper end.
    """

    label: Text
    records: Count
    precision: Share | None
    recall: Share | None
    f1: Share | None
    recall_low: Share | None = None
    recall_high: Share | None = None


class ReliabilityBin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Records whose answers had about the same probability.

    Attributes:
        low: Least probability.
        high: Largest.
        records: How many.
        confidence: Their mean probability; 0 where there are none.
        right: Which share of these answers is right; 0 where there are none.
    """

    low: Share
    high: Share
    records: Count
    confidence: Share
    right: Share


class CurvePoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The metric to watch after one round.

    Attributes:
        round: Which; 0 is before the first.
        value: The metric.
        low: Lower end of its interval by the number of records; null where none is known.
        high: The upper end.
    """

    round: Count
    value: _Metric
    low: Share | None
    high: Share | None


class EvaluationRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Exact figures of one adapter of a run on one set.

    Attributes:
        format: Of this record.
        run: The run.
        settings_digest: Of its settings.
        round: After which the adapter is; 0 is before the first.
        data: Name of the set.
        public: Whether the run's settings declare it public.
        records: How many records the figures are of.
        metrics: The task's, by name; the first is the one to watch.
        classes: By label, or type of entity; empty where the task has none.
        confusion: How often records of a label (row) were answered with each (column), in the order
            of `classes`; empty where a record has no one label, or there are too many.
        reliability: Answers by their probability; empty where a record has no one label.
        curve: The metric to watch by round; empty where one round was looked at.
        confidence: Of all intervals, which are of sampling alone.
    """

    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    run: Text
    settings_digest: Text
    round: Count
    data: Text
    public: bool
    records: Number
    metrics: dict[str, _Metric]
    classes: tuple[ClassFigures, ...] = ()
    confusion: tuple[tuple[Count, ...], ...] = ()
    reliability: tuple[ReliabilityBin, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    confidence: Share = CONFIDENCE

    def __post_init__(self) -> None:
        if self.confusion and any(
            len(row) != len(self.classes) for row in (self.confusion, *self.confusion)
        ):
            raise ValueError("confusion is not one row and one column for each of the classes")

    @property
    def calibration_error(self) -> float | None:
        """Mean distance of an answer's probability from how often it is right, by bins."""
        total = sum(each.records for each in self.reliability)
        if not total:
            return None
        apart = (each.records * abs(each.confidence - each.right) for each in self.reliability)
        return sum(apart) / total


def wilson(share: float, records: float) -> tuple[float, float]:
    """Wilson's interval of a share at `CONFIDENCE`.

    Args:
        share: In [0, 1].
        records: Of how many, above 0.
    """
    z2 = _Z * _Z / records
    middle, half = (
        share + z2 / 2,
        _Z * math.sqrt(share * (1 - share) / records + z2 / (4 * records)),
    )
    low, high = (middle - half) / (1 + z2), (middle + half) / (1 + z2)
    return max(0.0, low), min(1.0, high)


def point(round_number: int, name: str, value: float, records: int) -> CurvePoint:
    """A metric after a round, with its interval where one is known."""
    known = name in SHARES and 0.0 <= value <= 1.0
    low, high = wilson(value, records) if known else (None, None)
    return CurvePoint(round=round_number, value=value, low=low, high=high)


def encode_evaluation(record: EvaluationRecord) -> bytes:
    """Encodes the record as `evaluation.json`."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def load_evaluation(folder: Path, *, run: str, settings_digest: str) -> EvaluationRecord | None:
    """The evaluation in a run's folder; None where there is none.

    Raises:
        RunError: It is no such record, of another run or settings, or of data that were not
            declared public.
    """
    path = folder / EVALUATION_NAME
    hint = f"Make it again with fmfl-secure evaluate {folder} --rounds due, or remove it."
    record = read_record(path, EvaluationRecord, hint=hint)
    if record is None:
        return None
    if (record.run, record.settings_digest) != (run, settings_digest):
        raise RunError(f"{path} is of another run or other settings", hint=hint)
    if not record.public:
        raise RunError(
            f"{path} has exact figures of data that nobody declared public",
            hint="Move it back to where the data are, or remove it.",
        )
    return record
