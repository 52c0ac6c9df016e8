"""All attacks on a run's adapter, and where what they found may be kept.

The members are the units of sites whose folders are here. Their figures are exact: they go into the
run's folder, and into its report, only where every one of these sites declares its data public;
otherwise into the site's own folder, and what goes beyond it is that site's decision.

`fmfl-secure attack` (`cli.attack`) and `Run.attack` call `attack_run`: it opens the run, reads the
sites' units, tells members by `attacks.membership`, ranks secrets that were planted, and sets each
figure beside what epsilon allows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from fmfl_secure._version import __version__
from fmfl_secure.attacks.membership import FALSE_POSITIVES, SEED, OnPart, tell_members
from fmfl_secure.attacks.secrets import expose, read_secrets
from fmfl_secure.attacks.sites import guess_sites
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.first_grant import name_of
from fmfl_secure.parties.own_parts import own_parts_file
from fmfl_secure.parties.site_data import SiteSource
from fmfl_secure.parties.workspace import Workspace
from fmfl_secure.planning.plans import predict
from fmfl_secure.planning.task import largest_layout
from fmfl_secure.planning.warm_start import line_epsilon, line_of_run
from fmfl_secure.report.results import write_results
from fmfl_secure.run.attack_record import (
    ATTACK_NAME,
    FORMAT,
    AttackRecord,
    save_attack,
)
from fmfl_secure.settings.federation import FederationConfig, load_site
from fmfl_secure.settings.site import SiteConfig
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.tasks import Task, TaskData
from fmfl_secure.training.finished_run import open_run
from fmfl_secure.vectors.adapter import adapter_digest
from privacy.auditing import most_auc, most_true_positives

FOLDER: Final = "attacks"  # of a site: what is found by its private data


@dataclass(frozen=True, slots=True)
class Attacked:
    """The record of attacks on one adapter, and the file that it is kept in.

    Attributes:
        record: What they found.
        path: Its file.
    """

    record: AttackRecord
    path: Path


@dataclass(frozen=True, slots=True, repr=False)
class _Site:
    """One site whose units are attacked."""

    name: str
    folder: Path
    settings: SiteConfig
    data: TaskData


def attack_run(
    run_folder: Path,
    public_like: Path,
    *,
    sites: Sequence[Path] = (),
    secrets: Path | None = None,
    references: int = 4,
    candidates: int = 1000,
    confidence: float = 0.95,
    base: Path | None = None,
    on_part: OnPart = lambda _: None,
) -> Attacked:
    """Attack a run's adapter, and write what was found.

    Args:
        run_folder: The run's folder.
        public_like: Records like those that it was trained on, of the same form, none of which was.
        sites: Folders of sites whose units are the members; empty takes those of a federation on
            one machine.
        secrets: Secrets that were planted in their data (`attacks.secrets`).
        references: Reference models, at least 1.
        candidates: Texts among which a secret is ranked, at most.
        confidence: Of intervals.
        base: The base model's folder; None finds it as the settings say.
        on_part: Told about progress.

    Raises:
        ConfigError: No site's data are at hand, too few of them, or of several sites that have not
            all declared them public.
        FmflError: Run, base model, settings or data are unusable.
    """
    started = time.process_time()
    store = RunStore(run_folder)
    run = open_run(run_folder, base=base)
    config, task = run.config, run.task
    batch_size = config.training.physical_batch_size
    planted = () if secrets is None else read_secrets(secrets)
    on_part("reading")
    targets = [_site(folder, config, task) for folder in sites or _at_hand(store, config)]
    public = all(each.settings.data.visibility == "public" for each in targets)
    _require_one_keeper(targets, config, public=public)
    like = task.load(public_like, unit=config.task.unit, on_bad_row=config.task.on_bad_row)
    own = own_parts_file(targets[0].folder, store.state.run)
    model = run.checked(
        task.open_adapter(run.adapter, personal=own if config.adapter.personal_parts else None)
    )
    found = tell_members(
        config,
        task,
        model,
        [each.data for each in targets],
        like,
        references=references,
        confidence=confidence,
        on_part=on_part,
    )
    epsilon, delta = _epsilon(store, config, task), config.privacy.delta
    if planted:
        on_part("ranking secrets")
    record = AttackRecord(
        format=FORMAT,
        federation=config.federation.name,
        run=store.state.run,
        settings_digest=store.state.config.digest,
        adapter_digest=adapter_digest(store.last_adapter() or b""),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        unit=config.task.unit,
        sites=tuple(each.name for each in targets),
        visibility="public" if public else "private",
        epsilon=None if math.isinf(epsilon) else epsilon,
        delta=delta,
        confidence=confidence,
        members=found.members,
        others=found.others,
        others_from=found.others_from,
        references=references,
        false_positives=FALSE_POSITIVES,
        membership=found.membership,
        allowed_auc=most_auc(epsilon=epsilon, delta=delta),
        allowed_true_positives=tuple(
            most_true_positives(rate, epsilon=epsilon, delta=delta) for rate in FALSE_POSITIVES
        ),
        told_sites=guess_sites(
            found.with_adapter,
            found.without,
            epsilon=epsilon,
            delta=delta,
            seed=SEED,
        ),
        secrets=expose(
            planted,
            model,
            task,
            candidates=candidates,
            epsilon=epsilon,
            delta=delta,
            batch_size=batch_size,
        ),
        cpu_s=time.process_time() - started,
    )
    if not public:
        name = f"{record.run}.json"
        return Attacked(record, save_attack(targets[0].folder / FOLDER, name, record))
    path = save_attack(run_folder, ATTACK_NAME, record)
    write_results(store)
    return Attacked(record, path)


def _at_hand(store: RunStore, config: FederationConfig) -> list[Path]:
    """Folders of the sites of a federation on one machine."""
    workspace = Workspace(store.state.origin)
    folders = [workspace.site(entry.name) for entry in config.sites]
    found = [folder for folder in folders if (folder / "site.toml").is_file()]
    if not found:
        raise ConfigError(
            "no site's folder is here, and so nobody who was trained on",
            hint="A site attacks the adapter by its own units: --site FOLDER.",
        )
    return found


def _site(folder: Path, config: FederationConfig, task: Task) -> _Site:
    settings, name = load_site(folder / "site.toml"), name_of(folder, config)
    data = SiteSource(folder, settings, config, task).read()
    return _Site(name, folder, settings, data)


def _require_one_keeper(
    targets: Sequence[_Site], config: FederationConfig, *, public: bool
) -> None:
    if len(targets) == 1:
        return
    if not public:
        raise ConfigError(
            f"figures of {len(targets)} sites' data together are nobody's to keep: not all of them "
            "declare their data public",
            hint="Attack by one site's units, whose folder then has the figures: --site FOLDER.",
        )
    if config.adapter.personal_parts:
        raise ConfigError(
            "every site has an adapter of its own parts here",
            hint="Attack one of them: --site FOLDER.",
        )


def _epsilon(store: RunStore, config: FederationConfig, task: Task) -> float:
    """The most that the adapter may have cost a unit: the run's training, repeats included.

    Of one that goes on from earlier runs, of all of them together, where units are the same.
    """
    if not config.privacy.noise_mechanism.private:
        return math.inf
    size = largest_layout(task, task.build_model(seed=config.federation.seed)).size
    own = predict(config, size).epsilon_worst_case
    if not store.public().line:
        return own
    *earlier, last = line_of_run(store.folder)
    if any(each.unit != last.unit for each in earlier if each.uses):
        return math.inf  # no figure holds for all of them together
    worst = replace(last, trainings=config.federation.rounds + config.privacy.repeats)
    return max(own, line_epsilon((*earlier, worst), config.privacy.delta))
