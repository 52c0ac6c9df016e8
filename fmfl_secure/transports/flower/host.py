"""A process that holds parties between Flower's messages, reached by a socket in the file system.

Flower starts a process for every message to a SuperNode, and its simulation hands a message to
whichever Ray actor is idle; the secrets of an attempt must outlive both, in one memory and nowhere
else. So a ClientApp only carries frames, and the party lives here. It may belong to another user
of the machine than the SuperNode: then code that the SuperLink sends cannot read its keys or data.

`fmfl-secure flower host` (`cli.flower`) calls `main`, or `host_socket` starts one. It takes a
frame from the socket, lets `Parties` answer, and writes the frame back, one at a time.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Final

import typer
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fmfl_secure.errors import ANY_FAILURE, FlowerError, is_passing, said
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.run.refusal_codes import leaving_code
from fmfl_secure.runtime.inbox import UNAVAILABLE
from fmfl_secure.storage.in_use import in_use
from fmfl_secure.transports.flower.parties import Parties

_LOG = logging.getLogger("fmfl_secure.transports.flower.host")
IDLE_S: Final = 3600.0
_TICK_S: Final = 1.0
_MAX_PATH: Final = 100  # bytes of a Unix socket's path


class Host:
    """Serves orders from one socket until it is told to stop, or nobody has asked for long.

    Args:
        parties: Who lives here.
        path: The socket's.
        group: Whether the group of the socket's folder may connect, and not the owner alone.
        idle_s: End after so many seconds without an order.
        parent: End when this process, which started it, has gone; 0 for one that outlives it.

    Raises:
        FlowerError: Another process serves this socket, or its path is too long.
    """

    def __init__(
        self,
        parties: Parties,
        path: Path,
        *,
        group: bool = False,
        idle_s: float = IDLE_S,
        parent: int = 0,
    ) -> None:
        self._parties = parties
        self._path = path
        self._idle_s = idle_s
        self._parent = parent
        self._heard = time.monotonic()
        self._doing = asyncio.Lock()
        self._server: uvicorn.Server | None = None
        if len(os.fsencode(path)) > _MAX_PATH:
            raise FlowerError(
                f"{path} is too long for a socket", hint="Name a shorter one with --socket."
            )
        # Two processes for one party would each hold one half of its attempts.
        self._lock = path.with_name(path.name + ".lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise FlowerError(f"another process serves {path}") from None
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()
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
        config = uvicorn.Config(app, ws="none", log_config=None, access_log=False, lifespan="off")
        self._server = uvicorn.Server(config)
        try:
            asyncio.run(self._run(self._server))
        finally:
            self.close()

    def stop(self) -> None:
        """Stop after what is under way. Safe from any thread."""
        if self._server is not None:
            self._server.should_exit = True

    def close(self) -> None:
        """Releases the socket and its lock."""
        self._path.unlink(missing_ok=True)
        self._socket.close()
        self._lock.close()

    async def _run(self, server: uvicorn.Server) -> None:
        watch = asyncio.create_task(self._watch())
        await server.serve(sockets=[self._socket])
        watch.cancel()

    async def _watch(self) -> None:
        while self._doing.locked() or not self._forgotten():
            await asyncio.sleep(_TICK_S)
        self.stop()

    def _forgotten(self) -> bool:
        if self._parent not in {0, os.getppid()}:
            _LOG.info("the process that started this one has gone")
            return True
        if time.monotonic() - self._heard >= self._idle_s:
            _LOG.info("nobody has asked for %.0f s", self._idle_s)
            return True
        return False

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
        except ANY_FAILURE as error:
            if is_passing(error):
                _LOG.warning("an order cannot be done now: %s", said(error))
                return 503, UNAVAILABLE.encode()
            _LOG.error("%s", error)
            return 422, leaving_code(error).encode()
        except Exception:  # noqa: BLE001 - the one place where all of them end
            _LOG.exception("an order failed")
            return 500, b"failed"


def main(
    folder: Annotated[Path, typer.Argument(help="A kit or a federation's folder.")],
    path: Annotated[Path, typer.Argument(help="The socket.")],
    group: Annotated[bool, typer.Option(help="Let the folder's group connect.")] = False,
    sites: Annotated[int, typer.Option(help="The first so many sites only.")] = 0,
    simulate: Annotated[bool, typer.Option(help="Train nothing; for load.")] = False,
    threads: Annotated[int, typer.Option(help="Threads for tensors; 0 leaves it open.")] = 0,
    idle_s: Annotated[float, typer.Option(help="End after so long without orders.")] = IDLE_S,
    parent: Annotated[int, typer.Option(help="End when this process has gone.")] = 0,
    level: Annotated[int, typer.Option(help="Least level that is logged.")] = logging.INFO,
) -> None:
    """Hold the parties of a folder."""
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=level, format=form, force=True)  # in place of a command's handler
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    parties = Parties(folder, sites=sites, simulate=simulate)
    # Of a kit: of a federation's folder each of several hosts has some of the parties.
    alone = in_use(folder, Kit(folder).role) if parties.is_kit else nullcontext()
    with alone:
        Host(parties, path, group=group, idle_s=idle_s, parent=parent).serve()


if __name__ == "__main__":
    typer.run(main)
