"""A site's own data, as its settings and the federation's say: to train on, and set apart.

`parties.site` makes one and asks it what can be known before a charge (`check`); behind that
`parties.site_training` reads it. `Federation.check` and `attacks.attack` do for the site alone.
"""

from __future__ import annotations

import dataclasses
import filecmp
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fmfl_secure.data import Field, OnBadRow, group_field
from fmfl_secure.data.errors import EmptyFileError
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.holdout import HoldoutKey
from fmfl_secure.questions.registry import questions_of
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.site import SiteConfig
from fmfl_secure.tasks import Task, TaskData

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class SiteSource:
    """Where a site's data are, and what is read of them.

    Attributes:
        folder: The site's.
        site: Its own settings.
        config: The federation's.
        task: What is learned.
    """

    folder: Path
    site: SiteConfig
    config: FederationConfig
    task: Task

    @property
    def paths(self) -> list[Path]:
        """The file that is trained on, and that of held-out units where one is named."""
        named = [self.site.data.path, *([self.site.data.holdout] if self.site.data.holdout else [])]
        return [self.folder / name for name in named]

    @property
    def _subgroups(self) -> Field | None:
        evaluation = self.config.evaluation
        if not evaluation.subgroup_column:
            return None
        return group_field(
            "evaluation.subgroup_column", evaluation.subgroup_column, evaluation.subgroups
        )

    def check(self) -> None:
        """Require what can be known before a charge.

        Raises:
            ConfigError: Held-out units are asked, and nothing says which these are; or what sets
                them apart cannot be used.
            DataError: The data are not there, or are not what the settings say.
        """
        asked = self.config.asked
        of_held_out = asked is not None and any(each.of_held_out for each in questions_of(asked))
        if of_held_out and not (self.config.evaluation.holdout or self.site.data.holdout):
            raise ConfigError(
                "held-out units are asked, and none are set apart here",
                hint="Name a file of them as data.holdout in site.toml, or set evaluation.holdout "
                "in federation.toml where the unit is a column.",
            )
        for path in self.paths:
            self.task.check_source(path, unit=self.config.task.unit, subgroups=self._subgroups)
        self._require_apart()
        if self.config.evaluation.holdout:
            self._open_key()

    def _require_apart(self) -> None:
        """Units of one file cannot be trained on and set apart from training."""
        if self.site.data.holdout and _are_one(*self.paths):
            raise ConfigError(
                "data.holdout and data.path in site.toml are one file, or one is a copy of the "
                "other: what is trained on would be asked as if it never had been",
                hint="Name a file of other units as data.holdout.",
            )

    def require_key(self) -> None:
        """Require, of a site that has been in a run, the key that sets units apart.

        A new one sets others apart: a model that goes on from that run has seen some of them.

        Raises:
            ConfigError: Units are to be set apart, and it is not there.
        """
        if self.config.evaluation.holdout and not self._key_file.exists():
            raise ConfigError(
                f"{self._key_file} is not there, and the ledger holds earlier runs: with another "
                "key, people who were trained on are asked as if they never had been",
                hint="Restore it from a backup; where no earlier run set people apart, "
                "fmfl-secure check makes one.",
            )

    @property
    def _key_file(self) -> Path:
        return self.folder / self.site.data.holdout_key

    def _open_key(self) -> HoldoutKey:
        return HoldoutKey.open(self._key_file, self.site.budget.population)

    def read(self, *, on_bad_row: OnBadRow | None = None) -> TaskData:
        """All of the site's units, those set apart marked as such.

        Args:
            on_bad_row: What to do about one; None does as the federation's settings say.

        Raises:
            ConfigError: The key that sets units apart cannot be used.
            DataError: The data or a row of them are unusable, or no unit is left to train on.
        """
        data = self.task.load_pooled(
            self.paths,
            unit=self.config.task.unit,
            on_bad_row=on_bad_row or self.config.task.on_bad_row,
            subgroups=self._subgroups,
        )
        in_file = np.arange(len(data.units)) >= data.pooled[0]
        share = self.config.evaluation.holdout
        if share:
            apart = in_file | self._open_key().sets_apart(data.ids, share)
        elif self.site.data.holdout:
            apart = in_file
        else:
            return data
        kept = _without_twice(dataclasses.replace(data, held_out=apart), in_file)
        if self.config.trains and kept.held_out.all():
            raise EmptyFileError(
                "every unit of the data is set apart, and none is left to train on",
                hint="Name a file of other units as data.holdout, or agree on a lower "
                "evaluation.holdout.",
                path=self.paths[0],
            )
        return kept


def _are_one(data: Path, holdout: Path) -> bool:
    """Whether two places are the same file, or files of the same bytes."""
    if data.resolve() == holdout.resolve():
        return True
    try:
        return data.is_file() and holdout.is_file() and filecmp.cmp(data, holdout, shallow=False)
    except OSError:  # whatever is wrong with one of them was told, or is when it is read
        return False


def _without_twice(data: TaskData, in_file: NDArray[np.bool_]) -> TaskData:
    """Without the rows to train on of units that are in the held-out file: each is one unit."""
    named = {data.ids[unit] for unit in np.flatnonzero(in_file).tolist()} if data.ids else set()
    kept = [
        unit
        for unit in range(len(data.units))
        if in_file[unit] or not data.ids or data.ids[unit] not in named
    ]
    return dataclasses.replace(
        data,
        units=_at(data.units, kept),
        ids=_at(data.ids, kept) if data.ids else (),
        pooled=(),
        held_out=data.held_out[kept],
    )


def _at(values: Sequence[T], places: Sequence[int]) -> list[T]:
    return [values[place] for place in places]
