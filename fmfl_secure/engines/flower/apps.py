"""Flower's two apps: the ClientApp is a courier to a party's process, the ServerApp carries the run.

They are made here, in the installed package; the bundle that Flower sends around only names them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fmfl_secure.config import load_federation
from fmfl_secure.engines.flower import host
from fmfl_secure.engines.flower.carrier import Carrier
from fmfl_secure.engines.flower.errors import FlowerError
from fmfl_secure.engines.flower.records import pack, refusal, unpack
from fmfl_secure.service.assembly import ServerSide
from fmfl_secure.service.settings import ServerSettings, load_settings

_LOG = logging.getLogger("fmfl_secure.engines.flower.apps")

# A node's party: its socket, its name there, and the kit to start its host from, if it is ours.
Address = tuple[Path, str, Path | None]


def client_app(address: Callable[[Context], Address]) -> ClientApp:
    """A courier.

    Args:
        address: Where a node's party is.
    """
    app = ClientApp()

    @app.query()
    def carry(message: Message, context: Context) -> Message:
        # Flower sends the text of an exception to the SuperLink, so none gets out of here.
        try:
            path, party, kit = address(context)
            if kit is not None:
                host.ensure(kit, path)
            content = pack(host.ask(path, party, unpack(message.content)))
        except Exception:
            _LOG.exception("an order did not reach its party")
            content = refusal()
        return Message(content, reply_to=message)

    return app


def node_address(context: Context) -> Address:
    """A SuperNode's party, from its node configuration: `kit`, or `socket` of a running host.

    Raises:
        FlowerError: It names neither.
    """
    kit, path = (context.node_config.get(key) for key in ("kit", "socket"))
    if path:
        return Path(str(path)), "", None
    if kit:
        return Path(str(kit)) / host.SOCKET, "", Path(str(kit))
    raise FlowerError(
        "this SuperNode names neither a kit nor a socket",
        hint="flower-supernode --node-config 'kit=\"/path/of/kit\"'",
    )


class GridPost:
    """Flower's grid as a `carrier.Post`.

    Args:
        grid: The ServerApp's.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def nodes(self) -> Collection[int]:
        """See `Post`."""
        return list(self._grid.get_node_ids())

    def send(self, node: int, frame: bytes) -> str | None:
        """See `Post`."""
        message = Message(pack(frame), dst_node_id=node, message_type="query")
        return next(iter(self._grid.push_messages([message])), None) or None

    def replies(self, ids: Collection[str]) -> Iterable[tuple[str, bytes | None]]:
        """See `Post`. An error names the message it replies to and, at times, no node."""
        for message in self._grid.pull_messages(ids):
            frame = None
            if message.has_error():
                _LOG.warning("error %s in place of a reply", message.error.code)
            else:
                try:
                    frame = unpack(message.content)
                except FlowerError as error:
                    _LOG.warning("%s", error)
            yield message.metadata.reply_to_message_id, frame


def carry(grid: Grid, folder: Path, output: Path) -> None:
    """What the ServerApp of a SuperLink does.

    Args:
        grid: Flower's.
        folder: The server's kit.
        output: The run's folder; a run that is there goes on.

    Raises:
        FmflError, PrivacyError, AggregationError: The run cannot go on.
    """
    side = ServerSide(
        folder,
        output,
        config=load_federation(folder / "federation.toml"),
        settings=load_settings(folder / "service.toml", ServerSettings),
    )
    Carrier(side, GridPost(grid)).run()


def server_app(main: Callable[[Grid, Context], None]) -> ServerApp:
    """A ServerApp around a function."""
    app = ServerApp()
    app.main()(main)
    return app


def bundled_client() -> ClientApp:
    """The bundle's ClientApp."""
    return client_app(node_address)


def bundled_server() -> ServerApp:
    """The bundle's ServerApp: `kit` and `output` are in its run configuration."""

    def main(grid: Grid, context: Context) -> None:
        logging.basicConfig(level=logging.INFO)
        kit, output = (str(context.run_config[key]) for key in ("kit", "output"))
        carry(grid, Path(kit), Path(output))

    return server_app(main)
