"""Structured logs: one JSON object a line, with run and round where there is one.

Messages are this project's own sentences. What came from outside, and what was computed from data,
is not in them, but for how many rows a site had to leave out, which it says in its own log alone.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Final

import msgspec

_FIELDS: Final = ("run", "round", "attempt", "phase", "sites")
# Libraries whose chatter would repeat every request, with its address.
_QUIET: Final = ("httpx", "httpcore", "uvicorn.access", "transformers", "matplotlib")


class JsonLines(logging.Formatter):
    """Formats log records as lines of JSON."""

    def __init__(self, party: str) -> None:
        super().__init__()
        self._party = party

    def format(self, record: logging.LogRecord) -> str:
        """Formats one record as a line."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "party": self._party,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {f: getattr(record, f) for f in _FIELDS if getattr(record, f, None) is not None}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure(party: str, *, level: int = logging.INFO) -> None:
    """Send this process's logs to standard error, as JSON lines.

    Args:
        party: Whose process this is.
        level: Least level that is shown.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(party))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
