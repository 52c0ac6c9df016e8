"""From a federation's settings to one kit a party, and to one site fewer: for simulations.

Whoever runs this has every party's keys. Between parties that do not trust each other each draws
its own (`own_keys.py`), and `certify.py` answers.

    DIR/authority/      ca.pem, ca.key, issued.json: whoever provisions keeps it, offline
    DIR/server/         a kit each; see kit.py
    DIR/decryptor/
    DIR/CUSTODIAN/      if the settings name any
    DIR/SITE/

What exists is left alone, so that a site that was added to the settings gets its kit by running it
again.

`fmfl-secure provision` (`cli.service`) calls `provision`, and `seal_kits` where kits are to
travel. A kit is made aside and then put in its place; `cli.members` calls `remove_site`.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aggregation import Identity
from fmfl_secure.errors import ConfigError, ServiceError
from fmfl_secure.parties.membership import MembershipFolder, next_list
from fmfl_secure.parties.workspace import (
    AGGREGATOR,
    COORDINATOR,
    Members,
    Workspace,
    grant_simulated,
    initialise,
)
from fmfl_secure.provisioning.authority import Authority, answers_requests, write_tls
from fmfl_secure.provisioning.certificates import CUSTODIAN, DECRYPTOR, SERVER, SITE
from fmfl_secure.provisioning.kit import Kit, seal_kit, write_private
from fmfl_secure.provisioning.service_toml import client_toml, operations_port, server_toml
from fmfl_secure.provisioning.simulated import MARK, WARNING
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.settings.service import require_url
from fmfl_secure.settings.templates import site_toml
from fmfl_secure.storage.files import write_files

DEFAULT_URL: Final = "https://localhost:8443"
DEFAULT_DATA: Final = "data/train.csv"


def provision(
    federation: Path,
    output: Path,
    *,
    url: str = DEFAULT_URL,
    epsilon: float | None = None,
    delta: float | None = None,
    delta_reason: str = "",
    data: str = DEFAULT_DATA,
) -> list[str]:
    """Make the kits that are missing.

    Args:
        federation: Path of `federation.toml`.
        output: Folder for the authority and the kits.
        url: Where sites and decryptor reach the server.
        epsilon: First grant of each new site's ledger, made in its place; None takes the
            settings' epsilon. While these are as `init` wrote them, nothing is granted.
        delta: The same for delta.
        delta_reason: Why delta may be above 1 / (10 x a site's population); the ledgers keep it.
        data: Path of a site's training file from its kit; `{site}` stands for its name.

    Returns:
        What was made, for people to read.

    Raises:
        ConfigError: The settings are wrong.
        ServiceError: A new site cannot be added here.
        PrivacyError: A grant of this epsilon and delta is not possible; nothing was made.
    """
    config = load_federation(federation)
    require_url(url)
    if answers_requests(output):
        raise ServiceError(
            f"parties of {output} draw their own keys",
            hint="Give their requests: --requests DIR. No key is drawn for one of them here.",
        )
    created: list[str] = []
    custodians = config.aggregation.custodians
    taken = {*custodians, *(e.name for e in config.sites)} & {"authority", SERVER}
    if taken:
        raise ConfigError(f"no party can be named {min(taken)}: a folder of {output} is")
    output.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = Authority.open(output / "authority", config.federation.name, created)
    certified = {c.name for c in authority.issued()}
    missing = [e.name for e in config.sites if e.name not in certified]
    late = [name for name in custodians if SERVER in certified and name not in certified]
    if late:
        raise ServiceError(
            f"{late[0]} cannot become a custodian of a federation that is provisioned",
            hint="Every party pins the custodians from the start: provision a new federation.",
        )
    if SERVER in certified and not missing:
        return created
    if SERVER in certified and not (output / SERVER).exists():
        raise ServiceError(
            f"the server's kit is not in {output} any more",
            hint="Bring it back for as long as provisioning takes: it signs the list of members.",
        )
    # Built aside, so that a crash leaves whole kits or none.
    building = output / ".building"
    shutil.rmtree(building, ignore_errors=True)
    workspace = Workspace(building / "workspace")
    workspace.folder.mkdir(parents=True, mode=0o700)
    building.chmod(0o700)
    shutil.copy(federation, workspace.federation_file)
    for name in missing:
        text = site_toml(name, config.federation.min_sites, data.replace("{site}", name))
        write_private(workspace.site(name) / "site.toml", text.encode())
    initialise(workspace.folder, epsilon=epsilon, delta=delta, delta_reason=delta_reason)
    granted = grant_simulated(workspace, missing)
    parties = [(SITE, name) for name in missing]
    if SERVER not in certified:
        parties += [(DECRYPTOR, DECRYPTOR), *((CUSTODIAN, name) for name in custodians)]
        parties.append((SERVER, SERVER))
    for role, name in parties:
        _fill_kit(building / name, role, name, workspace, config, url=url)
    # Decryptor and custodians hold the lists too, and count the sites of the last they approved.
    _sign_members(building, output, missing, [name for role, name in parties if role != SERVER])
    hosts = tuple(dict.fromkeys([urlsplit(url).hostname or "localhost", "localhost", "127.0.0.1"]))
    for role, name in parties:
        given = hosts if role == SERVER else ()
        write_tls(building / name / "tls", authority, authority.certify(role, name, hosts=given))
        (building / name).rename(output / name)
        created.append(f"{role} kit {output / name}")
    shutil.rmtree(building)
    created += granted
    if SERVER in certified:
        shutil.copy(federation, output / SERVER / "federation.toml")
        created.append("a new list of members: bring federation.toml to every older kit as well")
    return created


def _fill_kit(
    kit: Path, role: str, name: str, workspace: Workspace, config: FederationConfig, *, url: str
) -> None:
    if role == SITE:
        shutil.copytree(workspace.site(name), kit)
    elif role == DECRYPTOR:
        shutil.copytree(workspace.role(DECRYPTOR), kit)
    elif role == CUSTODIAN:
        shutil.copytree(workspace.custodian(name), kit)
    else:
        kit.mkdir(mode=0o700)
        for each in (COORDINATOR, AGGREGATOR):
            shutil.copytree(workspace.role(each), kit / each)
    shutil.copy(workspace.federation_file, kit / "federation.toml")
    shutil.copy(workspace.members_file, kit / "members.json")
    if role == SERVER:
        text = server_toml(urlsplit(url).port or 443)
    else:
        text = client_toml(url, operations_port(config, name))
    write_private(kit / "service.toml", text.encode())
    write_private(kit / MARK, f"{WARNING}\n".encode())
    write_private(kit / "operations.token", secrets.token_urlsafe(32).encode() + b"\n")
    kit.chmod(0o700)


def _sign_members(building: Path, output: Path, missing: list[str], new_kits: list[str]) -> None:
    """The next signed list of members, for the server and for every new party."""
    made = Members.load(Workspace(building / "workspace").members_file)
    new = {name: made.sites[name] for name in missing}
    server = building / SERVER if (building / SERVER).exists() else output / SERVER
    held = MembershipFolder(server)
    last = held.last()
    members = made if last is None else replace(held.members(), sites=held.members().sites | new)
    identity = Identity.load(server / COORDINATOR / "identity.pem", COORDINATOR)
    federation = load_federation(Kit(server).federation_file).federation.name
    following = next_list(identity, last, federation=federation, members=members)
    if last is None:
        held.begin(following)
    else:
        held.approve(following)
    lists = {f"{number:05}.list": message for number, message in enumerate(held.lists(), 1)}
    for name in new_kits:
        write_files(building / name, {"members.json": members.encode()})
        write_files(building / name / "membership", lists)


def seal_kits(output: Path, *, passphrase: Callable[[str], str]) -> list[str]:
    """Seal every kit of a folder into a file beside it, and delete the kit.

    Args:
        output: What `provision` filled.
        passphrase: A kit's, by the party's name.

    Returns:
        The sealed files.

    Raises:
        ServiceError: A passphrase is too short.
    """
    sealed = []
    for folder in sorted(output.iterdir()):
        if folder.name == "authority" or not (folder / "service.toml").exists():
            continue
        path = output / f"{folder.name}.kit"
        write_private(path, seal_kit(folder, passphrase(folder.name)))
        shutil.rmtree(folder)
        sealed.append(str(path))
    return sealed


def remove_site(server: Kit, name: str) -> int:
    """Sign a membership list without a site; a running server goes by it at once.

    Returns:
        Number of the list.

    Raises:
        ConfigError: There is no such site.
    """
    held = server.membership
    members = held.members()
    if name not in members.sites:
        raise ConfigError(f"{name} is not among the members")
    identity = Identity.load(server.folder / COORDINATOR / "identity.pem", COORDINATOR)
    config = load_federation(server.federation_file)
    sites = {n: site for n, site in members.sites.items() if n != name}
    following = next_list(
        identity,
        held.last(),
        federation=config.federation.name,
        members=replace(members, sites=sites),
    )
    held.approve(following)
    return len(held.lists())
