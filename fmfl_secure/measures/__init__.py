"""Measures of a model on the sites' own records: a fixed set, each a bounded vector.

    records -> outcomes (`tasks`) -> a vector a record (`Measure.vectors`) -> one a unit
    (`unit_vectors`) -> silent projection and noise (`privacy.queries`) -> the sum of all sites
    -> figures with intervals (`Measure.findings`)

Nothing here reads data or a model, so a server without either makes figures of a sum.
"""

from fmfl_secure.measures.base import Finding, Measure, unit_vectors
from fmfl_secure.measures.counts import types_of
from fmfl_secure.measures.outcomes import (
    Entities,
    Labelled,
    LabelSets,
    Outcomes,
    Pairs,
    Preferences,
    Responses,
    Tagged,
)
from fmfl_secure.measures.registry import MEASURES, measure_named, measures_for

__all__ = [
    "MEASURES",
    "Entities",
    "Finding",
    "LabelSets",
    "Labelled",
    "Measure",
    "Outcomes",
    "Pairs",
    "Preferences",
    "Responses",
    "Tagged",
    "measure_named",
    "measures_for",
    "types_of",
    "unit_vectors",
]
