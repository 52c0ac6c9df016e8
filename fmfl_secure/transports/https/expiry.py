"""When a party's own certificate ends: for its log, its page and its metrics, 30 days ahead."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from fmfl_secure.provisioning.certificates import RENEWED_AHEAD, end_of

_LOG = logging.getLogger(__name__)
CHECKED_EVERY_S: Final = 86_400.0


class CertificateWatch:
    """Looks at the file each time, so that a renewal is seen without a restart.

    Args:
        file: The certificate, PEM. A file that is not there has no end.
        registry: Metrics, which it adds `fmfl_certificate_expires_seconds` to: Unix time, NaN
            where there is no certificate.
    """

    def __init__(self, file: Path, registry: CollectorRegistry) -> None:
        self._file = file
        gauge = Gauge(
            "fmfl_certificate_expires_seconds",
            "When this party's certificate ends, in Unix time.",
            registry=registry,
        )
        gauge.set_function(self._unix_time)

    @property
    def expires(self) -> datetime | None:
        """When it ends; None where none can be read."""
        try:
            return end_of(self._file.read_bytes())
        except (OSError, ValueError):
            return None

    def _unix_time(self) -> float:
        expires = self.expires
        return float("nan") if expires is None else expires.timestamp()

    @property
    def warning(self) -> str:
        """Advice while the certificate is due; empty before."""
        expires = self.expires
        now = datetime.now(UTC)
        if expires is None or expires - now > RENEWED_AHEAD:
            return ""
        over = "has ended" if expires <= now else "ends"
        return (
            f"this party's certificate {over} on {expires:%Y-%m-%d}: have it renewed "
            "(fmfl-secure request FOLDER --renew)"
        )

    def warn(self) -> None:
        """Say so in the log."""
        if self.warning:
            _LOG.warning("%s", self.warning)
