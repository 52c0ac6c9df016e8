"""The sites' data and the evaluation set of a comparison, each read once.

Outputs of frozen layers are kept for all arms, and for all adapters that freeze the same layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import msgspec

from fmfl_secure.comparison.arms import POOLED, Arm
from fmfl_secure.comparison.partitions import Shares, as_pooled, by_labels
from fmfl_secure.comparison.rows import OWN
from fmfl_secure.errors import ConfigError
from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.parties.workspace import Workspace
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import FederationConfig, load_site
from fmfl_secure.settings.sections import AdapterSection
from fmfl_secure.tasks import Task, TaskData


class Sources:
    """Reads and prepares each once.

    Args:
        federation: Path of `federation.toml`.
        config: What it says.

    Raises:
        ConfigError: Data are not declared public, or nothing is there to evaluate on.
    """

    def __init__(self, federation: Path, config: FederationConfig) -> None:
        self._folder, self._config = federation.parent, config
        if not config.evaluation.file:
            raise ConfigError(
                "there is nothing to compare on: evaluation.data is empty",
                hint="Name a held-out public file in federation.toml.",
            )
        self._paths: dict[str, Path] = {}
        for entry in config.sites:
            folder = Workspace(self._folder).site(entry.name)
            data = load_site(folder / "site.toml").data
            if data.visibility != "public":
                raise ConfigError(
                    f"{entry.name}'s data are not declared public, and a comparison trains on "
                    "them without privacy",
                    hint="Compare on public data of the same kind, with data.visibility = "
                    "'public' in site.toml.",
                )
            self._paths[entry.name] = folder / data.path
        self._tasks: dict[AdapterSection, Task] = {}
        self._kept: dict[AdapterSection, tuple[int, ...]] = {}
        self._loaded: dict[tuple[tuple[int, ...], str], TaskData] = {}

    def task(self, config: FederationConfig) -> Task:
        """The task with the adapter that these settings have."""
        if config.adapter not in self._tasks:
            self._tasks[config.adapter] = build_task(config, relative_to=self._folder)
        return self._tasks[config.adapter]

    def shares(self, config: FederationConfig, partition: str, seed: int) -> Shares:
        """Which of all units each site has.

        Args:
            config: The settings.
            partition: `own`, or `dirichlet:ALPHA`.
            seed: Of a draw.

        Raises:
            ConfigError: There is no such partition, or records have no label to share them by.
        """
        data = self.pooled(config)
        if partition == OWN:
            return as_pooled(data, [site.name for site in config.sites])
        return by_labels(data, [site.name for site in config.sites], partition, seed)

    def parties(
        self, arm: Arm, config: FederationConfig, shares: Shares
    ) -> list[Mapping[str, TaskData]]:
        """Who trains together, one federation after the other.

        What a party is given is for training: its units, among the records of all.
        """
        data = self.pooled(config)
        if arm.parties == "pooled":
            return [{POOLED: data}]
        by_site = {
            name: dataclasses.replace(data, units=[data.units[unit] for unit in units])
            for name, units in shares.items()
        }
        if arm.parties == "alone":
            return [{name: each} for name, each in by_site.items()]
        return [by_site]

    def pooled(self, config: FederationConfig) -> TaskData:
        """All sites' data, one site's units after the other's."""
        return self._load(config, POOLED, list(self._paths.values()))

    def evaluation(self, config: FederationConfig) -> TaskData:
        """Loads the evaluation set that the settings name."""
        path = self._folder / self._config.evaluation.file
        return self._load(config, "evaluation set", [path], unit="record")

    def _load(
        self, config: FederationConfig, name: str, paths: list[Path], *, unit: str = ""
    ) -> TaskData:
        # Outputs of frozen layers are kept with the data, and depend on how many layers those are.
        key = (self._frozen(config), name)
        if key not in self._loaded:
            self._loaded[key] = self.task(config).load_pooled(
                paths, unit=unit or config.task.unit, on_bad_row=config.task.on_bad_row
            )
        return self._loaded[key]

    def _frozen(self, config: FederationConfig) -> tuple[int, ...]:
        if config.adapter not in self._kept:
            model = self.task(config).build_model(seed=config.federation.seed)
            kept = model.frozen_layers if isinstance(model, AdaptedModel) else ()
            self._kept[config.adapter] = kept
        return self._kept[config.adapter]


def with_populations(config: FederationConfig, shares: Shares) -> FederationConfig:
    """The settings with as many units at each site as it was given.

    Raises:
        ValueError: They do not go together.
    """
    replace = msgspec.structs.replace
    sites = tuple(replace(site, population=len(shares[site.name])) for site in config.sites)
    return replace(config, sites=sites)
