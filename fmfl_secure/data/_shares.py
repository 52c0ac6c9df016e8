"""Who gets which units: the arithmetic of a split, without files.

A unit is an array of row numbers that stay together. Units come in random order already, so a
run of them is a random sample; what further chance a scheme needs, it draws from the generator
it is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fmfl_secure.data.errors import PartitionError
from fmfl_secure.data.records import IndexArray

_DIRICHLET_ATTEMPTS = 1000
_FEW = 20  # distinct values worth listing in a message


def take_at_most(units: Sequence[IndexArray], limit: int) -> list[IndexArray]:
    """Returns the first units that together have at most `limit` rows."""
    kept = list(units[: int(np.searchsorted(_row_ends(units), limit, side="right"))])
    if not kept:
        raise PartitionError(
            f"limit is {limit}, and one unit alone has more rows", hint="raise the limit"
        )
    return kept


def set_aside(
    units: Sequence[IndexArray], total: int, name: str, fraction: float
) -> tuple[list[IndexArray], list[IndexArray]]:
    """Splits off the first units that together reach a fraction of `total` rows.

    Returns:
        The units set aside, and the rest; neither empty unless the fraction is 0.
    """
    if fraction == 0:
        return [], list(units)
    wanted = round(fraction * total)
    count = int(np.searchsorted(_row_ends(units), wanted, side="left")) + 1
    if wanted == 0 or count >= len(units):
        raise PartitionError(
            f"{name} is {fraction}, which leaves "
            + ("it no row" if wanted == 0 else "the sites no unit"),
            hint="change the fraction, or use a larger file or limit",
        )
    return list(units[:count]), list(units[count:])


def share_evenly(units: Sequence[IndexArray], sites: int) -> list[list[IndexArray]]:
    """Gives each unit to the site with the fewest rows so far."""
    _refuse_too_few(units, sites)
    shares: list[list[IndexArray]] = [[] for _ in range(sites)]
    sizes = [0] * sites
    for unit in units:
        smallest = sizes.index(min(sizes))
        shares[smallest].append(unit)
        sizes[smallest] += len(unit)
    return shares


def share_by_label(
    units: Sequence[IndexArray],
    sites: int,
    labels: Sequence[str],
    alpha: float,
    rng: np.random.Generator,
) -> list[list[IndexArray]]:
    """Shares out each label's units in proportions drawn from a symmetric Dirichlet.

    Draws again until no site is empty (arXiv 1909.06335, Sec. 3.1, with the roles of sites and
    labels as later work has them: one draw per label, over the sites).
    """
    _refuse_too_few(units, sites)
    by_label: dict[str, list[int]] = {}
    for number, unit in enumerate(units):
        # A unit has the label that most of its rows have; the earliest of them in a tie.
        label = Counter(labels[row] for row in unit).most_common(1)[0][0]
        by_label.setdefault(label, []).append(number)
    for _ in range(_DIRICHLET_ATTEMPTS):
        shares: list[list[IndexArray]] = [[] for _ in range(sites)]
        for label in sorted(by_label):
            numbers = by_label[label]
            proportions = rng.dirichlet(np.full(sites, alpha))
            cuts = np.round(np.cumsum(proportions)[:-1] * len(numbers)).astype(np.int64)
            for share, run in zip(shares, np.split(np.array(numbers), cuts), strict=True):
                share.extend(units[number] for number in run)
        if all(shares):
            return shares
    raise PartitionError(
        f"no draw in {_DIRICHLET_ATTEMPTS} gave each of {sites} sites a row at alpha {alpha}",
        hint="use a larger alpha, fewer sites or more rows",
    )


def distinct_values(
    units: Sequence[IndexArray], sites: int, by: str, column: Sequence[str]
) -> list[str]:
    """Returns the values of the column in the units' rows, in row order: one per site."""
    rows = np.sort(np.concatenate(units))
    values = list(dict.fromkeys(column[row] for row in rows))
    if len(values) != sites:
        listed = f": {', '.join(map(repr, values))}" if len(values) <= _FEW else ""
        raise PartitionError(
            f"by is {by!r} and there are {len(values)} distinct values for {sites} site(s){listed}",
            hint=f"set sites to {len(values)}, or split by another column",
        )
    return values


def share_by_value(
    units: Sequence[IndexArray], values: Sequence[str], by: str, column: Sequence[str]
) -> list[list[IndexArray]]:
    """Gives each unit to the site of its rows' value."""
    shares: dict[str, list[IndexArray]] = {value: [] for value in values}
    for unit in units:
        if len({column[row] for row in unit}) > 1:
            raise PartitionError(
                f"by is {by!r}, and a unit of unit_column has rows with different values of it",
                hint="one unit cannot be at two sites here: split by another column, or leave "
                "unit_column out",
            )
        shares[column[unit[0]]].append(unit)
    if not all(shares.values()):
        raise PartitionError(
            f"by is {by!r}, and holdout and tune leave a site no row",
            hint="set less aside, or use another seed",
        )
    return list(shares.values())


def _row_ends(units: Sequence[IndexArray]) -> IndexArray:
    return np.cumsum([len(unit) for unit in units], dtype=np.int64)


def _refuse_too_few(units: Sequence[IndexArray], sites: int) -> None:
    if len(units) < sites:
        raise PartitionError(
            f"{len(units)} row(s) or unit(s) are left for {sites} sites; each needs one",
            hint="use fewer sites, a smaller holdout, or a larger file or limit",
        )
