"""`fmfl-secure acts`: what people did at a party, as it signed it.

`cli` registers its commands, which read and export the log that `cli.acting` writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmfl_secure.cli._command import Group, command
from fmfl_secure.cli._console import say
from fmfl_secure.cli.acting import READS, Act
from fmfl_secure.cli.answers.acts import ActShown, ActsRecovered, ActsShown, ActsVerified
from fmfl_secure.cli.answers.base import Written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fmfl_secure.parties.acts import Note

app = typer.Typer(
    cls=Group,
    help="What people did at a party, signed by it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

PartyFolder = Annotated[
    Path, typer.Argument(help="A party's folder or kit; a federation's, for its coordinator.")
]


@command(app, answers=ActsShown, acts=READS)
def show(folder: PartyFolder) -> ActsShown:
    """Show what people did at a party: when, who, what, and what came of it.

    Example: fmfl-secure acts show pilot/sites/site-1
    """
    from fmfl_secure.parties.acts import ActLog

    log = ActLog(folder)
    notes = log.notes()
    shown = tuple(_acts(notes))
    for each in shown:
        who = f"{each.user}, permit {each.permit}" if each.permit else each.user
        state = f"{each.state}, {each.code}" if each.code else each.state
        at = each.at[:19].replace("T", " ")
        say(f"{each.entry:>5}  {at} UTC  {who}: {each.act or 'settings'}, {state}")
        for name, value in each.facts.items():
            if value is not None:
                say(f"{'':>7}{name}: {value if isinstance(value, str) else json.dumps(value)}")
    say(f"{log.party}: {len(notes)} entries, which verify")
    return ActsShown(party=log.party, entries=len(notes), acts=shown)


def _acts(notes: Sequence[Note]) -> Iterator[ActShown]:
    ends = {note.of: note for note in notes if note.of}
    for note in notes:
        if note.of:
            continue
        end = ends.get(note.place)
        yield ActShown(
            entry=note.place,
            at=note.at,
            user=note.user,
            permit=note.permit,
            act=note.act,
            state=note.what if end is None else end.what,
            ended="" if end is None else end.at,
            code="" if end is None else end.code,
            facts=note.facts if end is None else {**note.facts, **end.facts},
        )


@command(app, answers=ActsVerified, acts=READS)
def verify(
    folder: Annotated[
        Path,
        typer.Argument(metavar="PLACE", help="A party's folder or kit, or an export of its log."),
    ],
    head: Annotated[
        list[str] | None, typer.Option(help="A head that somebody kept of it; may be repeated.")
    ] = None,
    export: Annotated[
        list[Path] | None,
        typer.Option(help="An earlier export of it, which it must go on from; may be repeated."),
    ] = None,
    signer: Annotated[
        str, typer.Option(help="Fingerprint of the party's key, from elsewhere.")
    ] = "",
) -> ActsVerified:
    """Verify a party's log of acts, or an export of it; exit code 0 only if all holds.

    Example: fmfl-secure acts verify pilot/sites/site-1 --export /media/officer/site-1-acts.json
    """
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.outside import MOST_DOCUMENT, read_regular
    from fmfl_secure.parties.acts import ActLog, ActsDamaged, heads_in, read_export
    from fmfl_secure.parties.own_identity import own_identity

    lines = list(head or ())
    for path in export or ():
        lines += heads_in(read_regular(path, most_bytes=MOST_DOCUMENT), source=str(path))
    if folder.is_dir():
        public = own_identity(folder).public
        log = ActLog(folder)
        notes = log.notes()
        held = log.hold_to(lines)
    else:
        if lines:
            raise ConfigError("--head and --export are held against a party's own log")
        text = read_regular(folder, most_bytes=MOST_DOCUMENT)
        notes, public = read_export(text, source=str(folder))
        held = 0
    if lines and held < len(lines):
        raise ConfigError("a head, or an export, is of another party's log")
    if signer and signer != public.fingerprint:
        raise ActsDamaged(
            f"the log is signed by {public.fingerprint}, expected {signer}",
            hint="Compare the fingerprint with the party itself.",
        )
    say(f"{public.name}: {len(notes)} entries verify, signed by {public.fingerprint}")
    if not signer:
        say("whose key that is was NOT CHECKED: compare it, or give it as --signer")
    if held:
        say(f"it holds {held} heads that were kept of it")
    return ActsVerified(
        party=public.name, signed_by=public.fingerprint, entries=len(notes), heads=held
    )


@command(app, answers=Written, acts=Act("acts export", "folder", keeps=("output",)))
def export(
    folder: PartyFolder,
    output: Annotated[Path, typer.Option(help="File to write; keep it outside the backup.")],
) -> Written:
    """Write out a party's log of acts with its signed head, for an officer or auditor to keep.

    Example: fmfl-secure acts export pilot/sites/site-1 --output /media/officer/site-1-acts.json
    """
    from fmfl_secure.parties.acts import ActLog
    from fmfl_secure.storage.files import require_new, write_output

    require_new(output)
    write_output(output, ActLog(folder).export())
    say(f"{output}")
    return Written(files=(str(output),))


@command(app, answers=ActsRecovered, acts="it is the first entry of the log that it begins")
def recover(
    folder: PartyFolder,
    reason: Annotated[str, typer.Option(help="What happened; kept in the new log.")],
) -> ActsRecovered:
    """Begin a log in place of one that is lost, was put back, or does not verify; and say so.

    The old one is set aside. Heads that others kept of it hold the new one no more.
    Example: fmfl-secure acts recover pilot/sites/site-1 --reason "disk failed on 3 May"
    """
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.parties.acts import ActLog

    if not reason.strip():
        raise ConfigError("--reason is empty", hint="Say what happened to the log.")
    log = ActLog(folder)
    aside = log.recover(reason.strip())
    say(f"began {log.path}, in place of one that is lost")
    if aside is not None:
        say(f"the old one is {aside}")
    return ActsRecovered(log=str(log.path), aside="" if aside is None else str(aside))
