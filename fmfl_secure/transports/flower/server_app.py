"""The ServerApp: coordinator and aggregator, with Flower's grid between them and the parties."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp
from typing_extensions import override

from fmfl_secure.runtime.server import RunServer
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.service import ServerSettings, load_settings
from fmfl_secure.transports.flower.records import pack, unpack
from fmfl_secure.transports.flower.server import FlowerServer, Post

_LOG = logging.getLogger("fmfl_secure.transports.flower.server_app")


class GridPost(Post):
    """Flower's grid as a `server.Post`.

    Args:
        grid: The ServerApp's.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    @override
    def nodes(self) -> Collection[int]:
        return list(self._grid.get_node_ids())

    @override
    def send(self, node: int, frame: bytes) -> str | None:
        message = Message(pack(frame), dst_node_id=node, message_type="query")
        return next(iter(self._grid.push_messages([message])), None) or None

    @override
    def replies(self, ids: Collection[str]) -> Iterable[tuple[str, bytes | None]]:
        """An error names the message it replies to and, at times, no node."""
        for message in self._grid.pull_messages(ids):
            frame = None if message.has_error() else unpack(message.content)
            if message.has_error():
                _LOG.warning("error %s in place of a reply", message.error.code)
            yield message.metadata.reply_to_message_id, frame


def carry(grid: Grid, folder: Path, output: Path) -> None:
    """Carries a run as the ServerApp of a SuperLink.

    Args:
        grid: Flower's.
        folder: The server's kit.
        output: The run's folder; a run that is there goes on.

    Raises:
        FmflError, PrivacyError, AggregationError: The run cannot go on.
    """
    side = RunServer(
        folder,
        output,
        config=load_federation(folder / "federation.toml"),
        settings=load_settings(folder / "service.toml", ServerSettings),
    )
    FlowerServer(side, GridPost(grid)).run()


def server_app(main: Callable[[Grid, Context], None]) -> ServerApp:
    """A ServerApp around a function."""
    app = ServerApp()
    app.main()(main)
    return app


def bundled_server() -> ServerApp:
    """The bundle's ServerApp: `kit` and `output` are in its run configuration."""

    def main(grid: Grid, context: Context) -> None:
        logging.basicConfig(level=logging.INFO)
        kit, output = (str(context.run_config[key]) for key in ("kit", "output"))
        carry(grid, Path(kit), Path(output))

    return server_app(main)
