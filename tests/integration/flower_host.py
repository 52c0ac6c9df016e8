"""A party's host with repeatable randomness, that writes down the sums its sites verify.

With `kill STEP PIDFILE` it kills the SuperNode in that file when it is ordered that step, once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np


def start_seeded(sums: Path, *, kill: tuple[str, Path] | None = None):
    """What `transports.flower.host_socket.start` does, for such a host."""

    def start(folder: Path, path: Path, *options: str) -> subprocess.Popen[bytes]:
        arguments = [str(sums), *(map(str, kill) if kill else ("", "")), str(folder), str(path)]
        with (sums.parent / f"host-{folder.name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, __file__, *arguments, *options], stdout=log, stderr=log
            )

    return start


def _record(sums: Path) -> None:
    from processes import seeded

    from fmfl_secure.parties.site import Site

    seeded(sums)
    released = Site.released

    def recorded(self, plan, adapter, total, cohort):
        sums.mkdir(exist_ok=True)
        np.save(sums / f"{self.name}-{plan.round}.npy", total)
        return released(self, plan, adapter, total, cohort)

    Site.released = recorded


def _kill_at(step: str, pid: Path) -> None:
    from fmfl_secure.runtime.agents.site import SiteAgent

    do = SiteAgent.do

    def deadly(self, work):
        if work.step == step and pid.exists():
            number = int(pid.read_text())
            pid.unlink()
            os.kill(number, signal.SIGKILL)
        do(self, work)

    SiteAgent.do = deadly


if __name__ == "__main__":
    import typer

    from fmfl_secure.transports.flower import host

    place, at, target = sys.argv[1:4]
    _record(Path(place))
    if at:
        _kill_at(at, Path(target))
    sys.argv[1:4] = []
    typer.run(host.main)
