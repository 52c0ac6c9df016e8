"""One file split into the files of several sites, for simulations and benchmarks.

The split is reproducible and written down (`partition.json`: arguments, seed, row counts, SHA-256
of every file), which also means it is for data that may be counted in public. It is not a step
of private training: a site's own data arrive as they are.

`fmfl-secure partition` (`cli.federation`) calls `partition_file`: it reads the columns that the
split needs, shuffles units, sets holdout and tune aside, and shares the rest by the scheme.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec
import numpy as np

from fmfl_secure.data._shares import (
    distinct_values,
    set_aside,
    share_by_label,
    share_by_value,
    share_evenly,
    take_at_most,
)
from fmfl_secure.data._source import Row, Source, UnusableValue, read_bytes
from fmfl_secure.data.errors import (
    DataArgumentError,
    EmptyFileError,
    NullUnitError,
    OutputError,
    PartitionError,
    UnknownLabelError,
)
from fmfl_secure.data.fields import choose_column
from fmfl_secure.data.formats.base import table_suffix
from fmfl_secure.data.formats.registry import format_of, open_source, suffixes
from fmfl_secure.data.output import write_files
from fmfl_secure.data.records import grouped_units, record_units
from fmfl_secure.data.unit_ids import unit_id
from fmfl_secure.settings.types import UnitRule

MANIFEST = "partition.json"

_PART_NAME = re.compile(
    rf"(?:site-[0-9]+|holdout|tune)(?:{'|'.join(map(re.escape, suffixes(splits=True)))})"
)

_MISSING = MappingProxyType(
    {"label_column": UnknownLabelError, "unit_column": NullUnitError, "by": PartitionError}
)


@dataclass(frozen=True, slots=True)
class PartFile:
    """One file of a partition.

    Attributes:
        name: File name within the output directory.
        rows: Data rows in it.
        sha256: Of its bytes, hex.
        value: Under `by="column:NAME"`, the site's value of that column; else None.
    """

    name: str
    rows: int
    sha256: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class PartitionSummary:
    """Files that `partition_file` wrote.

    Attributes:
        out: The directory.
        input_sha256: Of the file that was split, hex.
        sites: Sites' files, in order.
        holdout: File for evaluation; None if none was asked for.
        tune: File for choosing hyperparameters; None if none was asked for.
    """

    out: Path
    input_sha256: str
    sites: tuple[PartFile, ...]
    holdout: PartFile | None
    tune: PartFile | None

    @property
    def files(self) -> tuple[PartFile, ...]:
        """All of them: sites, then holdout, then tune."""
        return (*self.sites, *(part for part in (self.holdout, self.tune) if part is not None))


def partition_file(
    path: Path,
    sites: int,
    out: Path,
    *,
    by: str = "iid",
    label_column: str | None = None,
    holdout: float = 0.0,
    tune: float = 0.0,
    limit: int | None = None,
    seed: int = 0,
    unit_column: str | None = None,
    unit_rules: Collection[UnitRule] = (),
    overwrite: bool = False,
) -> PartitionSummary:
    """Splits a file into `site-1.EXT`, `site-2.EXT`, ... and, where asked, holdout and tune files.

    The parts have the input's format and columns; rows of text formats are copied byte for
    byte, in the input's order. Every row, or every row of the subset that `limit` leaves, is in
    exactly one part. The same arguments, seed and file give the same parts (under one version
    of numpy, which the manifest names).

    Args:
        path: A table of a form that can be split.
        sites: Number of sites, at least 1. Each gets at least one row.
        out: Directory for the parts and `partition.json`.
        by: "iid": at random, sizes as equal as the units allow. "dirichlet:ALPHA": labels skewed,
            each label's rows shared out by a draw from a symmetric Dirichlet (arXiv 1909.06335);
            smaller ALPHA, more skew. "column:NAME": one site per value of a column, in order of
            first appearance.
        label_column: Column with the label; needed by "dirichlet".
        holdout: Fraction of the rows set aside for evaluation, in [0, 1).
        tune: Fraction set aside for choosing hyperparameters, disjoint from holdout and sites.
        limit: First keep a random subset of at most this many rows.
        seed: Of the split; not negative.
        unit_column: Rows with the same id in this column stay together in one part.
        unit_rules: Which differences between ids are of no account besides (`unit_ids`).
        overwrite: Replace a partition that is there, with all its parts.

    Returns:
        The files written.

    Raises:
        DataError: The file cannot be read, cannot be split as asked, or would be overwritten.
    """
    scheme = _parse_scheme(by)
    _check_arguments(sites, holdout, tune, limit, seed)
    if scheme.kind == "dirichlet" and label_column is None:
        raise DataArgumentError(f"by is {by!r} and label_column is not given; expected a column")
    present = _refuse_collisions(path, out, overwrite=overwrite)

    _require_splittable(path)
    data = read_bytes(path)
    source = open_source(path, data)
    columns = _read_columns(
        path,
        source,
        {
            "label_column": label_column,
            "unit_column": unit_column,
            "by": scheme.column,
        },
        unit_rules,
    )
    if not len(source):
        raise EmptyFileError("the file has no rows", hint="check its export", path=path)

    units = grouped_units(columns["unit_column"]) if unit_column else record_units(len(source))
    rng = np.random.default_rng(seed)
    shuffled = [units[index] for index in rng.permutation(len(units))]
    kept = shuffled if limit is None else take_at_most(shuffled, limit)
    total = sum(len(unit) for unit in kept)
    held_out, rest = set_aside(kept, total, "holdout", holdout)
    tuning, rest = set_aside(rest, total, "tune", tune)
    values: list[str] = []
    match scheme.kind:
        case "iid":
            shares = share_evenly(rest, sites)
        case "dirichlet":
            shares = share_by_label(rest, sites, columns["label_column"], scheme.alpha, rng)
        case "column":
            values = distinct_values(kept, sites, by, columns["by"])
            shares = share_by_value(rest, values, by, columns["by"])

    suffix = table_suffix(path)  # of a compressed table the parts are not
    stems = {f"site-{number}": share for number, share in enumerate(shares, start=1)}
    stems |= {stem: part for stem, part in (("holdout", held_out), ("tune", tuning)) if part}
    contents: dict[str, bytes] = {}
    parts: dict[str, PartFile] = {}
    for (stem, part), value in zip_longest(stems.items(), values):
        rows = np.sort(np.concatenate(part))
        name = stem + suffix
        contents[name] = source.select(rows.tolist())
        digest = hashlib.sha256(contents[name]).hexdigest()
        parts[stem] = PartFile(name, len(rows), digest, value)
    summary = PartitionSummary(
        out=out,
        input_sha256=hashlib.sha256(data).hexdigest(),
        sites=tuple(parts[f"site-{number}"] for number in range(1, sites + 1)),
        holdout=parts.get("holdout"),
        tune=parts.get("tune"),
    )
    manifest = {
        "version": 1,
        # The name only: where the file lay says nothing about the split.
        "input": {"name": path.name, "rows": len(source), "sha256": summary.input_sha256},
        "arguments": {
            "sites": sites,
            "by": by,
            "label_column": label_column,
            "holdout": holdout,
            "tune": tune,
            "limit": limit,
            "seed": seed,
            "unit_column": unit_column,
            "unit_normalisation": sorted(unit_rules),
        },
        "numpy": np.__version__,
        "files": summary.files,
    }
    contents[MANIFEST] = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    # The manifest goes first and comes back last: a directory that has one is a whole partition.
    _remove([file for file in present if file.name == MANIFEST])
    write_files(out, contents)
    _remove([file for file in present if file.name not in contents])
    return summary


@dataclass(frozen=True, slots=True)
class _Scheme:
    kind: Literal["iid", "dirichlet", "column"]
    alpha: float = 0.0
    column: str | None = None


def _parse_scheme(by: str) -> _Scheme:
    kind, colon, parameter = by.partition(":")
    if kind == "iid" and not colon:
        return _Scheme("iid")
    if kind == "column" and parameter:
        return _Scheme("column", column=parameter)
    if kind == "dirichlet" and colon:
        try:
            alpha = float(parameter)
        except ValueError:
            alpha = math.nan
        if math.isfinite(alpha) and alpha > 0:
            return _Scheme("dirichlet", alpha=alpha)
        raise DataArgumentError(
            f"by is {by!r}; expected a positive number after the colon",
            hint="give a number above 0: 0.1 is strong skew, 1 moderate, 100 nearly none",
        )
    raise DataArgumentError(
        f'by is {by!r}; expected "iid", "dirichlet:ALPHA" or "column:NAME"',
        hint='write it as "dirichlet:0.5" or "column:hospital"',
    )


def _check_arguments(sites: int, holdout: float, tune: float, limit: int | None, seed: int) -> None:
    if sites < 1:
        raise DataArgumentError(f"sites is {sites}; expected at least 1")
    for name, fraction in (("holdout", holdout), ("tune", tune)):
        if not 0 <= fraction < 1:  # NaN fails this, too
            raise DataArgumentError(f"{name} is {fraction}; expected a fraction in [0, 1)")
    if holdout + tune >= 1:
        raise DataArgumentError(
            f"holdout is {holdout} and tune is {tune}; expected a sum below 1",
            hint="set less aside: the sites need rows, too",
        )
    if limit is not None and limit < 1:
        raise DataArgumentError(f"limit is {limit}; expected at least 1 row")
    if seed < 0:
        raise DataArgumentError(f"seed is {seed}; expected 0 or more")


def _require_splittable(path: Path) -> None:
    kind = format_of(path)
    if not kind.splits:
        raise PartitionError(
            f"{kind.name} is not split here",
            hint=f"write it as one of {', '.join(suffixes(splits=True))}",
            path=path,
        )


def _refuse_collisions(path: Path, out: Path, *, overwrite: bool) -> list[Path]:
    """Returns the files of an earlier partition in `out`; refuses where they must stay."""
    try:
        present = [
            file
            for file in (sorted(out.iterdir()) if out.exists() else ())
            if file.name == MANIFEST or _PART_NAME.fullmatch(file.name)
        ]
    except OSError as error:
        raise OutputError(
            f"the directory cannot be used: {error.strerror or type(error).__name__}",
            hint="name a directory, or a path where one can be made",
            path=out,
        ) from None
    if any(file.resolve() == path.resolve() for file in present):
        raise OutputError(
            "the input has the name of a part and lies in the output directory",
            hint="name another directory for the parts",
            path=path,
        )
    if present and not overwrite:
        raise OutputError(
            f"there is a partition already: {', '.join(file.name for file in present[:5])}",
            hint="name another directory, or ask to overwrite",
            path=out,
        )
    return present


def _remove(files: Sequence[Path]) -> None:
    """Removes parts of an earlier partition: beside a new one they would repeat its rows."""
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                "a file of the earlier partition cannot be removed: "
                f"{error.strerror or type(error).__name__}",
                hint="remove the directory by hand",
                path=file,
            ) from None


def _read_columns(
    path: Path,
    source: Source,
    arguments: Mapping[str, str | None],
    unit_rules: Collection[UnitRule],
) -> dict[str, list[str]]:
    """Reads the columns the split needs, by argument; refuses any row that is faulty."""
    names = {
        argument: choose_column(source, path, argument, (name,))
        for argument, name in arguments.items()
        if name is not None
    }
    columns: dict[str, list[str]] = {argument: [] for argument in names}
    for row in source.rows(tuple(names.values())):
        if row.fault is not None:
            raise row.fault
        for (argument, name), value in zip(names.items(), row.values, strict=True):
            if not value:
                raise _MISSING[argument](
                    f"the value in column {name!r} is missing",
                    hint=f"complete the column that {argument} names, or remove the row",
                    path=path,
                    row=row.number,
                    line=row.line,
                )
            if argument == "unit_column":
                value = _unit_of(value, unit_rules, name, path, row)  # noqa: PLW2901
            columns[argument].append(value)
    return columns


def _unit_of(
    value: str, unit_rules: Collection[UnitRule], column: str, path: Path, row: Row
) -> str:
    try:
        return unit_id(value, unit_rules, column=column)
    except UnusableValue as error:
        fault = error
    # Raised out here: what went before would be told along with it.
    raise fault.kind(fault.problem, hint=fault.hint, path=path, row=row.number, line=row.line)
