"""The sites' data and the evaluation set of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fmfl_secure.comparison.arms import POOLED, Arm
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.workspace import Workspace
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import FederationConfig, load_site
from fmfl_secure.tasks import Task, TaskData


class Sources:
    """Reads and prepares each once a kind of adapter.

    Args:
        federation: Path of `federation.toml`.
        config: What it says.

    Raises:
        ConfigError: Data are not declared public, or nothing is there to evaluate on.
    """

    def __init__(self, federation: Path, config: FederationConfig) -> None:
        self._folder, self._config = federation.parent, config
        if not config.evaluation.data:
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
        self._tasks: dict[str, Task] = {}
        self._loaded: dict[tuple[str, str], TaskData] = {}

    def task(self, config: FederationConfig) -> Task:
        """The task with the adapter that these settings have."""
        kind = config.adapter.kind
        if kind not in self._tasks:
            self._tasks[kind] = build_task(config, relative_to=self._folder)
        return self._tasks[kind]

    def by_site(self, config: FederationConfig) -> dict[str, TaskData]:
        """Every site's data."""
        return {name: self._load(config, name, [path]) for name, path in self._paths.items()}

    def parties(self, arm: Arm, config: FederationConfig) -> Iterator[Mapping[str, TaskData]]:
        """Who trains together, one federation after the other."""
        if arm.parties == "pooled":
            yield {POOLED: self._load(config, POOLED, list(self._paths.values()))}
        elif arm.parties == "alone":
            for name, data in self.by_site(config).items():
                yield {name: data}
        else:
            yield self.by_site(config)

    def evaluation(self, config: FederationConfig) -> TaskData:
        """The evaluation set."""
        path = self._folder / self._config.evaluation.data
        return self._load(config, "evaluation set", [path], unit="record")

    def _load(
        self, config: FederationConfig, name: str, paths: list[Path], *, unit: str = ""
    ) -> TaskData:
        # Outputs of frozen layers are kept with the data, and depend on the kind of adapter.
        key = (config.adapter.kind, name)
        if key not in self._loaded:
            self._loaded[key] = self.task(config).load_pooled(
                paths, unit=unit or config.task.unit, on_bad_row=config.task.on_bad_row
            )
        return self._loaded[key]
