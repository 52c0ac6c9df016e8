"""The table of `docs/private-answers.md`: how precise an answer is, by epsilon, sites and units.

python -m fmfl_secure.questions.document
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy import share_of
from privacy.queries import Figure, Query, QueryPlan, Release, Width, foreseen, share

SITES: Final = (3, 5, 10, 50)
UNITS: Final = (100, 1_000, 10_000)
EPSILONS: Final = (0.1, 0.3, 0.5, 1.0, 3.0)
RATE: Final = 0.6
DELTA: Final = 1e-5
_RELEASE: Final = Release.of(Query("accuracy", ("right", "wrong"), 1.0))


def half_widths(
    sites: int, units: int, epsilon: float, *, min_cohort: int
) -> tuple[float, float, float]:
    """Half widths of a rate's 95 % interval, in points, that 19 of 20 answers keep to.

    Args:
        sites: That answer, all of them.
        units: Of each.
        epsilon: Of the one answer.
        min_cohort: For how many sites shares are made, one of which is distrusted.

    Returns:
        Of noise of each site's own; of noise in shares; and of no noise at all, but sampling.
    """
    common = {
        "unit": "record",
        "population": units,
        "epsilon": epsilon,
        "delta": min(DELTA, 1.0 / (10.0 * units)),
    }
    everybody = float(sites * units)
    plans = (
        QueryPlan.local(_RELEASE, **common),  # type: ignore[arg-type]
        QueryPlan.distributed(_RELEASE, min_cohort=min_cohort, colluding_sites=1, **common),  # type: ignore[arg-type]
    )
    local, shares = (
        100.0 * _width(everybody, plan.answer_stddev(_RELEASE.queries[0], sites)).noise
        for plan in plans
    )
    return local, shares, 100.0 * (_width(everybody, 0.0).sampling or 0.0)


def _width(units: float, stddev: float) -> Width:
    def figures(cells: NDArray[np.float64]) -> dict[str, Figure]:
        return {"": share(cells, part=[0], whole=[0, 1], stddev=stddev)}

    return foreseen(figures, np.array([[RATE * units, (1.0 - RATE) * units]]), stddev)[""]


def table() -> str:
    """Writes the table of precisions as Markdown."""
    heads = ["sites", "units each", "sampling alone", *(f"epsilon {e:g}" for e in EPSILONS)]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for sites in SITES:
        cohort = max(3, share_of(sites, 0.6667))
        for units in UNITS:
            cells, sampling = [], 0.0
            for epsilon in EPSILONS:
                local, shares, sampling = half_widths(sites, units, epsilon, min_cohort=cohort)
                cells.append(f"{_points(shares)}, {_points(local)}")
            row = [str(sites), f"{units:,}", _points(sampling), *cells]
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _points(value: float) -> str:
    if value > 50.0:
        return "none"  # no narrower than knowing nothing
    return f"{value:.2f}" if value < 1.0 else f"{value:.1f}"


if __name__ == "__main__":
    sys.stdout.write(table())
