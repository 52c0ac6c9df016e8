"""The way to a host's socket. Loads in a moment, as Flower starts a ClientApp for every message.

So errors are the interpreter's own here: this project's bring half of it with them.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx

SOCKET: Final = "flower.sock"  # in a kit, unless another place is named
_START_S: Final = 300.0


def ask(path: Path, party: str, frame: bytes, *, timeout_s: float | None = None) -> bytes:
    """Hand an order to the host behind a socket.

    Args:
        path: The socket's.
        party: Whom the node stands for; empty for the only one there.
        frame: The order.
        timeout_s: For the whole answer; training takes its time.

    Returns:
        The answer's frame.

    Raises:
        OSError: Nobody answers there, or the order is not taken.
    """
    if not answers(path):  # here, since the library below leaves a socket open where none listens
        raise OSError(f"nobody answers at {path}")
    transport = httpx.HTTPTransport(uds=str(path), verify=False)
    try:
        with httpx.Client(transport=transport, timeout=timeout_s, trust_env=False) as client:
            response = client.post(f"http://host/-{party}", content=frame)
    except httpx.TransportError as error:
        raise OSError(f"nobody answers at {path}") from error
    if response.status_code != 200:
        raise OSError("the order is not taken")
    return response.content


def answers(path: Path) -> bool:
    """Whether a host listens behind a socket."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(path))
        return True
    return False


def ensure(kit: Path, path: Path) -> None:
    """Start the host of a kit unless it runs; it outlives this process.

    Raises:
        OSError: It does not come up.
    """
    if answers(path):
        return
    with (kit / "flower.log").open("ab") as log:
        process = start(kit, path, log=log.fileno())
    # Another ClientApp may have started one in the meantime: then ours ends, and that one answers.
    wait_for(path, lambda: process.poll() in {None, 1})


def start(
    folder: Path, path: Path, *options: str, log: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a host in a session of its own."""
    command = [sys.executable, "-m", "fmfl_secure.transports.flower.host", str(folder), str(path)]
    return subprocess.Popen(  # noqa: S603 - this interpreter, this module
        [*command, *options],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def wait_for(path: Path, hopeful: Callable[[], bool]) -> None:
    """Wait until a host answers.

    Args:
        path: Its socket.
        hopeful: Whether it still may.

    Raises:
        OSError: It never does.
    """
    deadline = time.monotonic() + _START_S
    while not answers(path):
        if time.monotonic() > deadline or not hopeful():
            raise OSError(f"the process behind {path} does not come up; its log says why")
        time.sleep(0.1)
