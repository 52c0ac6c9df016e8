"""A run in a process of its own, under a limit of the operating system."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest
from faults import Faults
from support import Quiet

import fmfl_secure.report.results
import privacy.training
from fmfl_secure.cli.exit_codes import exit_code
from fmfl_secure.transports.local.engine import LocalEngine


def run_limited(folder: Path, limit: str, amount: int) -> None:
    """Run a federation; ends with the exit code that its command would have.

    Args:
        folder: With `federation.toml`.
        limit: `NOFILE`, so many descriptors beyond those that are open, or `FSIZE`, bytes a file.
        amount: How much.
    """
    import torch

    torch.set_num_threads(1)
    fmfl_secure.report.results.write_report = lambda *_: None  # type: ignore[assignment]
    privacy.training.check_admission = lambda *_, **__: None  # type: ignore[assignment]
    Faults().install(pytest.MonkeyPatch())  # nothing of it fails: its clock spares the waiting
    engine = LocalEngine(folder / "federation.toml", folder / "run", resume=False, observer=Quiet())
    open_now = max(int(name) for name in os.listdir("/proc/self/fd")) + 1  # noqa: PTH208
    number = getattr(resource, f"RLIMIT_{limit}")
    soft = open_now + amount if limit == "NOFILE" else amount
    resource.setrlimit(number, (soft, resource.getrlimit(number)[1]))
    try:
        engine.run()
    except Exception as error:  # noqa: BLE001 - its kind is what is asked for
        (folder / "said").write_text(f"{type(error).__name__}: {error}")
        sys.exit(exit_code(error))
