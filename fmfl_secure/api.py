"""Runs federations from Python, as the command line does.

    from fmfl_secure import Federation

    pilot = Federation("pilot")
    print(pilot.predict().epsilon_worst_case)
    run = pilot.run("pilot/run")
    print(run.record.rounds[-1].metrics, run.report)
    run.evaluate("pilot/data/holdout.csv")

What changes something at a party (`initialise`, `run`, `export`) is in its log of acts as a command
is, with `interface: python`. What is done with an opened `Ledger` is in that ledger alone.

Errors are those of the command line: `fmfl_secure.errors.KNOWN_ERRORS`, each with a `code` and
where there is one a `hint`.

`fmfl_secure` exports both classes; of the commands, `cli.federation` alone goes through them, the
others call what these methods call.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmfl_secure.data import PictureCheck, UnitCheck, check_units, read_as
from fmfl_secure.errors import ConfigError
from fmfl_secure.models.language import GREEDY, Sampling
from fmfl_secure.parties.acting import recorded
from fmfl_secure.parties.ledgers_at_hand import ledgers_at_hand
from fmfl_secure.parties.site_data import SiteSource
from fmfl_secure.parties.workspace import (
    DATA_PATTERN,
    Workspace,
    grant_where_none,
    initialise,
)
from fmfl_secure.planning.plans import Prediction, predict, run_proposal
from fmfl_secure.planning.task import allow_extensions, build_task, largest_layout
from fmfl_secure.run.observer import Observer, Silent
from fmfl_secure.settings.federation import FederationConfig, load_federation, load_site
from fmfl_secure.settings.templates import federation_toml
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.tasks import TASKS
from fmfl_secure.training.constant_work import declared_by
from fmfl_secure.training.finished_run import MAX_LEFT_OUT, evaluate_run, predict_run
from fmfl_secure.training.outlook import look_ahead
from privacy import Ledger, check_policy

if TYPE_CHECKING:
    from fmfl_secure.comparison import Comparison
    from fmfl_secure.run.attack_record import AttackRecord
    from fmfl_secure.run.audit_record import AuditRecord
    from fmfl_secure.run.record import RunRecord
    from fmfl_secure.training.suite import SuiteRow

# ruff: noqa: PLC0415 - training, attacks and reports are loaded by who asks for them: a check of
# data needs none of these
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckedData:
    """A site's own data, looked at by the site. The counts are of private data.

    Attributes:
        path: The file or folder, all of whose rows are usable.
        records: How many.
        shortened: How many of them are longer than the model reads, and would be cut.
        beyond: In which ways they are more than constant work is made for, in sentences.
        read_as: How they were read, in sentences: the form, and by which rules.
    """

    path: Path
    records: int
    shortened: int
    beyond: tuple[str, ...] = ()
    read_as: tuple[str, ...] = ()


class Federation:
    """A federation's folder: its settings, and its parties on this machine.

    Args:
        path: The folder, or its `federation.toml`.

    Raises:
        ConfigError: There are no settings, or one is unknown or wrong.
    """

    def __init__(self, path: Path | str) -> None:
        given = Path(path)
        self._file = given / "federation.toml" if given.is_dir() else given
        self.config: FederationConfig = load_federation(self._file)

    def __repr__(self) -> str:
        return f"Federation({str(self._file)!r})"

    @classmethod
    def create(
        cls, folder: Path | str, *, name: str, sites: int = 4, task: str = "text-classification"
    ) -> Federation:
        """A new folder with a commented `federation.toml` to fill in.

        Args:
            folder: Made if missing.
            name: Of the federation: lower case, digits and hyphens.
            sites: How many, at least 3.
            task: Kind of task.

        Raises:
            ConfigError: There are settings already, or there is no such task.
        """
        file = Workspace(Path(folder)).federation_file
        if file.exists():
            raise ConfigError(f"{file} exists", hint="Open it with Federation(folder).")
        text = federation_toml(name, sites, task)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return cls(file)

    @property
    def folder(self) -> Path:
        """The folder that the settings' file is in."""
        return self._file.parent

    def initialise(
        self,
        *,
        epsilon: float | None = None,
        delta: float | None = None,
        delta_reason: str = "",
        data: str = DATA_PATTERN,
        public: bool = False,
        simulated: bool = False,
    ) -> list[str]:
        """Make what is missing: identity keys, site files, ledgers. What exists is left alone.

        Args:
            epsilon: Proposed as first grant of each new ledger; None proposes the settings' own.
            delta: The same for delta.
            delta_reason: Why delta may be above 1 / (10 x a site's population); ledgers keep it.
            data: A site's training file from the folder, `{site}` being its name.
            public: Declare new sites' data public.
            simulated: All sites are yours: grant in their place what is proposed, and say so.

        Returns:
            What was made, for people to read.
        """
        said = {"epsilon": epsilon, "delta": delta, "delta_reason": delta_reason}
        declared = {"public": public, "simulated": simulated}
        with recorded(self.folder, "init", **said, **declared):
            return initialise(
                self.folder,
                epsilon=epsilon,
                delta=delta,
                delta_reason=delta_reason,
                data=data,
                public=public,
                simulated=simulated,
            )

    def predict(self) -> Prediction:
        """Predicts a run's cost for every site, before any data are used.

        Epsilons are those that the sites' ledgers will show, where they are in this folder.

        Raises:
            PlanError: No noise meets the target, or there is no privacy to predict.
        """
        task = build_task(self.config, relative_to=self.folder)
        model = task.build_model(seed=self.config.federation.seed)
        ledgers = ledgers_at_hand(self.folder, self.config)
        return predict(self.config, largest_layout(task, model).size, ledgers)

    def check(self, site: str) -> CheckedData:
        """Check a site's policy and its own data, locally; nothing is charged.

        Returns:
            What the site's data are, which are usable. Counts in it must stay at the site.

        Raises:
            ConfigError: There is no such site.
            PolicyRefusal: Its policy rules the run out.
            PrivacyError: The admission gate refuses model, loss or batching.
            DataError: Its file or a row of it is unusable.
        """
        folder = self._site(site)
        settings = load_site(folder / "site.toml")
        allow_extensions(self.config, settings)
        task = build_task(self.config, relative_to=self.folder)
        ahead = look_ahead(self.config, relative_to=self.folder, signals=False)
        approved = task.base.digest_in(settings.policy.base_models)
        proposal = run_proposal(
            self.config,
            settings,
            approved,
            ahead.size,
            unlisted=ahead.unlisted,
            parameter_set=ahead.parameter_set,
        )
        check_policy(settings.policy, proposal, now=datetime.now(UTC))
        data = folder / settings.data.path
        source = SiteSource(folder, settings, self.config, task)
        source.check()
        loaded = source.read(on_bad_row="error")
        entry = next(each for each in self.config.sites if each.name == site)
        declared = declared_by(self.config, entry) if self.config.constant_work else None
        return CheckedData(
            path=data,
            records=loaded.records,
            shortened=loaded.shortened,
            beyond=tuple(declared.exceeded_by(loaded)) if declared else (),
            read_as=(
                *([form] if (form := read_as(data, self.config.task.readers)) else []),
                *task.said_of(loaded),
                *([unread] if (unread := loaded.said_of_unread) else []),
                *([apart] if (apart := loaded.said_of_held_out) else []),
            ),
        )

    def check_pictures(self, site: str) -> PictureCheck | None:
        """Look at what is read of a site's pictures, locally; nothing is charged.

        Returns:
            Counts by form, mode and size, which must stay at the site; None for a task without
            pictures.

        Raises:
            ConfigError: There is no such site.
            DataError: Its data are unusable.
        """
        folder = self._site(site)
        settings = load_site(folder / "site.toml")
        allow_extensions(self.config, settings)
        task = build_task(self.config, relative_to=self.folder)
        if "image" not in TASKS.get(task.kind).needs.modalities:
            return None
        return task.check_pictures(folder / settings.data.path, unit=self.config.task.unit)

    def check_units(self, site: str) -> UnitCheck:
        """Look for people under several ids in a site's data, locally; nothing is charged.

        Returns:
            Counts and examples, which must stay at the site.

        Raises:
            ConfigError: There is no such site.
            DataError: Its file is unusable.
        """
        folder = self._site(site)
        settings, task = load_site(folder / "site.toml"), self.config.task
        allow_extensions(self.config, settings)
        path = folder / settings.data.path
        return check_units(path, task.unit, task.unit_normalisation, task.readers)

    def run(
        self, output: Path | str, *, resume: bool = False, observer: Observer | None = None
    ) -> Run:
        """Train: all parties on this machine, as separate objects with separate keys.

        A site whose ledger has no grant yet gets its first from the settings, unless they are as
        `init` wrote them; a warning is logged for each.

        Args:
            output: Folder for the run.
            resume: Go on with the run in that folder.
            observer: Told about progress.
        """
        from fmfl_secure.transports.local.engine import LocalEngine

        folder = Path(output)
        with recorded(self.folder, "run", output=str(folder), resume=resume) as told:
            engine = LocalEngine(self._file, folder, resume=resume, observer=observer or Silent())
            if not resume:
                for note in grant_where_none(Workspace(self.folder), self.config):
                    _LOG.warning("made %s", note)
            record = engine.run()
            told |= {"run": record.run, "status": record.status, "rounds": len(record.rounds)}
        return Run(folder)

    def compare(
        self,
        *,
        arms: Sequence[str] = (),
        epsilons: Sequence[float] = (),
        seeds: int = 3,
        output: Path | str | None = None,
    ) -> Comparison:
        """The federation beside its baselines, on data declared public; opens no ledger.

        Args:
            arms: Names of `fmfl_secure.comparison.ARMS`; empty for all.
            epsilons: Privacy targets; empty takes the settings' own.
            seeds: How many.
            output: A file that keeps every row, and is gone on with.
        """
        from fmfl_secure.comparison import compare as compare_arms

        chosen: dict[str, Any] = {"arms": tuple(arms)} if arms else {}
        kept = None if output is None else Path(output)
        return compare_arms(self._file, epsilons=epsilons, seeds=seeds, output=kept, **chosen)

    def audit(self, *, confidence: float = 0.95) -> AuditRecord:
        """Bound epsilon from below by canaries through the training that the settings describe."""
        from fmfl_secure.audit import audit_settings

        return audit_settings(self._file, confidence=confidence)

    def _site(self, name: str) -> Path:
        if name not in {entry.name for entry in self.config.sites}:
            raise ConfigError(f"{name} is not among the sites of {self._file}")
        return Workspace(self.folder).site(name)

    def ledger(self, site: str) -> Ledger:
        """Opens a site's privacy-budget ledger."""
        folder = Workspace(self.folder).site(site)
        return Ledger(load_site(folder / "site.toml").budget.ledger_from(folder))


class Run:
    """A run's folder: its adapter, its record and its report.

    Args:
        folder: Where it is.

    Raises:
        RunError: There is no run.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._store = RunStore(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def record(self) -> RunRecord:
        """Everything that the report states."""
        from fmfl_secure.report.results import build_record

        return build_record(self._store)

    @property
    def adapter(self) -> Path:
        """The finished adapter's folder, which PEFT opens where it knows the kind."""
        return self.folder / "adapter"

    @property
    def report(self) -> Path:
        """The privacy-budget report, rebuilt from the run's state."""
        from fmfl_secure.report.results import write_results

        write_results(self._store)
        return self.folder / "report.html"

    def evaluate(
        self,
        data: Path | str,
        *,
        personal: Path | str | None = None,
        head: Path | str | None = None,
        max_left_out: float = MAX_LEFT_OUT,
    ) -> dict[str, float]:
        """Metrics on labelled data. Exact: on private data they are not private.

        Args:
            data: A file, or a folder of images by label.
            personal: A site's own parts, where the run left each site some.
            head: The same, as version 0.1.0 calls it.
            max_left_out: Largest share of rows that may be left out as unusable.

        Raises:
            DataError: More rows than that are unusable.
        """
        return evaluate_run(
            self.folder,
            Path(data),
            personal=_own_parts(personal, head),
            max_left_out=max_left_out,
        ).metrics

    def evaluate_suite(self, suite: Path | str) -> list[SuiteRow]:
        """Benchmarks of a TOML file, on the adapter and on what it is to be compared with.

        Args:
            suite: The file; docs/models.md has its form.
        """
        from fmfl_secure.training.suite import evaluate_suite, load_suite

        file = Path(suite)
        return list(evaluate_suite(self.folder, load_suite(file), relative_to=file.parent))

    def predict(
        self,
        data: Path | str,
        *,
        personal: Path | str | None = None,
        head: Path | str | None = None,
        sampling: Sampling = GREEDY,
    ) -> list[dict[str, Any]]:
        """An answer for each row, in order.

        Args:
            data: A file without what is to be predicted.
            personal: A site's own parts, where the run left each site some.
            head: The same, as version 0.1.0 calls it.
            sampling: How a language model chooses tokens.
        """
        own = _own_parts(personal, head)
        return predict_run(self.folder, Path(data), personal=own, sampling=sampling)

    def export(
        self, output: Path | str, *, merged: bool = False, personal: Path | str | None = None
    ) -> Path:
        """Write the adapter, or merged weights, with a card of what they cost.

        Args:
            output: A folder that is not there yet, or is empty.
            merged: Write whole weights in place of the adapter.
            personal: A site's own parts, where the run left each site some; written with the rest.
        """
        from fmfl_secure.report.export import export_run

        own = _own_parts(personal, None)
        where = {"run_folder": str(self.folder), "output": str(output)}
        with recorded(self._store.state.origin, "export", **where, merged=merged):
            return export_run(self.folder, Path(output), merged=merged, personal=own)

    def audit(self, *, confidence: float = 0.95) -> AuditRecord:
        """Audit the run's settings; writes `audit.json` and the report anew."""
        from fmfl_secure.audit import audit_run

        return audit_run(self.folder, confidence=confidence)

    def attack(
        self,
        public_like: Path | str,
        *,
        sites: Sequence[Path | str] = (),
        secrets: Path | str | None = None,
        references: int = 4,
    ) -> AttackRecord:
        """Attack the finished adapter; exact figures stay with whoever's data they are of.

        Args:
            public_like: Records like those that it was trained on, none of which was.
            sites: Folders of sites whose units are attacked; empty for those on this machine.
            secrets: Secrets that were planted for a language model.
            references: Reference models.
        """
        from fmfl_secure.attacks import attack_run

        return attack_run(
            self.folder,
            Path(public_like),
            sites=[Path(site) for site in sites],
            secrets=None if secrets is None else Path(secrets),
            references=references,
        ).record


def _own_parts(personal: Path | str | None, head: Path | str | None) -> Path | None:
    if personal is not None and head is not None:
        raise ConfigError("personal and head both name a site's own parts: give one of them")
    chosen = head if personal is None else personal
    return None if chosen is None else Path(chosen)
