"""How commands end: one table, which the documents print.

`python -m fmfl_secure.cli.exit_codes` writes the page.
"""

from __future__ import annotations

import enum
from typing import ClassVar, Final

import typer

from fmfl_secure.errors import FmflError, Nature, RunStopped, is_known, is_of_a_name, is_passing

# What a parser raises of a command line that is wrong. Typer gives its base no public name.
_USAGE: Final = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class ExitCode(enum.IntEnum):
    """Exit codes of a process."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    DAMAGED = 3
    STOPPED = 4
    BUG = 70
    INTERRUPTED = 75
    SIGNAL = 130


MEANINGS: Final = {
    ExitCode.DONE: (
        "it did what it was asked to; a site, decryptor or custodian ended because it was told to",
        "nothing",
    ),
    ExitCode.REFUSED: (
        (
            "it was refused, or what was checked does not hold (`report verify`, "
            "`report rehearsals`, `doctor`, `demo`)"
        ),
        "read the line: it says what was expected and what to do. The same again ends the same",
    ),
    ExitCode.USAGE: (
        (
            "the command line is wrong; of `audit`, the bound refutes what the run claims; of "
            "`attack`, the adapter tells who it was trained on"
        ),
        "`--help`; of `audit`, do not use the run; of `attack`, do not hand the adapter on",
    ),
    ExitCode.DAMAGED: (
        "something kept is not what was written: a ledger, a journal, a run's state",
        "put the latest back. Start nothing anew over it",
    ),
    ExitCode.STOPPED: (
        "the run has ended before its last round (`serve`, `run`)",
        "its report says why; what was spent is spent",
    ),
    ExitCode.BUG: ("a fault of this program; the traceback is above", "report it"),
    ExitCode.INTERRUPTED: (
        "its surroundings failed it for ten minutes; or `serve` was told to stop before the end",
        "mend it and start it again: it goes on and charges nothing twice (`run`: `--resume`)",
    ),
    ExitCode.SIGNAL: (
        "a command that is no service was ended by Ctrl-C or SIGTERM",
        "start it again (`run`: with `--resume`)",
    ),
}


class Declined(FmflError):
    """A question was answered with no, or nobody was there to answer it."""

    nature: ClassVar[Nature] = "decided"
    code = "declined"


def exit_code(error: BaseException) -> ExitCode:
    """How a command ends that an error ended."""
    for kind, code in _BY_KIND:
        if isinstance(error, kind):
            return code
    if is_passing(error):
        return ExitCode.INTERRUPTED
    # A path that somebody named, or its rights.
    if is_of_a_name(error) or (isinstance(error, OSError) and error.filename is not None):
        return ExitCode.REFUSED
    if not is_known(error):
        return ExitCode.BUG
    return ExitCode.DAMAGED if getattr(error, "nature", "") == "damage" else ExitCode.REFUSED


_BY_KIND: Final[tuple[tuple[type[BaseException], ExitCode], ...]] = (
    (KeyboardInterrupt, ExitCode.SIGNAL),
    (_USAGE, ExitCode.USAGE),
    (RunStopped, ExitCode.STOPPED),
)


def exit_codes_document() -> str:
    """Writes the page on exit codes, as Markdown."""
    rows = [f"| {int(code)} | {what} | {then} |" for code, (what, then) in MEANINGS.items()]
    return "\n".join(
        [
            "# Exit codes",
            "",
            "The same for all commands. Whatever was refused or interrupted is said in one line on",
            "standard error, with what to do below it; a traceback is a bug (or `--debug`).",
            "",
            "| code | what happened | what to do |",
            "| --- | --- | --- |",
            *rows,
            "",
            "A process that a signal killed has none of these: shells show 128 and the signal's",
            "number. The units in [deploy/](../deploy/) start a service again after 75; none after",
            "2 or 3, nor a server after 1 or 4: the same would follow.",
            "",
        ]
    )


if __name__ == "__main__":
    print(exit_codes_document(), end="")  # noqa: T201
