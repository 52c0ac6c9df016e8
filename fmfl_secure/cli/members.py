"""The commands about certificates and members of a federation across machines.

`cli` registers its commands. A site that leaves is removed by `remove` at the server, and each
site takes over the newer list by `approve`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fmfl_secure.cli._command import Group, command
from fmfl_secure.cli._console import console, say
from fmfl_secure.cli.acting import AUTHORITY, READS, Act
from fmfl_secure.cli.answers.base import Written
from fmfl_secure.cli.answers.parties import (
    CertificateShown,
    CertificatesShown,
    MemberRemoved,
    MembersApproved,
    MembersShown,
)

app = typer.Typer()
certificates = typer.Typer(
    cls=Group,
    help="Certificates of a provisioned federation.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
members = typer.Typer(
    cls=Group,
    help="Who belongs to a provisioned federation.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(certificates, name="certificates")
app.add_typer(members, name="members")

KitFolder = Annotated[Path, typer.Argument(metavar="KIT", help="A party's kit.")]
Kits = Annotated[Path, typer.Argument(metavar="DIR", help="The folder that provision filled.")]
Party = Annotated[str, typer.Argument(help="Name of the party; the server's is server.")]


def needs_server_extra() -> None:
    """Check that what serving and joining need is installed.

    Raises:
        ServiceError: Something is not.
    """
    from fmfl_secure.errors import ServiceError
    from fmfl_secure.extras import how_to_install

    try:
        import fastapi  # noqa: F401
        import httpx  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ServiceError(
            f"{error.name} is not installed", hint=how_to_install("server")
        ) from error


@command(certificates, "list", answers=CertificatesShown, acts=READS)
def list_certificates(folder: Kits) -> CertificatesShown:
    """Show every certificate that the authority issued, when it ends, and which is due.

    Example: fmfl-secure certificates list pilot/kits
    """
    from fmfl_secure.provisioning.authority import issued

    table = Table("party", "role", "serial", "ends", "state")
    found = issued(folder)
    for certified in found:
        table.add_row(
            certified.name, certified.role, certified.serial, certified.expires or "not noted",
            certified.state,
        )  # fmt: skip
    console.print(table)
    return CertificatesShown(
        certificates=tuple(
            CertificateShown(
                party=each.name,
                role=each.role,
                serial=each.serial,
                expires=each.expires,
                state=each.state,
            )
            for each in found
        )
    )


@command(certificates, answers=Written, acts=AUTHORITY)
def renew(folder: Kits, name: Party) -> Written:
    """Issue a new certificate and key to a party of a simulation; taken up without a restart.

    A party that drew its own keys asks for it: fmfl-secure request FOLDER --renew.

    Example: fmfl-secure certificates renew pilot/kits site-1
    """
    from fmfl_secure.provisioning.authority import renew as issue

    made = issue(folder, name)
    say(f"{made}: put it in place of the party's tls folder")
    return Written(files=(str(made),))


@command(certificates, answers=Written, acts=AUTHORITY)
def revoke(
    folder: Kits,
    name: Party,
    keep_last: Annotated[
        bool, typer.Option("--keep-last", help="All but the newest, as after a renewal.")
    ] = False,
) -> Written:
    """Revoke a party's certificates; a running server shuts them out from the next request on.

    Example: fmfl-secure certificates revoke pilot/kits site-1
    """
    from fmfl_secure.provisioning.authority import revoke as make

    made = make(folder, name, keep_last=keep_last)
    say(f"{made}: the server's revoked.pem")
    return Written(files=(str(made),))


@command(members, answers=MembersShown, acts=READS)
def show(kit: KitFolder) -> MembersShown:
    """Show whom a party trusts, by fingerprints to compare.

    Example: fmfl-secure members show pilot/kits/site-1
    """
    from fmfl_secure.parties.membership import MembershipFolder

    held = MembershipFolder(kit)
    trusted = held.members()
    lists = len(held.lists())
    say(f"membership list {lists}")
    parties = (trusted.coordinator, *trusted.pinned.values())
    for party in parties:
        say(f"{party.name:<16} {party.fingerprint}")
    return MembersShown(
        list=lists,
        coordinator=trusted.coordinator.name,
        fingerprints={party.name: party.fingerprint for party in parties},
    )


@command(
    members,
    answers=MemberRemoved,
    acts=Act("members remove", "kit", keeps=("name",), tells=("list",)),
)
def remove(kit: KitFolder, name: Party) -> MemberRemoved:
    """Sign a list of members without a site, at the server; it holds from now on.

    Example: fmfl-secure members remove pilot/kits/server site-3
    """
    from fmfl_secure.provisioning.kit import Kit
    from fmfl_secure.provisioning.provision import remove_site

    number = remove_site(Kit(kit), name)
    say(f"membership list {number} is without {name}")
    return MemberRemoved(list=number, removed=name)


@command(members, answers=MembersApproved, acts=Act("members approve", "kit", tells=("lists",)))
def approve(kit: KitFolder) -> MembersApproved:
    """Take over the server's newer lists of members at a site, after showing what they change.

    Example: fmfl-secure members approve pilot/kits/site-1
    """
    needs_server_extra()
    from fmfl_secure.provisioning.kit import Kit
    from fmfl_secure.transports.https.membership import newer_lists

    held = Kit(kit).membership
    pending = newer_lists(Kit(kit))
    if held.last() is None and pending:
        pending = pending[held.adopt(pending) :]
    if not pending:
        say("there is no newer list")
    approved = []
    for message in pending:
        change = held.change(message)
        for party in change.added:
            say(f"list {change.number} adds {party.name} {party.fingerprint}")
        for name in change.removed:
            say(f"list {change.number} removes {name}")
        typer.confirm("trust these members?", abort=True, err=True)
        held.approve(message)
        approved.append(change.number)
    return MembersApproved(lists=tuple(approved))
