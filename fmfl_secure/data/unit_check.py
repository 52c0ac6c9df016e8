"""How a site's data name people, for the site to look at."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.fields import RECORD_UNIT, choose_column
from fmfl_secure.data.formats.registry import claimed, open_source
from fmfl_secure.data.images import people_of, require_folder_unit
from fmfl_secure.data.unit_ids import NearDuplicates, near_duplicates, unit_id
from fmfl_secure.outside import is_folder
from fmfl_secure.settings.types import UnitRule


@dataclass(frozen=True, slots=True, repr=False)
class UnitCheck:
    """How data name their units. Private: has no useful repr.

    Attributes:
        spellings: Distinct values that name somebody.
        ids: Distinct ids among them: what is taken for one person each.
        near_duplicates: Which of those might be one person all the same.
    """

    spellings: int = 0
    ids: int = 0
    near_duplicates: tuple[NearDuplicates, ...] = ()

    def __repr__(self) -> str:
        return "UnitCheck(<private>)"


def check_units(
    path: Path,
    unit: str,
    unit_rules: Collection[UnitRule] = (),
    readers: Collection[str] = (),
) -> UnitCheck:
    """Looks for people under several ids. For the site alone.

    Args:
        path: A table, or a folder of pictures by label.
        unit: "record", of which nothing can be asked, or what names the unit: a column, or
            `PatientID` of DICOM files in a folder.
        unit_rules: What the settings say of ids. Bad rows are passed over.
        readers: Other packages' forms that are read besides.

    Raises:
        DataError: The data cannot be read or do not name the unit.
    """
    if unit == RECORD_UNIT:
        return UnitCheck()
    values: Iterable[str | None]
    if is_folder(path) and not claimed(path, readers):
        require_folder_unit(path, unit)
        values = people_of(path)
    else:
        source = open_source(path, readers=readers)
        rows = source.rows([choose_column(source, path, "unit", (unit,))])
        values = (row.values[0] for row in rows if row.fault is None)
    spellings: dict[str, str] = {}
    for value in values:
        if value is not None:
            with contextlib.suppress(UnusableValue):
                spellings[value] = unit_id(value, unit_rules)
    ids = set(spellings.values())
    return UnitCheck(len(spellings), len(ids), near_duplicates(ids, unit_rules))
