"""Runs a federation in a child process and kills it, with SIGKILL, at a named point.

A point is `before:CALL:N` or `after:CALL:N`: before or after the Nth call of one of the calls
below returns. Nothing in the product knows of this.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path

import forked
from support import Quiet

import aggregation
import fmfl_secure.report.results
import privacy.training
from fmfl_secure.errors import KNOWN_ERRORS
from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.parties.site import Site
from fmfl_secure.runtime.inbox import Inbox
from fmfl_secure.storage.message_store import MessageStore
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.storage.update_store import UpdateStore
from fmfl_secure.transports.https.client import HttpsTransport
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger
from privacy.mechanism.training import PrivateTrainer

REFUSED = 3  # exit code of a run that ended by an error of ours

CALLS = {
    "reserve": (Ledger, "reserve"),
    "commit": (Ledger, "commit"),
    "train": (PrivateTrainer, "train_round"),
    "store": (UpdateStore, "put"),
    "ready": (aggregation.SiteAttempt, "ready"),
    "announce": (aggregation.Decryptor, "announce"),
    "cohort": (RunStore, "fix_cohort"),
    "upload": (aggregation.SiteAttempt, "upload"),
    "list": (RunStore, "list_openings"),
    "open": (aggregation.SiteAttempt, "open"),
    "release": (aggregation.Decryptor, "release"),
    "apply": (Coordinator, "apply"),
    "finish": (RunStore, "finish_round"),
    "refund": (Ledger, "refund"),
    "keys": (Custodian, "ready"),
    "approve": (Custodian, "approve"),
    # Of the service only.
    "join": (Inbox, "join"),
    "head": (HttpsTransport, "give_head"),
    "accept": (MessageStore, "put"),  # a message in one part, as all are here
    "exchange": (aggregation.SiteAttempt, "exchange"),
    "confirm": (aggregation.Decryptor, "confirm"),
    "verify": (aggregation.SiteAttempt, "verify"),
    "released": (Site, "released"),
    "verdict": (aggregation.SiteAttempt, "verdict"),
    "end": (Coordinator, "end"),
}


def arm(point: str) -> None:
    """Replace one call by one that kills this process at its Nth time."""
    when, name, number = point.split(":")
    owner, attribute = CALLS[name]
    original = getattr(owner, attribute)
    calls = itertools.count(1)

    def armed(*args, **kwargs):
        this = next(calls)  # its own number, whichever calls other threads make meanwhile
        if this == int(number) and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if this == int(number) and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, attribute, armed)


def _child(federation: Path, output: Path, point: str | None, watched: Path | None) -> None:
    import torch

    torch.set_num_threads(1)
    if point is not None:
        arm(point)
    # Plots and admission gate take most of a tiny run's time and have tests of their own.
    fmfl_secure.report.results.write_report = lambda *_: None
    privacy.training.check_admission = lambda *_, **__: None
    if watched is not None:
        _note_opened(watched, output.with_suffix(".opened"))
    try:
        LocalEngine(federation, output, resume=False, observer=Quiet()).run()
    except KNOWN_ERRORS:
        sys.exit(REFUSED)


def _note_opened(folder: Path, notes: Path) -> None:
    """Write down every file of a folder that this process opens or lists."""
    real = os.path.realpath(folder)
    descriptor = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, arguments: tuple) -> None:
        if event in {"open", "os.listdir", "os.scandir"} and isinstance(arguments[0], str | Path):
            place = os.path.realpath(arguments[0])
            if place.startswith(real):
                os.write(descriptor, f"{event} {place}\n".encode())

    sys.addaudithook(hook)


def run_apart(federation: Path, output: Path, *, watched: Path) -> tuple[int, str]:
    """A run in a process of its own: its exit code, and which files of a folder it opened."""
    code = _start(federation, output, None, watched)
    return code, output.with_suffix(".opened").read_text()


def run_and_kill(federation: Path, output: Path, point: str) -> int:
    """Start a run in a process of its own; returns its exit code, -9 where the point was met."""
    return _start(federation, output, point, None)


def _start(federation: Path, output: Path, point: str | None, watched: Path | None) -> int:
    process = forked.start(_child, federation, output, point, watched)
    process.join(timeout=300)
    if process.exitcode is None:
        process.kill()
    return -1 if process.exitcode is None else process.exitcode
