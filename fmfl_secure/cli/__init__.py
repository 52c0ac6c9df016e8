"""The command line: `fmfl-secure COMMAND --help` describes each command, with an example.

Commands import what they need when they run: help and refusals need no machine-learning library.

`main` is the entry point, here and for `python -m` (`__main__`): it lets Typer run a command,
prints what ended it, and exits with the code of that ending. `cli.document` and `cli.schema` walk
the same commands for `docs/cli.md` and for programs.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from fmfl_secure._version import __version__
from fmfl_secure.cli import (
    acts,
    ask,
    attack,
    audit,
    base_models,
    bench,
    choose,
    compare,
    demo,
    doctor,
    dpia,
    federation,
    flower,
    init,
    journal,
    keys,
    ledger,
    members,
    model,
    plan,
    report,
    run,
    schema,
    service,
    stop,
    techniques,
)
from fmfl_secure.cli import afford as _afford  # noqa: F401
from fmfl_secure.cli import ledger_grants as _grants  # noqa: F401
from fmfl_secure.cli import ledger_signers as _signers  # noqa: F401
from fmfl_secure.cli._command import Group
from fmfl_secure.cli._console import errors, print_document
from fmfl_secure.cli.answers.base import Wrong

_ON_A_TERMINAL = "Somebody who may decide it answers this, on a terminal."
_SIGNAL = 130  # what Typer makes of Ctrl-C, and `exit_codes` has

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(init.app)
app.add_typer(federation.app)
app.add_typer(plan.app)
app.add_typer(run.app)
app.add_typer(ask.app)
app.add_typer(choose.app)
app.add_typer(doctor.app)
app.add_typer(model.app)
app.add_typer(base_models.app, name="model")
app.add_typer(report.app, name="report")
app.add_typer(audit.app)
app.add_typer(attack.app)
app.add_typer(compare.app)
app.add_typer(techniques.app)
app.add_typer(dpia.app)
app.add_typer(schema.app)
app.add_typer(service.app)
app.add_typer(stop.app)
app.add_typer(members.app)
app.add_typer(keys.app)
app.add_typer(flower.app, name="flower")
app.add_typer(ledger.app, name="ledger")  # with those that add themselves to it
app.add_typer(journal.app, name="journal")
app.add_typer(acts.app, name="acts")
app.add_typer(demo.app, name="demo")
app.add_typer(bench.app, name="bench")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"fmfl-secure {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show an error's traceback.")] = False,
) -> None:
    """Private federated fine-tuning: DP-SGD at every site, sums opened only under encryption."""
    # Both are dealt with elsewhere: before any command, and in `main`, wherever they stand.
    del version, debug


def main() -> None:
    """Entry point: prints what went wrong and what to do, with no traceback unless asked."""
    # Whatever the account's umask: nobody else may write what a command leaves behind.
    os.umask(os.umask(0o077) | 0o022)
    # A file's name may be in another encoding than what it is shown in.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    # As Ctrl-C: what a run spent is written before it ends. Services have their own handlers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        from fmfl_secure.cli.exit_codes import Declined

        raise SystemExit(
            _tell(Declined("nobody agreed", hint=_ON_A_TERMINAL), debug=debug)
        ) from None
    except Exception as error:  # noqa: BLE001 - the one place where all of them end
        raise SystemExit(_tell(error, debug=debug)) from None
    except KeyboardInterrupt as error:
        raise SystemExit(_tell(error, debug=debug)) from None
    if code == _SIGNAL:  # Ctrl-C, which Typer makes a code of
        raise SystemExit(_tell(KeyboardInterrupt(), debug=False))
    raise SystemExit(code)


def _tell(error: BaseException, *, debug: bool) -> int:
    """Say what ended a command, and how; a traceback is for bugs."""
    from fmfl_secure.cli.failure import failure_of

    failed = failure_of(error)
    if _wants_json():
        print_document(failed)
        if failed.error.nature != "bug":
            return failed.error.exit_code
    if debug or failed.error.nature == "bug":
        traceback.print_exception(error)
    elif failed.error.code == "usage":
        cast("Any", error).show()  # with the command's usage
    else:
        _say_failed(failed.error)
    return failed.error.exit_code


def _wants_json() -> bool:
    words = sys.argv[1:]
    return "--json" in words[: words.index("--") if "--" in words else None]


def _say_failed(error: Wrong) -> None:
    if error.exit_code == _SIGNAL:
        errors.print(error.message)
        return
    word = "interrupted" if error.nature == "passing" else "error"
    text = escape(error.message)
    errors.print(f"[bold red]{word}:[/bold red] {text}", highlight=False, soft_wrap=True)
    if error.hint:
        text = escape(error.hint)
        errors.print(f"[bold]what to do:[/bold] {text}", highlight=False, soft_wrap=True)
