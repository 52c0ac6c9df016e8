"""TLS 1.3 both ways, with the federation's own authority and no other.

A party's `tls` folder holds `ca.pem`, `certificate.pem` and `key.pem`.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from fmfl_secure.errors import ServiceError, os_failure

_LOG = logging.getLogger("fmfl_secure.transports.https.tls")


def server_context(folder: Path) -> ssl.SSLContext:
    """The server's: clients must bring a certificate of the authority's, or see no HTTP at all.

    Raises:
        ServiceError: The folder's files cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _prepare(context, folder)


def client_context(folder: Path) -> ssl.SSLContext:
    """A site's or the decryptor's: the server must be the one that its URL names.

    Raises:
        ServiceError: The folder's files cannot be used.
    """
    return _prepare(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), folder)


def _prepare(context: ssl.SSLContext, folder: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    key = folder / "key.pem"
    unusable = f"the certificates in {folder} cannot be used"
    hint = "They are part of the kit that provision makes."
    try:
        if key.stat().st_mode & 0o077:
            raise ServiceError(f"others may read {key}", hint="chmod 600 it")
        context.load_verify_locations(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / "certificate.pem", key)
    except ssl.SSLError as error:  # an OSError, whose number is no errno
        raise ServiceError(f"{unusable}: {error}", hint=hint) from error
    except OSError as error:
        raise os_failure(ServiceError, unusable, error, hint=hint) from error
    return context


class Renewal:
    """Gives a running server its renewed certificate: new connections are made with it.

    Args:
        context: The server's.
        folder: Its `tls` folder.
    """

    def __init__(self, context: ssl.SSLContext, folder: Path) -> None:
        self._context = context
        self._folder = folder
        self._seen = self._stamp()

    def check(self) -> bool:
        """Load the certificate again if it changed; whether it did."""
        try:
            stamp = self._stamp()
        except OSError as error:
            _LOG.warning("the certificate cannot be looked at; the old one stays: %s", error)
            return False
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self._context.load_cert_chain(
                self._folder / "certificate.pem", self._folder / "key.pem"
            )
        except (OSError, ssl.SSLError) as error:
            _LOG.error("the renewed certificate cannot be used; the old one stays: %s", error)
            return False
        return True

    def _stamp(self) -> tuple[int, int]:
        path = self._folder / "certificate.pem"
        status = path.stat()
        return status.st_mtime_ns, status.st_ino
