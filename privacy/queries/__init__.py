"""Questions to a population, answered by one noised sum and charged like training.

A `Query` gives every unit a bounded vector. A `Release` asks several at once. A `QueryPlan` couples
what is added to their sum with what is charged for it; `protected_sum.ProtectedSum`, which needs
PyTorch's arithmetic and is imported by name, does it; `share` and `count` say how far an answer can
be trusted.

    plan = QueryPlan.distributed(Release.of(accuracy), unit="record", population=150, ...)
    ledger.reserve(run=run_id, event=plan.event(), rounds=1, plan=digest)
    ledger.commit(run=run_id, round=1)     # durable; only now read data
    integers = ProtectedSum(plan).integers(release.joint(vectors))
"""

from privacy.queries.intervals import (
    Figure,
    Interval,
    Width,
    count,
    foreseen,
    on_simplex,
    ratio,
    share,
)
from privacy.queries.plan import GaussianNoise, QueryPlan, SkellamShares
from privacy.queries.query import PROJECTION_TOLERANCE, Query, Release, project, unit_means

__all__ = [
    "PROJECTION_TOLERANCE",
    "Figure",
    "GaussianNoise",
    "Interval",
    "Query",
    "QueryPlan",
    "Release",
    "SkellamShares",
    "Width",
    "count",
    "foreseen",
    "on_simplex",
    "project",
    "ratio",
    "share",
    "unit_means",
]
