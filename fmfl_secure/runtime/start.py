"""Where a server finds what its run starts from."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from fmfl_secure.errors import StartError
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.vectors.start import RunStart
from fmfl_secure.vectors.start_file import START_FILE, read_start

_LOG = logging.getLogger("fmfl_secure.runtime.start")


def open_start(folder: Path, config: FederationConfig) -> RunStart:
    """Reads what a run starts from out of a server's kit.

    A kit of version 0.1.0 has no such file, and such a server has the base model: there the file
    is made, once, by a process that ends before the server begins. A file that is there is never
    replaced.

    Args:
        folder: The server's kit.
        config: The federation's settings.

    Raises:
        StartError: There is none and none can be made here, or it cannot be used.
    """
    path = folder / START_FILE
    if not path.exists():
        if config.extensions:
            raise StartError(
                f"there is no {path}, and making it runs code of another package, "
                f"{', '.join(config.extensions)}, which a server does not by itself",
                hint="Make it where sites let that code run, with fmfl-secure start-file "
                f"FEDERATION.toml, and bring it here as {path}.",
            )
        _make(folder, path)
    return read_start(path, config)


def _make(folder: Path, path: Path) -> None:
    settings = folder / "federation.toml"
    _LOG.warning("there is no %s: it is made now, from the base model", path)
    command = [sys.executable, "-m", "fmfl_secure", "start-file", str(settings)]
    done = subprocess.run(  # noqa: S603 - this interpreter, on this package
        [*command, "--output", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        why = (
            said[-1].removeprefix("error:").strip() if said else f"it ended with {done.returncode}"
        )
        raise StartError(
            f"there is no {path}, and it cannot be made here: {why}",
            hint="Make it where the base model is, with fmfl-secure start-file FEDERATION.toml, "
            f"and bring it here as {path}.",
        )
