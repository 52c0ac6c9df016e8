"""Records, for people, each message that a role of a run saw, in `transcript.jsonl`."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Messages up to this size stand there in full; of larger ones the digest does.
_FULL_MESSAGE_BYTES = 16 * 1024


class Transcript:
    """Appends to `transcript.jsonl`: one line for each message a role saw. No secrets.

    A line is with the operating system when `saw` returns, and on the disk after `sync`: it is a
    record for people, and no rule of the protocol rests on it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def saw(
        self, role: str, kind: str, message: bytes, *, round_number: int, attempt: int, **more: Any
    ) -> None:
        """Note that a role received a message.

        Args:
            role: Who.
            kind: What kind of message.
            message: Its bytes.
            round_number: Round.
            attempt: Attempt.
            more: Further facts, JSON-ready.
        """
        line: dict[str, Any] = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "round": round_number,
            "attempt": attempt,
            "role": role,
            "saw": kind,
            "size_bytes": len(message),
            "sha256": hashlib.sha256(message).hexdigest(),
            **more,
        }
        # A seed opens a self-mask, an approval a custodian's: they are shown by digest only.
        if kind not in {"opening", "approval"} and len(message) <= _FULL_MESSAGE_BYTES:
            line["message"] = base64.b64encode(message).decode()
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")

    def sync(self) -> None:
        """Have all lines on the disk."""
        with self._path.open("a", encoding="utf-8") as file:
            os.fsync(file.fileno())
