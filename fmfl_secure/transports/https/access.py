"""Who may speak to the server: certificates that are not revoked, of parties that are still in.

Everything is read from the server's kit, and read again when a file changes: a revocation or the
removal of a site holds from the next request on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fmfl_secure.errors import Problem
from fmfl_secure.parties.workspace import DECRYPTOR as DECRYPTOR_NAME
from fmfl_secure.parties.workspace import Members
from fmfl_secure.provisioning.certificates import CUSTODIAN, DECRYPTOR, SITE, Peer, revoked_serials


class Watched:
    """A file's content as something computed from it, computed again when the file changes.

    Args:
        path: The file.
        read: From bytes to what is wanted; empty bytes stand for no file.
    """

    def __init__(self, path: Path, read: Callable[[bytes], frozenset[int]]) -> None:
        self._path = path
        self._read = read
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._value = self._refresh()

    @property
    def value(self) -> frozenset[int]:
        """The file's present content; where it cannot be read, the content before."""
        with self._lock:
            self._value = self._refresh()
            return self._value

    def _refresh(self) -> frozenset[int]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            if self._seen is None:
                self._seen = (0, 0, 0)
                self._value = self._read(b"")
            return self._value
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        if seen != self._seen:
            self._value = self._read(self._path.read_bytes())
            self._seen = seen
        return self._value


class Access:
    """Decides about each request.

    Args:
        federation: Its name.
        members: All parties, as of now.
        authority: The authority's certificate, PEM.
        revocations: The authority's revocation list, PEM; may be missing.

    Raises:
        ServiceError: The revocation list is not the authority's.
    """

    def __init__(
        self,
        federation: str,
        *,
        members: Callable[[], Members],
        authority: bytes,
        revocations: Path,
    ) -> None:
        self._federation = federation
        self._members = members
        self._revoked = Watched(
            revocations, lambda data: revoked_serials(data, authority) if data else frozenset()
        )

    def check(self, peer: Peer | None) -> Peer:
        """Let a peer through.

        Raises:
            Problem: 401 without a valid certificate, 403 for one that was shut out.
        """
        if peer is None:
            raise Problem(401, "unauthenticated", "a client certificate is needed")
        if peer.expires <= datetime.now(UTC):
            raise Problem(401, "expired", "the certificate has expired")
        if peer.federation != self._federation:
            raise Problem(403, "wrong-federation", "the certificate is of another federation")
        if peer.serial in self._revoked.value:
            raise Problem(403, "revoked", "the certificate was revoked")
        if peer.role == SITE and peer.name not in self._members().sites:
            raise Problem(403, "removed", "the site is not a member of the federation")
        if peer.role == CUSTODIAN and peer.name not in self._members().custodians:
            raise Problem(403, "removed", "the custodian is not a party of the federation")
        if peer.role == DECRYPTOR and peer.name != DECRYPTOR_NAME:
            raise Problem(403, "wrong-role", "the certificate is of no decryptor of this server")
        return peer
