"""A process that holds parties between Flower's messages, reached by a socket in the file system.

Flower starts a process for every message to a SuperNode, and its simulation hands a message to
whichever Ray actor is idle; the secrets of an attempt must outlive both, in one memory and nowhere
else. So a ClientApp is a courier, and the party lives here. It may belong to another user of the
machine than the SuperNode: then code that the SuperLink sends cannot read its keys or data.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fmfl_secure.engines.flower.errors import CourierRefused, FlowerError
from fmfl_secure.engines.flower.parties import Parties
from fmfl_secure.errors import KNOWN_ERRORS
from fmfl_secure.refusal_codes import leaving_code

_LOG = logging.getLogger("fmfl_secure.engines.flower.host")
SOCKET: Final = "flower.sock"  # in a kit, unless another place is named
IDLE_S: Final = 3600.0
_START_S: Final = 120.0
_TICK_S: Final = 1.0
_MAX_PATH: Final = 100  # bytes of a Unix socket's path


class Host:
    """Serves orders from one socket until it is told to stop, or nobody has asked for long.

    Args:
        parties: Who lives here.
        path: The socket's.
        group: Whether the group of the socket's folder may connect, and not the owner alone.
        idle_s: End after so many seconds without an order.

    Raises:
        FlowerError: Another process serves this socket, or its path is too long.
    """

    def __init__(
        self, parties: Parties, path: Path, *, group: bool = False, idle_s: float = IDLE_S
    ) -> None:
        self._parties = parties
        self._path = path
        self._idle_s = idle_s
        self._heard = time.monotonic()
        self._doing = asyncio.Lock()
        if len(os.fsencode(path)) > _MAX_PATH:
            raise FlowerError(
                f"{path} is too long for a socket", hint="Name a shorter one with --socket."
            )
        # Two processes for one party would each hold one half of its attempts.
        self._lock = path.with_name(path.name + ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise FlowerError(f"another process serves {path}") from None
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        before = os.umask(0o117 if group else 0o177)
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(before)

    def serve(self) -> None:
        """Serve. Ends on SIGTERM and SIGINT, too."""
        app = Starlette(routes=[Route("/{party}", self._take, methods=["POST"])])
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        try:
            asyncio.run(self._run(server))
        finally:
            self._path.unlink(missing_ok=True)
            self._socket.close()
            self._lock.close()

    async def _run(self, server: uvicorn.Server) -> None:
        watch = asyncio.create_task(self._watch(server))
        await server.serve(sockets=[self._socket])
        watch.cancel()

    async def _watch(self, server: uvicorn.Server) -> None:
        while self._doing.locked() or time.monotonic() - self._heard < self._idle_s:
            await asyncio.sleep(_TICK_S)
        _LOG.info("nobody has asked for %.0f s", self._idle_s)
        server.should_exit = True

    async def _take(self, request: Request) -> Response:
        frame = await request.body()
        name = request.path_params["party"].removeprefix("-")
        async with self._doing:  # one order at a time: parties share a model
            status, body = await asyncio.to_thread(self._answer, name, frame)
            self._heard = time.monotonic()
        return Response(body, status, media_type="application/octet-stream")

    def _answer(self, name: str, frame: bytes) -> tuple[int, bytes]:
        try:
            return 200, self._parties.answer(name, frame)
        except KNOWN_ERRORS as error:
            _LOG.error("%s", error)  # noqa: TRY400 - expected of strangers' bytes
            return 422, leaving_code(error).encode()
        except Exception:
            _LOG.exception("an order failed")
            return 500, b"failed"


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
        CourierRefused: The order is not taken.
        FlowerError: Nobody answers there.
    """
    transport = httpx.HTTPTransport(uds=str(path), verify=False)  # noqa: S501 - no TLS in here
    try:
        with httpx.Client(transport=transport, timeout=timeout_s, trust_env=False) as client:
            response = client.post(f"http://host/-{party}", content=frame)
    except httpx.TransportError as error:
        raise FlowerError(f"nobody answers at {path}") from error
    if response.status_code != 200:
        raise CourierRefused("the order is not taken")
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
        FlowerError: It does not come up.
    """
    if answers(path):
        return
    with (kit / "flower.log").open("ab") as log:
        process = start(kit, path, log=log.fileno())
    # Another courier may have started one in the meantime: then ours ends, and that one answers.
    wait_for(path, lambda: process.poll() in {None, 1})


def start(
    folder: Path, path: Path, *options: str, log: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a host in a session of its own."""
    command = [sys.executable, "-m", "fmfl_secure.engines.flower.host", str(folder), str(path)]
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
        FlowerError: It never does.
    """
    deadline = time.monotonic() + _START_S
    while not answers(path):
        if time.monotonic() > deadline or not hopeful():
            raise FlowerError(
                f"the process behind {path} does not come up", hint="Its log says why."
            )
        time.sleep(0.1)


def main(
    folder: Annotated[Path, typer.Argument(help="A kit or a federation's folder.")],
    path: Annotated[Path, typer.Argument(help="The socket.")],
    group: Annotated[bool, typer.Option(help="Let the folder's group connect.")] = False,
    sites: Annotated[int, typer.Option(help="The first so many sites only.")] = 0,
    simulate: Annotated[bool, typer.Option(help="Train nothing; for load.")] = False,
    threads: Annotated[int, typer.Option(help="Threads for tensors; 0 leaves it open.")] = 0,
    idle_s: Annotated[float, typer.Option(help="End after so long without orders.")] = IDLE_S,
) -> None:
    """Hold the parties of a folder."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    parties = Parties(folder, sites=sites, simulate=simulate)
    Host(parties, path, group=group, idle_s=idle_s).serve()


if __name__ == "__main__":
    typer.run(main)
