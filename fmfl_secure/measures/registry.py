"""Which measures a task has: all that may be asked of a model, and no other code."""

from __future__ import annotations

from typing import Final

from fmfl_secure.errors import ConfigError
from fmfl_secure.measures.base import Measure, Rate
from fmfl_secure.measures.counts import (
    EntityCounts,
    ExactSets,
    LabelCounts,
    WordAccuracy,
    types_of,
)
from fmfl_secure.measures.labels import Accuracy, Calibration, Confusion, Likelihood, Recall
from fmfl_secure.measures.rates import (
    ClippedLoss,
    ExactMatch,
    Matched,
    NextToken,
    Preferred,
    Similarity,
)
from fmfl_secure.measures.subgroups import BySubgroup
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.tasks import (
    CausalLMSection,
    ImageClassificationSection,
    ImageTextClassificationSection,
    ImageTextSection,
    MultiLabelClassificationSection,
    PreferenceSection,
    TextClassificationSection,
    TokenClassificationSection,
)

# All there are, of whichever task.
MEASURES: Final[tuple[type[Measure], ...]] = (
    Accuracy, Recall, Confusion, Calibration, Likelihood, ClippedLoss, ExactSets, LabelCounts,
    EntityCounts, WordAccuracy, NextToken, ExactMatch, Preferred, Matched, Similarity,
    BySubgroup,
)  # fmt: skip


def measures_for(config: FederationConfig) -> dict[str, Measure]:
    """All measures of the settings' task by name; the first is what a learning curve shows.

    Empty for a task of another package: what its models make of a record is not known here.
    """
    task, evaluation = config.task, config.evaluation
    loss = ClippedLoss(evaluation.loss_bound)
    found: tuple[Measure, ...]
    match task:
        case MultiLabelClassificationSection():
            found = (ExactSets(), LabelCounts(task.labels), loss)
        case (
            TextClassificationSection()
            | ImageClassificationSection()
            | ImageTextClassificationSection()
        ):
            found = (*_of_labels(task.labels), loss)
        case TokenClassificationSection():
            found = (
                EntityCounts(types_of(task.tags), evaluation.count_bound),
                WordAccuracy(),
                loss,
            )
        case PreferenceSection():
            found = (Preferred(), loss)
        case CausalLMSection():
            over = _of_labels(task.responses) if task.responses else ()
            found = (*over, NextToken(), ExactMatch(), loss)
        case ImageTextSection():
            matched = (Matched(),) if task.anchors else ()
            found = (*matched, Similarity(), loss)
        case _:
            found = ()
    if evaluation.subgroup_column:
        rate = next((each for each in found if isinstance(each, Rate)), None)
        if rate is not None:
            values = evaluation.subgroups
            found = (*found, BySubgroup(rate, evaluation.subgroup_column, values))
    return {measure.name: measure for measure in found}


def _of_labels(labels: tuple[str, ...]) -> tuple[Measure, ...]:
    """Of one label a record, which a head gives, or a response says."""
    return Accuracy(), Recall(labels), Confusion(labels), Calibration(), Likelihood()


def measure_named(config: FederationConfig, name: str) -> Measure:
    """A measure of the settings' task.

    Raises:
        ConfigError: It has none of this name.
    """
    found = measures_for(config)
    if name not in found:
        raise ConfigError(
            f"{name!r} is not measured of the task {config.task.kind!r}",
            hint=f"Name one of what is: {', '.join(found)}."
            if found
            else "What a task of another package makes of a record is not known here.",
        )
    return found[name]
