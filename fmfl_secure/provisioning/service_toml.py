"""The commented `service.toml` files that `provision` writes."""

from __future__ import annotations

from typing import Final

from fmfl_secure.parties.workspace import DECRYPTOR
from fmfl_secure.settings.federation import FederationConfig

_FIRST_PAGE: Final = 9443  # the server's; the parties' follow


def operations_port(config: FederationConfig, name: str) -> int:
    """Where a party's page is by default: a port of its own, so that one machine may have several.

    Args:
        config: The federation's settings, which fix the order.
        name: Of the decryptor, a custodian or a site.
    """
    sites = (site.name for site in config.sites)
    parties = [DECRYPTOR, *config.aggregation.custodians, *sites]
    return _FIRST_PAGE + 1 + parties.index(name)


def server_toml(port: int) -> str:
    """The server's: what it listens on and how long it waits.

    Args:
        port: TCP port for sites and decryptor.
    """
    return f"""\
# The server's own settings. A run may be stopped, and go on with others.

store = "sqlite:service.sqlite"   # or "postgresql://USER@HOST/DATABASE", for runs and heads too

[listen]
address = "0.0.0.0"     # the one port that others reach; TLS 1.3, client certificates only
port = {port}

[operations]
address = "127.0.0.1"   # health, metrics and the live page; plain HTTP, by operations.token
port = {_FIRST_PAGE}

[time]                  # seconds; whoever does not come in time is gone on without
gather_s = 600          # for all sites to join, once there are enough
ready_s = 21600         # for training
upload_s = 1800
open_s = 300
release_s = 900
absent_s = 180          # silence after which nobody waits any longer

[limits]
part_bytes = 1048576    # largest body of a request
bodies_at_once = 8      # large ones in memory, over all parties
requests_per_s = 200    # of one party
connections = 1000
"""


def client_toml(url: str, operations_port: int) -> str:
    """A site's, a custodian's or the decryptor's: where the server is.

    Args:
        url: The server's.
        operations_port: TCP port of its own page.
    """
    return f"""\
# This party's own settings. It connects out to one address, and nobody connects to it.

[server]
url = "{url}"

[operations]
address = "127.0.0.1"   # health, metrics and the live page; plain HTTP, by operations.token
port = {operations_port}
"""
