"""The ClientApp: it carries frames to a party's process, and loads little more than that."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fmfl_secure.transports.flower import host_socket
from fmfl_secure.transports.flower.records import pack, refusal, unpack

_LOG = logging.getLogger("fmfl_secure.transports.flower.client_app")

# A node's party: its socket, its name there, and the kit to start its host from, if it is ours.
Address = tuple[Path, str, Path | None]


def client_app(address: Callable[[Context], Address]) -> ClientApp:
    """A ClientApp that carries frames.

    Args:
        address: Where a node's party is.
    """

    def carry(message: Message, context: Context) -> Message:
        # Flower sends the text of an exception to the SuperLink, so none gets out of here.
        try:
            path, party, kit = address(context)
            if kit is not None:
                host_socket.ensure(kit, path)
            frame = unpack(message.content)
            content = refusal() if frame is None else pack(host_socket.ask(path, party, frame))
        except OSError as error:
            _LOG.warning("an order did not reach its party: %s", error)
            content = refusal()
        except Exception:  # noqa: BLE001 - the one place where all of them end
            _LOG.exception("an order did not reach its party")
            content = refusal()
        return Message(content, reply_to=message)

    app = ClientApp()
    app.query()(carry)
    return app


def node_address(context: Context) -> Address:
    """A SuperNode's party, from its node configuration: `kit`, or `socket` of a running host.

    Raises:
        KeyError: It names neither.
    """
    kit, path = (context.node_config.get(key) for key in ("kit", "socket"))
    if path:
        return Path(str(path)), "", None
    if kit:
        return Path(str(kit)) / host_socket.SOCKET, "", Path(str(kit))
    raise KeyError("kit or socket in this SuperNode's --node-config")


def bundled_client() -> ClientApp:
    """Makes the ClientApp of the bundle."""
    return client_app(node_address)
