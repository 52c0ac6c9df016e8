"""A server's metrics and report, written by a process that ends when they are.

They take plots and the accountants' libraries, a hundred MiB and more that a server would keep for
days for the sake of its last second.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import msgspec

from fmfl_secure.errors import RunError, Unavailable, os_failure
from fmfl_secure.outside import MALFORMED
from fmfl_secure.run.record import RunRecord, decode_record
from fmfl_secure.run.results_request import Outcome, Request
from fmfl_secure.storage.run_store import RunStore

CHILD: Final = "fmfl_secure.report.child"
_WRITE_S: Final = 900.0


def begin_results_apart(store: RunStore, *, database: str | None) -> subprocess.Popen[bytes]:
    """Have the same written by a process that this one does not wait for, since it is to end now.

    Args:
        store: The run's state.
        database: URL of the run's state where it is in a database.

    Returns:
        The process; it is nobody's child once this one has ended.

    Raises:
        Unavailable, RunError: It cannot be started.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, on this package
            [sys.executable, "-m", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if process.stdin is not None:
            with process.stdin as wanted:
                wanted.write(_request(store, database))
    except OSError as error:
        raise os_failure(RunError, "metrics and report cannot be written", error) from error
    return process


def _request(store: RunStore, database: str | None) -> bytes:
    return msgspec.json.encode(Request(str(store.folder.resolve()), database))


def write_results_apart(store: RunStore, *, database: str | None) -> RunRecord:
    """Write a run's metrics and report into its folder, from its state, in a process of its own.

    Args:
        store: The run's state.
        database: URL of the run's state where it is in a database.

    Raises:
        RunError: The state is damaged, or the process failed.
        Unavailable: A file cannot be written now, or a signal ended the process.
    """
    again = f"Make them with: fmfl-secure report show {store.folder}"
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, on this package
            [sys.executable, "-m", CHILD],
            input=_request(store, database),
            capture_output=True,
            timeout=_WRITE_S,
            check=False,
        )
        outcome = msgspec.json.decode(done.stdout, type=Outcome)
    except OSError as error:
        what = "metrics and report cannot be written"
        raise os_failure(RunError, what, error, hint=again) from error
    except subprocess.TimeoutExpired as error:
        raise RunError(f"metrics and report cannot be written: {error}", hint=again) from error
    except MALFORMED:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        # A signal ended it, as the system's does where memory is short: it may do better again.
        kind = Unavailable if done.returncode < 0 else RunError
        raise kind(
            f"metrics and report cannot be written: their process ended with "
            f"{done.returncode}: {last}",
            hint=again,
        ) from None
    if outcome.error:
        raise (Unavailable if outcome.passing else RunError)(
            outcome.error, hint=outcome.hint or again
        )
    return decode_record(outcome.record)
