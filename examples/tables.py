"""What the generators share: which files there are, and how a table is written."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path


def parts(*, sites: int, per_site: int, holdout: int) -> dict[str, int]:
    """How many rows or people each part has: every site, and a holdout that no site holds."""
    return {f"site-{n}": per_site for n in range(1, sites + 1)} | {"holdout": holdout}


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
