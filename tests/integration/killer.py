"""Runs a federation in a child process and kills it, with SIGKILL, at a named point.

A point is `before:CALL:N` or `after:CALL:N`: before or after the Nth call of one of the calls
below returns. Nothing in the product knows of this.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

from support import Quiet

import aggregation
from fmfl_secure.coordinator import Coordinator
from fmfl_secure.engines.local import LocalEngine
from fmfl_secure.run_store import RunStore
from fmfl_secure.service.intake import Intake
from fmfl_secure.service.store import SqliteStore
from fmfl_secure.site import Site
from fmfl_secure.updates import UpdateStore
from privacy import Ledger
from privacy.training import PrivateTrainer

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
    # Of the service only.
    "join": (Intake, "join"),
    "accept": (SqliteStore, "accept"),
    "exchange": (aggregation.SiteAttempt, "exchange"),
    "confirm": (aggregation.Decryptor, "confirm"),
    "verify": (aggregation.SiteAttempt, "verify"),
    "released": (Site, "released"),
    "end": (Coordinator, "end"),
}


def arm(point: str) -> None:
    """Replace one call by one that kills this process at its Nth time."""
    when, name, number = point.split(":")
    owner, attribute = CALLS[name]
    original = getattr(owner, attribute)
    seen = 0

    def armed(*args, **kwargs):
        nonlocal seen
        seen += 1
        if seen == int(number) and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if seen == int(number) and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, attribute, armed)


def _child(federation: Path, output: Path, point: str) -> None:
    import torch

    torch.set_num_threads(1)
    arm(point)
    LocalEngine(federation, output, resume=False, observer=Quiet()).run()


def run_and_kill(federation: Path, output: Path, point: str) -> int:
    """Start a run in a process of its own; returns its exit code, -9 where the point was met."""
    # A fork server imports torch once; forking the test process itself would copy its threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killer"])
    process = context.Process(target=_child, args=(federation, output, point))
    process.start()
    process.join(timeout=300)
    if process.exitcode is None:
        process.kill()
    return -1 if process.exitcode is None else process.exitcode
