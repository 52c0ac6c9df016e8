"""`--engine flower`: a server's kit on a SuperLink that is running.

The run is submitted with Flower's own command, and its ServerApp works beside the SuperLink, in the
server's kit. Nothing of Flower is imported here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from fmfl_secure.errors import FlowerError, RunStopped
from fmfl_secure.extras import how_to_install
from fmfl_secure.report.results import write_results
from fmfl_secure.run.record import RunRecord
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.storage.run_store import RunStore, holds_run, require_folder

# Nothing is told to or fetched from anybody outside the federation.
OFFLINE: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_SUBMIT_S: Final = 120.0
_TICK_S: Final = 1.0
_ASK_S: Final = 15.0  # Flower's command is a heavy way to ask
_START_S: Final = 300.0


def run(kit: Path, output: Path, *, resume: bool, connection: str) -> RunRecord:
    """Submit a run and wait for its end.

    Args:
        kit: The server's kit, on the machine of the SuperLink.
        output: The run's folder there.
        resume: Go on with the run that is there.
        connection: Name of the SuperLink in `$FLWR_HOME/config.toml`.

    Returns:
        The run's record.

    Raises:
        FlowerError: It cannot be submitted, or ended before the run did.
        RunStopped: The run was stopped.
    """
    kit, output = kit.resolve(), output.resolve()
    load_federation(kit / "federation.toml")
    require_folder(output, resume=resume)
    number = _submit(kit, output, connection)
    _wait(number, output, connection)
    record = write_results(RunStore(output))
    if record.status == "stopped":
        raise RunStopped(record.stop_reason)
    return record


def _submit(kit: Path, output: Path, connection: str) -> str:
    settings = f"kit={json.dumps(str(kit))} output={json.dumps(str(output))}"
    with as_file(files("fmfl_secure.transports.flower") / "bundle") as bundle:
        said = _flwr("run", str(bundle), connection, "--run-config", settings, "--format", "json")
    try:
        answer = json.loads(said)
    except json.JSONDecodeError:
        answer = {}
    if not answer.get("success"):
        raise FlowerError(
            f"the SuperLink takes no run: {answer.get('error-message') or said.strip()}",
            hint=f"Is [superlink.{connection}] in $FLWR_HOME/config.toml, and does it run?",
        )
    return str(answer["run-id"])


def _wait(number: str, output: Path, connection: str) -> None:
    """Wait until the run has ended, by its own state or by Flower's."""
    begun = asked = time.monotonic()
    while True:
        time.sleep(_TICK_S)
        store = RunStore(output) if holds_run(output) else None
        if store is not None and store.state.ended:
            break
        if time.monotonic() < asked + _ASK_S:
            continue
        asked, status = time.monotonic(), _status(number, connection)
        if status.startswith("finished"):
            raise FlowerError(
                f"Flower ended the run ({status}) before it was over",
                hint=f"Its log: flwr log {number} {connection}. Then --resume.",
            )
        if store is None and time.monotonic() - begun > _START_S:
            raise FlowerError(
                "no ServerApp has begun the run",
                hint="Check that the SuperLink has a SuperExec, and this package where it runs.",
            )
    # Its last orders, and the results, come after.
    while not _status(number, connection).startswith("finished"):
        time.sleep(_TICK_S)


def _status(number: str, connection: str) -> str:
    try:
        answer = json.loads(_flwr("list", connection, "--run-id", number, "--format", "json"))
        return str(answer["runs"][0]["status"])
    except (json.JSONDecodeError, KeyError, IndexError):
        return ""  # the SuperLink may be starting again


def _flwr(*arguments: str) -> str:
    beside = Path(sys.executable).with_name("flwr")
    command = str(beside) if beside.exists() else shutil.which("flwr")
    if command is None:
        raise FlowerError("there is no flwr command", hint=how_to_install("flower"))
    done = subprocess.run(  # noqa: S603 - the command beside this interpreter
        [command, *arguments],
        env=os.environ | OFFLINE,
        capture_output=True,
        text=True,
        timeout=_SUBMIT_S,
        check=False,
    )
    return done.stdout or done.stderr
