"""A federation's folder on one machine: who the parties are and where each keeps its own.

    DIR/
      federation.toml             public settings
      members.json                public keys of all parties
      coordinator/                identity.pem, anchors.sqlite
      aggregator/                 identity.pem
      decryptor/                  identity.pem, journal.sqlite
      sites/NAME/                 site.toml, identity.pem, storage.key, members.json (pinned),
                                  ledger.sqlite, journal.sqlite, updates.sqlite, anchors.sqlite
      custodians/NAME/            custodian.toml, identity.pem, members.json (pinned),
                                  journal.sqlite; only if the settings name any

In the embedded engine all folders lie side by side; nothing in one refers to another's, and each
may move to a machine of its own.

`fmfl-secure init` (`cli.init`) calls `initialise`, which makes what is missing and nothing anew.
Whoever works in such a folder asks a `Workspace` for paths and a `Members` file for keys.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from aggregation import AggregationError, Identity, PublicIdentity
from fmfl_secure.errors import ConfigError, os_failure
from fmfl_secure.outside import MALFORMED, MOST_DOCUMENT, read_regular
from fmfl_secure.parties.proposals import SIMULATED, Proposal, is_template, offer
from fmfl_secure.settings.federation import FederationConfig, load_federation, load_site
from fmfl_secure.settings.templates import custodian_toml, site_toml
from privacy import Ledger, LedgerError, check_population_delta, filter_orders
from privacy.storage import without_secrets

COORDINATOR, AGGREGATOR, DECRYPTOR = "coordinator", "aggregator", "decryptor"
DATA_PATTERN = "data/{site}.csv"
ROLES = (COORDINATOR, AGGREGATOR, DECRYPTOR)
_MEMBERS_BACK = (
    "Put it back as it was: init writes it into a federation's folder, provision or accept into a "
    "party's own."
)


class _MembersFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    coordinator: str
    aggregator: str
    decryptor: str
    sites: dict[str, str]
    custodians: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Members:
    """Public identities of all parties, as one party pins them.

    Attributes:
        coordinator: Who plans.
        aggregator: Who adds.
        decryptor: Who opens sums.
        sites: By name.
        custodians: By name; usually none.
    """

    coordinator: PublicIdentity
    aggregator: PublicIdentity
    decryptor: PublicIdentity
    sites: dict[str, PublicIdentity]
    custodians: dict[str, PublicIdentity] = field(default_factory=dict)

    @property
    def pinned(self) -> dict[str, PublicIdentity]:
        """All but the coordinator, by name: what a role checks a plan against."""
        roles = {AGGREGATOR: self.aggregator, DECRYPTOR: self.decryptor}
        return roles | self.custodians | self.sites

    def encode(self) -> bytes:
        """Encodes the list as its file's bytes."""
        file = _MembersFile(
            coordinator=self.coordinator.text,
            aggregator=self.aggregator.text,
            decryptor=self.decryptor.text,
            sites={name: identity.text for name, identity in self.sites.items()},
            custodians={name: identity.text for name, identity in self.custodians.items()},
        )
        return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"

    @classmethod
    def load(cls, path: Path) -> Members:
        """Read a members file.

        Raises:
            ConfigError: It is not there or malformed.
            AggregationError: A key is malformed.
        """
        try:
            data = read_regular(path, most_bytes=MOST_DOCUMENT)
        except OSError as error:
            what = f"cannot read the members in {path}"
            raise os_failure(ConfigError, what, error, hint=_MEMBERS_BACK) from error
        return cls.decode(data, source=str(path))

    @classmethod
    def decode(cls, data: bytes, *, source: str) -> Members:
        """Read a members file's content.

        Raises:
            ConfigError: It is malformed.
            AggregationError: A key is malformed.
        """
        try:
            file = msgspec.json.decode(data, type=_MembersFile)
        except MALFORMED as error:
            raise ConfigError(
                f"cannot read the members in {source}: {error}",
                hint=_MEMBERS_BACK,
            ) from error
        return cls(
            coordinator=PublicIdentity.parse(COORDINATOR, file.coordinator),
            aggregator=PublicIdentity.parse(AGGREGATOR, file.aggregator),
            decryptor=PublicIdentity.parse(DECRYPTOR, file.decryptor),
            sites={name: PublicIdentity.parse(name, text) for name, text in file.sites.items()},
            custodians={
                name: PublicIdentity.parse(name, text) for name, text in file.custodians.items()
            },
        )


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths of a federation's folder.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @property
    def federation_file(self) -> Path:
        """Path of `federation.toml`, the shared settings."""
        return self.folder / "federation.toml"

    @property
    def members_file(self) -> Path:
        """Where the public keys are."""
        return self.folder / "members.json"

    def role(self, name: str) -> Path:
        """Folder of the coordinator, the aggregator or the decryptor."""
        return self.folder / name

    def site(self, name: str) -> Path:
        """Returns the folder of a site."""
        return self.folder / "sites" / name

    def custodian(self, name: str) -> Path:
        """Returns the folder of a custodian."""
        return self.folder / "custodians" / name


def initialise(
    folder: Path,
    *,
    epsilon: float | None,
    delta: float | None,
    delta_reason: str = "",
    data: str = DATA_PATTERN,
    public: bool = False,
    simulated: bool = False,
) -> list[str]:
    """Create what is missing in a federation's folder: identities, site files, ledgers.

    What exists is left alone, so that adding a site to `federation.toml` and running it again
    creates that site only. A site's ledger is made together with its identity and never again:
    a ledger that was lost must be restored or granted anew by its custodian, not recreated.
    Nothing is granted in it: that is its site's to do (`first_grant`).

    Args:
        folder: With a `federation.toml`.
        epsilon: Proposed as first grant of each new site's ledger; None proposes the settings'.
        delta: The same for delta.
        delta_reason: Why delta may be above 1 / (10 x a site's population), in the custodian's
            words, which its ledger keeps; empty allows no such delta.
        data: Path of a site's training file, from the federation's folder; `{site}` stands for
            its name.
        public: Declare the data of new sites public: anyone may see every row.
        simulated: All sites are one person's: grant in their place what is proposed, and say so,
            unless the settings are still as `init` wrote them.

    Returns:
        What was created, for people to read.

    Raises:
        ConfigError: The settings are wrong, several sites would have one file, or an existing site
            has lost its ledger.
        PrivacyError: A grant of this epsilon and delta is not possible, with this population of a
            new site; nothing was made.
    """
    workspace = Workspace(folder)
    config = load_federation(workspace.federation_file)
    _require_files_apart(workspace, config, data)
    proposal = Proposal(epsilon, delta, delta_reason.strip())
    at_delta = config.privacy.delta if delta is None else delta
    filter_orders(config.privacy.epsilon if epsilon is None else epsilon, at_delta)
    if not delta_reason.strip():
        for entry in config.sites:
            if not (workspace.site(entry.name) / "identity.pem").exists():
                check_population_delta(
                    at_delta,
                    entry.population,
                    f"{entry.name}: the grant's delta",
                    hint="Grant at a smaller delta, or say why not: --delta-reason.",
                )
    created: list[str] = []
    roles = {name: _identity(workspace.role(name), name, created) for name in ROLES}
    sites = {}
    for entry in config.sites:
        site_folder = workspace.site(entry.name)
        # The site's own file first: were it wrong, an identity would stand there with no ledger.
        _site_file(site_folder, entry.name, config, data, created, public=public)
        budget = load_site(site_folder / "site.toml").budget
        is_new = not (site_folder / "identity.pem").exists()
        ledger = budget.ledger_from(site_folder)
        has_ledger = Ledger.exists(ledger)
        if not is_new and not has_ledger:
            raise ConfigError(
                f"{entry.name} has an identity, and its ledger {without_secrets(str(ledger))} is "
                "missing",
                hint="Restore it from a backup: what it says was spent cannot be forgotten.",
            )
        identity = _identity(site_folder, entry.name, created)
        sites[entry.name] = identity.public
        _storage_key(site_folder)
        # One that is there is of another data set of the same population.
        if is_new and not has_ledger:
            made = Ledger.create(
                ledger,
                population=budget.population,
                unit=config.task.unit,
                signer=identity,
                public_key=identity.public.key,
            )
            proposal.keep(site_folder)
            created.append(f"{made.name}, in which nothing is granted")
        elif is_new and Ledger(ledger).budget().signers.name_of(identity.public.key) is None:
            created.append(
                f"no ledger for {entry.name}, since {without_secrets(str(ledger))} is there; its "
                f"custodian lets {entry.name} in: fmfl-secure ledger admit"
            )
    members = Members(
        coordinator=roles[COORDINATOR].public,
        aggregator=roles[AGGREGATOR].public,
        decryptor=roles[DECRYPTOR].public,
        sites=sites,
        custodians={
            name: _custodian(workspace.custodian(name), name, config, created)
            for name in config.aggregation.custodians
        },
    )
    workspace.members_file.write_bytes(members.encode())
    for name in sites:
        (workspace.site(name) / "members.json").write_bytes(members.encode())
    for name in members.custodians:
        (workspace.custodian(name) / "members.json").write_bytes(members.encode())
    return created + (grant_simulated(workspace, sites) if simulated else [])


def _identity(folder: Path, name: str, created: list[str]) -> Identity:
    path = folder / "identity.pem"
    if path.exists():
        return Identity.load(path, name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    identity = Identity.generate(name)
    identity.save(path)
    created.append(f"identity key of {name} ({identity.public.fingerprint[:24]}...)")
    return identity


def _require_files_apart(workspace: Workspace, config: FederationConfig, data: str) -> None:
    """Everybody in a file of several sites would be trained on by each, and charged by each."""
    new = [e.name for e in config.sites if not (workspace.site(e.name) / "site.toml").exists()]
    if "{site}" not in data and len(new) > 1:
        raise ConfigError(
            f"{data} would be the training file of {len(new)} sites",
            hint="Write {site} where the sites' names differ, such as --data 'data/{site}.csv'; "
            "fmfl-secure partition shares one table out.",
        )


def _site_file(
    folder: Path,
    name: str,
    config: FederationConfig,
    data: str,
    created: list[str],
    *,
    public: bool,
) -> None:
    path = folder / "site.toml"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = Path(data.replace("{site}", name))
        # From the site's folder, which is two below the federation's.
        file = file if file.is_absolute() else Path("../..") / file
        text = site_toml(name, config.federation.min_sites, str(file), public=public)
        path.write_text(text, encoding="utf-8")
        created.append(str(path))


def _custodian(
    folder: Path, name: str, config: FederationConfig, created: list[str]
) -> PublicIdentity:
    identity = _identity(folder, name, created)
    path = folder / "custodian.toml"
    if not path.exists():
        path.write_text(custodian_toml(name, config.federation.min_sites), encoding="utf-8")
        created.append(str(path))
    return identity.public


def _storage_key(folder: Path) -> None:
    path = folder / "storage.key"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            os.fsync(file.fileno())


def grant_where_none(workspace: Workspace, config: FederationConfig) -> list[str]:
    """Make first grants before all sites run on one machine, whoever has none.

    All of their keys are in one folder: whoever runs them could grant for any of them.

    Returns:
        What was granted in whose place, or why not. Nothing is said of a site whose folder or
        ledger cannot be used: the run says it, of that site alone.

    Raises:
        PlanError: It cannot be granted to so many.
    """
    notes: list[str] = []
    for site in config.sites:
        with contextlib.suppress(ConfigError, LedgerError, AggregationError, OSError):
            notes += grant_simulated(workspace, [site.name])
    return notes


def grant_simulated(workspace: Workspace, sites: Iterable[str]) -> list[str]:
    """Make the first grants of simulated sites, where their ledgers are their own and have none.

    Returns:
        What was granted in whose place, or why not, for people to read.

    Raises:
        PlanError: It cannot be granted to so many.
    """
    config, notes = load_federation(workspace.federation_file), []
    template = is_template(workspace.federation_file)
    for name in sites:
        folder = workspace.site(name)
        identity = Identity.load(folder / "identity.pem", name)
        budget = load_site(folder / "site.toml").budget
        ledger = Ledger(budget.ledger_from(folder), signer=identity)
        state = ledger.budget()
        if state.grants or state.public_key != identity.public.key:
            continue
        if template:
            notes.append(f"no grant for {name}: federation.toml is as init wrote it")
            continue
        given = offer(config, name, budget, Proposal.of(folder))
        given.grant(ledger, purpose=SIMULATED)
        notes.append(
            f"a first grant in the place of {name}, epsilon {given.epsilon:g} at delta "
            f"{given.delta:g}: A SIMULATION, since a site grants for itself"
        )
    return notes
