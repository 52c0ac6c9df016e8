"""A server on loopback with a valid certificate that answers whatever a test tells it to."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fmfl_secure.provisioning.certificates import SERVER, SITE, Issued, issue, new_authority
from fmfl_secure.provisioning.kit import write_private
from fmfl_secure.transports.https.tls import server_context

# From method and path with its query to the bytes of an answer, its head included.
Script = Callable[[str, str], Iterable[bytes]]


def answer(
    body: bytes | Iterable[bytes], *, status: int = 200, length: int | None = None, more: str = ""
) -> Iterator[bytes]:
    """An answer's bytes; a body in pieces has no length and ends with the connection."""
    if isinstance(body, bytes):
        more += f"content-length: {len(body) if length is None else length}\r\n"
        body = [body]
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}\r\n"
    return itertools.chain([head.encode()], body)


def say(form: Any, *, status: int = 200) -> Iterator[bytes]:
    """JSON; what Python writes for no number as well."""
    return answer(json.dumps(form).encode(), status=status)


class HostileServer:
    """One connection after the other, each in a thread.

    Args:
        folder: For certificates.
        ended: Begin with a certificate that ended yesterday.
    """

    def __init__(self, folder: Path, *, ended: bool = False) -> None:
        authority = new_authority("tiny")
        self._folder, self._authority = folder, authority
        self.party = folder / "party"
        _write(self.party, authority, issue(authority, federation="tiny", role=SITE, name="site-1"))
        self.script: Script = lambda _method, _path: say({})
        self.asked: list[tuple[str, str, bytes]] = []
        self.renew(days=-1 if ended else 30)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://localhost:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def renew(self, days: int = 30) -> None:
        """Have a certificate that ends in so many days, from the next connection on."""
        hosts = ("localhost",)
        made = issue(
            self._authority, federation="tiny", role=SERVER, name="server", hosts=hosts, days=days
        )
        folder = self._folder / f"server-{made.certificate[-60:-50].hex()}"
        _write(folder, self._authority, made)
        self._context = server_context(folder)

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), raw:  # what OpenSSL raises is an OSError
            wrapped = self._context.wrap_socket(raw, server_side=True)
            with wrapped as connection, connection.makefile("rb") as stream:
                while line := stream.readline():
                    method, path, _ = line.decode().split(" ")
                    heads = _heads(stream)
                    stream.read(int(heads.get("content-length", 0)))
                    self.asked.append((method, path, heads.get("accept-encoding", "").encode()))
                    pieces = iter(self.script(method, path))
                    head = next(pieces)
                    connection.sendall(head)
                    for piece in pieces:
                        connection.sendall(piece)
                    if b"content-length" not in head:
                        return


def _heads(stream: BinaryIO) -> dict[str, str]:
    heads = {}
    while (head := stream.readline().decode().strip()) != "":
        name, _, value = head.partition(":")
        heads[name.lower()] = value.strip()
    return heads


def _write(folder: Path, authority: Issued, made: Issued) -> None:
    write_private(folder / "ca.pem", authority.certificate)
    write_private(folder / "certificate.pem", made.certificate)
    write_private(folder / "key.pem", made.key)
