"""Times as records have them: UTC, whole seconds, and never before the record that came before.

A clock that was put back would otherwise open again what has expired.
"""

from __future__ import annotations

from datetime import UTC, datetime


def written_time(at: datetime) -> str:
    """A time as records write it."""
    return at.astimezone(UTC).isoformat(timespec="seconds")


def read_time(text: str) -> datetime:
    """A time that `written_time` wrote.

    Raises:
        ValueError: It is written otherwise.
    """
    at = datetime.fromisoformat(text)
    if at.tzinfo is None or written_time(at) != text:
        raise ValueError(f"{text!r} is not a time in UTC to the second")
    return at


def time_after(previous: str | None) -> datetime:
    """Now, or the time of an earlier record where the clock stands before that."""
    now = _clock()
    try:
        return now if previous is None else max(now, read_time(previous))
    except ValueError:  # of a record that says no time; it binds nobody
        return now


def _clock() -> datetime:
    return datetime.now(UTC)
