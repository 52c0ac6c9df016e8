"""The commands by which parties draw their own keys: request, accept, ceremony.

`cli` registers them. A party requests, whoever provisions answers (`provision --requests`), the
party accepts; then all compare by voice, sign, and collect what the others signed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fmfl_secure.cli._command import Group, command
from fmfl_secure.cli._console import say
from fmfl_secure.cli.acting import READS, Act
from fmfl_secure.cli.answers.parties import (
    AnswerAccepted,
    CeremonyCollected,
    CeremonyShown,
    CeremonySigned,
    ComparedShown,
    KeysRequested,
)
from fmfl_secure.cli.members import KitFolder
from fmfl_secure.outside import MOST_DOCUMENT, read_regular

app = typer.Typer()
ceremony = typer.Typer(
    cls=Group,
    help="Compare fingerprints with the other parties, by voice.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(ceremony, name="ceremony")


@command(app, answers=KeysRequested, acts=Act("request", "folder", keeps=("role", "name", "url")))
def request(
    folder: Annotated[Path, typer.Argument(help="The party's folder; its kit to be.")],
    federation: Annotated[
        Path | None, typer.Option(help="Path of federation.toml; for new keys.")
    ] = None,
    role: Annotated[
        Literal["server", "site", "decryptor", "custodian"], typer.Option(help="The party's.")
    ] = "site",
    name: Annotated[str, typer.Option(help="A site's or a custodian's, as in the settings.")] = "",
    url: Annotated[str, typer.Option(help="Where a server is reached, https://HOST:PORT.")] = "",
    data: Annotated[
        str, typer.Option(help="A site's training file, from its folder.")
    ] = "data/train.csv",
    renew: Annotated[
        bool, typer.Option("--renew", help="A new key for TLS, for a folder that has one.")
    ] = False,
    new_identity: Annotated[
        bool, typer.Option("--new-identity", help="With --renew: a site's new identity too.")
    ] = False,
) -> KeysRequested:
    """Draw this party's keys here, and sign a request for what goes beside them.

    Nothing in the request is secret; the keys never leave the folder.
    Example: fmfl-secure request site-1 --federation federation.toml --name site-1
    """
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.provisioning.fingerprints import groups
    from fmfl_secure.provisioning.own_keys import renew_keys, request_keys

    if renew:
        asked = renew_keys(folder, new_identity=new_identity)
    elif federation is None or new_identity:
        raise ConfigError("new keys need --federation; --new-identity needs --renew")
    else:
        asked = request_keys(folder, federation, role=role, name=name, url=url, data=data)
    for party, identity in asked.read.request.public.items():
        say(f"{party}: {groups(identity.fingerprint)}")
    say(f"send {asked.path} to whoever provisions; nothing else in {folder} leaves this machine")
    return KeysRequested(
        request=str(asked.path),
        fingerprints={
            party: identity.fingerprint for party, identity in asked.read.request.public.items()
        },
    )


@command(app, answers=AnswerAccepted, acts=Act("accept", "folder", keeps=("answer",)))
def accept(
    folder: Annotated[Path, typer.Argument(help="The party's folder.")],
    answer: Annotated[Path, typer.Argument(help="The answer to its request.")],
) -> AnswerAccepted:
    """Put the answer to a request beside this party's keys, once it matches them.

    Example: fmfl-secure accept site-1 site-1.answer
    """
    from fmfl_secure.provisioning.fingerprints import groups
    from fmfl_secure.provisioning.put_answer import check_answer, put_answer

    checked = check_answer(
        folder, read_regular(answer, most_bytes=MOST_DOCUMENT), source=str(answer)
    )
    if checked.new_settings:
        say("the settings are others than those that this party has: read them before a run")
        typer.confirm("take these settings?", abort=True, err=True)
    for name in checked.added:
        say(f"a member with a new key: {name}")
        say(f"  {groups(checked.members.sites[name].fingerprint)}")
    if checked.added:
        typer.confirm("trust these members?", abort=True, err=True)
    done = put_answer(checked)
    for line in done:
        say(line)
    say(f"next, with all parties on the telephone: fmfl-secure ceremony show {folder}")
    return AnswerAccepted(
        done=tuple(done),
        added={name: checked.members.sites[name].fingerprint for name in checked.added},
        new_settings=checked.new_settings,
    )


@command(ceremony, answers=CeremonyShown, acts=READS)
def show(kit: KitFolder) -> CeremonyShown:
    """Show whom this party trusts: one fingerprint of all, then each, and who has signed.

    One party reads the first aloud; all others type it into `ceremony sign`.
    Example: fmfl-secure ceremony show site-1
    """
    from fmfl_secure.provisioning.ceremony import standing
    from fmfl_secure.provisioning.fingerprints import groups

    found = standing(kit)
    say(f"federation {found.view.federation}, {len(found.view.parties)} keys and the authority:")
    say(f"  {groups(found.view.fingerprint)}")
    say("each by itself, to find the one that differs:")
    say(f"  {'(authority)':<16} {groups(found.view.authority)}")
    for name, fingerprint in found.view.parties.items():
        say(f"  {name:<16} {groups(fingerprint)}")
    for name, one in found.compared.items():
        drew = "its own keys" if one.drew_own_keys else "KEYS THAT WERE DRAWN FOR IT"
        say(f"{name} signed on {one.at[:10]}, with {drew}; {one.heard_from} read to it")
    if found.missing:
        say(f"not signed yet, as far as this party has it: {', '.join(found.missing)}")
    return CeremonyShown(
        federation=found.view.federation,
        fingerprint=found.view.fingerprint,
        authority=found.view.authority,
        parties=found.view.parties,
        signed=tuple(
            ComparedShown(
                party=name,
                at=one.at,
                drew_own_keys=one.drew_own_keys,
                heard_from=one.heard_from,
            )
            for name, one in found.compared.items()
        ),
        missing=found.missing,
    )


@command(ceremony, answers=CeremonySigned, acts=Act("ceremony sign", "kit", keeps=("heard_from",)))
def sign(
    kit: KitFolder,
    heard_from: Annotated[
        str, typer.Option(help="Which party read the fingerprint aloud; a server is coordinator.")
    ],
    heard: Annotated[
        str, typer.Option(help="What was read; asked for otherwise.", show_default=False)
    ] = "",
) -> CeremonySigned:
    """Type the fingerprint that another party reads aloud; sign that it is this party's too.

    Example: fmfl-secure ceremony sign site-1 --heard-from site-2
    """
    from fmfl_secure.errors import ServiceError
    from fmfl_secure.provisioning.ceremony import sign_comparison

    try:
        typed = heard or typer.prompt("the 16 groups that are read", err=True)
    except typer.Abort:
        raise ServiceError(
            "nothing was typed, and so nothing is signed",
            hint="Type on a terminal what the other party reads aloud, or give it with --heard.",
        ) from None
    path = sign_comparison(kit, heard_from=heard_from, heard=typed)
    say(f"the same: send {path} to the other parties")
    return CeremonySigned(file=str(path))


@command(
    ceremony,
    "collect",
    answers=CeremonyCollected,
    acts=Act("ceremony collect", "kit", keeps=("records",)),
)
def collect_records(
    kit: KitFolder,
    records: Annotated[list[Path], typer.Argument(help="What other parties signed.")],
) -> CeremonyCollected:
    """Verify what other parties signed, and keep it; refused if they saw other keys.

    Example: fmfl-secure ceremony collect site-1 site-2-0a1b2c3d4e5f6789.json
    """
    from fmfl_secure.provisioning.ceremony import collect, standing

    taken = []
    for path in records:
        signed = read_regular(path, most_bytes=MOST_DOCUMENT)
        taken.append(collect(kit, signed, source=str(path)))
        say(f"{taken[-1]} has the same keys")
    missing = standing(kit).missing
    say(f"still missing: {', '.join(missing)}" if missing else "all parties have signed")
    return CeremonyCollected(parties=tuple(taken), missing=missing)
