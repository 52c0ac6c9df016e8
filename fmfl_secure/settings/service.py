"""`service.toml`: how a party's process talks, and how long it waits. Its own; nobody else's.

What a run computes is in `federation.toml` and fixed from start to end. What is here may be
changed between two starts of the same run.

A party's process loads its file when it starts, as `transports.https.processes.site` does; a run
on Flower loads its server's (`transports.flower.server_app`).
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import msgspec

from fmfl_secure.errors import ConfigError
from fmfl_secure.settings.toml_file import load_toml

Seconds = Annotated[float, msgspec.Meta(gt=0, le=30 * 86_400)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
PartBytes = Annotated[int, msgspec.Meta(ge=4096, le=64 << 20)]
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = rf"(?=[^:]{{1,253}}(:|\Z)){_LABEL}(\.{_LABEL})*"
_PORT = r"([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
_URL_FORM = "https://, a host's name, and a port where it is not 443; nothing behind."
Url = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^https://({_NAME}|\[[0-9A-Fa-f:.]+\])(:{_PORT})?\Z",
        description=_URL_FORM,
    ),
]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections: immutable, no unknown keys."""


class Listen(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[listen]` of the server: the one port of a federation that is open to others.

    Attributes:
        address: Interface to listen on.
        port: TCP port; 0 takes a free one.
    """

    address: NonEmpty = "0.0.0.0"  # noqa: S104 - sites are elsewhere; only certificates get in
    port: Port = 8443


class Limits(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[limits]` of the server.

    Attributes:
        part_bytes: Largest body of a request; larger messages come in parts of at most this.
        requests_per_s: What one party may ask on average.
        burst: What it may ask at once.
        requests_at_once: Requests of one party under way at a time.
        bodies_at_once: Large bodies that are in memory at a time, over all parties; one a party.
        connections: Open connections in all that have shown a certificate.
        connections_of_party: Of one party.
        handshakes: Open connections that have shown none yet.
        handshakes_from_address: Of those, from one address.
        header_s: From the connection to a certificate; and from there, or the end of a request, to
            a whole request head: beyond it only while nothing was sent, up to `idle_s`.
        body_s: From when a body is first read to its end.
        idle_s: How long a connection may lie unused.
        heads_bytes: What is kept of the heads of one party's ledgers, over all runs.
    """

    part_bytes: PartBytes = 1 << 20
    requests_per_s: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 200.0
    burst: Count = 400
    requests_at_once: Count = 8
    bodies_at_once: Count = 8
    connections: Count = 1000
    connections_of_party: Count = 16
    handshakes: Count = 128
    handshakes_from_address: Count = 64
    header_s: Seconds = 10.0
    body_s: Seconds = 120.0
    idle_s: Seconds = 75.0
    heads_bytes: Annotated[int, msgspec.Meta(ge=1 << 16, le=1 << 30)] = 4 << 20


class Time(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[time]` of the server: how long each step waits for parties before it goes on without.

    Attributes:
        gather_s: For all sites to join a run, once `min_sites` did.
        wait_for_sites_s: For `min_sites` sites, before a run is stopped for lack of them.
        announce_s: For the decryptor, and before it custodians, to announce keys.
        ready_s: For sites to train.
        exchange_s: For key material between sites.
        upload_s: For uploads.
        confirm_s: For the decryptor to confirm a list.
        approve_s: For custodians to give their word.
        open_s: For sites to open.
        release_s: For the decryptor to open the sum.
        verify_s: For sites to say that a sum verifies.
        end_s: For sites to close a run that ended, before the server does.
        absent_s: A party unheard of for so long is not waited for.
        attempts: Attempts at a round, before the run stops.
    """

    gather_s: Seconds = 600.0
    wait_for_sites_s: Seconds = 86_400.0
    announce_s: Seconds = 600.0
    ready_s: Seconds = 6 * 3600.0
    exchange_s: Seconds = 300.0
    upload_s: Seconds = 1800.0
    confirm_s: Seconds = 300.0
    approve_s: Seconds = 300.0
    open_s: Seconds = 300.0
    release_s: Seconds = 900.0
    verify_s: Seconds = 300.0
    end_s: Seconds = 300.0
    absent_s: Seconds = 180.0
    attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5


class Operations(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[operations]`: health, metrics and the live page, for whoever runs this process.

    Attributes:
        address: Interface; plain HTTP with a token, so a loopback one.
        port: TCP port; 0 takes a free one.
    """

    address: NonEmpty = "127.0.0.1"
    port: Port = 9443


class ServerSettings(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of a server's `service.toml`.

    Attributes:
        store: Where messages under way are kept: `sqlite:FILE`, from the kit's folder, or
            `postgresql://USER@HOST/DATABASE?schema=NAME`, which takes heads of ledgers and the
            state of runs too.
    """

    store: NonEmpty = "sqlite:service.sqlite"
    listen: Listen = Listen()
    limits: Limits = Limits()
    time: Time = Time()
    operations: Operations = Operations()


class Upstream(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[server]` of a site, a decryptor or a custodian.

    Attributes:
        url: Where the server is; `https://` only.
        poll_s: How long a question for work may stay open.
        retry_s: Longest pause between attempts to reach it.
        timeout_s: For a connection, and between two bytes.
        document_bytes: Largest document that is fetched, such as an adapter or a sum.
    """

    url: Url
    poll_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 20.0
    retry_s: Seconds = 30.0
    timeout_s: Seconds = 60.0
    document_bytes: Annotated[int, msgspec.Meta(ge=1 << 20, le=1 << 40)] = 1 << 30

    def __post_init__(self) -> None:
        if not _has_host(self.url):
            raise ValueError(f"server.url = {self.url!r} has an address that no host can have")


class ClientSettings(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of a site's, a decryptor's or a custodian's `service.toml`."""

    server: Upstream
    operations: Operations = Operations()


_Settings = TypeVar("_Settings", ServerSettings, ClientSettings)


def require_url(url: str) -> None:
    """Refuse what is not where a server can be reached.

    Raises:
        ConfigError: It is no such address.
    """
    try:
        msgspec.convert(url, Url)
        is_possible = _has_host(url)
    except msgspec.ValidationError:
        is_possible = False
    if not is_possible:
        raise ConfigError(
            f"{url!r} is not where a server can be reached", hint=f"Write {_URL_FORM}"
        )


def _has_host(url: str) -> bool:
    """Whether an address in numbers is one; of a name, its form has been looked at."""
    host = url.removeprefix("https://")
    if not (host.startswith("[") or set(host.partition(":")[0]) <= set("0123456789.")):
        return True
    try:
        ipaddress.ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return False
    return True


def load_settings(path: Path, kind: type[_Settings]) -> _Settings:
    """Read a `service.toml`.

    Raises:
        ConfigError: It is missing, not TOML, or a setting is unknown or wrong.
    """
    return load_toml(path, kind, hint="It is part of the kit that provision makes.")
