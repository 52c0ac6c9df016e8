"""The commented `service.toml` files that `provision` writes."""

from __future__ import annotations


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
port = 9443

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


def client_toml(url: str) -> str:
    """A site's or the decryptor's: where the server is.

    Args:
        url: The server's.
    """
    return f"""\
# This party's own settings. It connects out to one address, and nobody connects to it.

[server]
url = "{url}"

[operations]
address = "127.0.0.1"   # health, metrics and the live page; plain HTTP, by operations.token
port = 9444
"""
