"""The commands of a party behind a SuperNode."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Annotated

import typer

from fmfl_secure.cli._command import Group, command
from fmfl_secure.cli._console import log_level
from fmfl_secure.cli.acting import Act

app = typer.Typer(
    cls=Group,
    help="A federation over Flower; run has its engines.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _flower() -> None:
    """A group, though it has one command."""


@command(app, acts=Act("flower host", "kit"))
def host(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="A party's kit.")],
    socket: Annotated[
        Path | None, typer.Option(help="Socket for the SuperNode; default: in the kit.")
    ] = None,
    group: Annotated[
        bool, typer.Option("--group", help="Let the group of the socket's folder connect.")
    ] = False,
) -> None:
    """Be a party behind a SuperNode, as another user than the SuperNode's. Listens to no network.

    Example: fmfl-secure flower host pilot/kits/site-1 --socket /run/fmfl/site-1.sock --group
    """
    from fmfl_secure.transports.flower.extra import needs_flower_extra

    needs_flower_extra()
    from fmfl_secure.transports.flower.host import main
    from fmfl_secure.transports.flower.host_socket import SOCKET

    level = log_level(logging.INFO)
    main(kit, socket or kit / SOCKET, group=group, idle_s=math.inf, level=level)
