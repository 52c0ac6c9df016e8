"""Messages between a server and the process that writes a run's results for it."""

from __future__ import annotations

import msgspec


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request to the process that writes results.

    Attributes:
        folder: The run's.
        database: URL of the run's state where it is in a database, with what the folder lacks.
    """

    folder: str
    database: str | None


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer of the process that writes results.

    Attributes:
        record: The run's record, encoded; empty where it failed.
        error: What went wrong.
        hint: What to do.
        passing: Whether the surroundings are at fault, and another try may do.
    """

    record: bytes = b""
    error: str = ""
    hint: str = ""
    passing: bool = False
