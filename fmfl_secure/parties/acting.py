"""Acts that are done from Python, in the same log as those of the command line.

As there: an entry before the act takes effect, and one with what came of it; where the log does not
hold, nothing is done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fmfl_secure.errors import ANY_FAILURE, is_known, is_passing
from fmfl_secure.parties.acts import ActLog
from fmfl_secure.parties.own_identity import has_key

_LOG = logging.getLogger("fmfl_secure.parties.acting")
_FROM: Final = {"interface": "python"}


@contextmanager
def recorded(folder: Path | None, act: str, **facts: Any) -> Iterator[dict[str, Any]]:
    """Record an act at a party around what it does.

    Args:
        folder: The party's; None where it cannot be told.
        act: What the log calls it: the command's name, where one does the same.
        facts: Figures, switches and paths of it; None is not kept, and nor is what is false.

    Yields:
        To be filled with what is kept of the outcome.

    Raises:
        ConfigError, ActsDamaged, AggregationError: The log does not hold or cannot be written:
            nothing was done.
    """
    given = _FROM | {name: value for name, value in facts.items() if value not in (None, False, "")}
    told: dict[str, Any] = {}
    log = ActLog(folder) if folder is not None and has_key(folder) else None
    begun = 0 if log is None else log.begin(act, given)
    try:
        yield told
    except BaseException as error:
        if log is not None:
            what, code = _outcome(error)
            _end(log, begun, act, what, code=code)
        raise
    if log is None and folder is not None and has_key(folder):  # the act itself drew the key
        log = ActLog(folder)
        begun = log.begin(act, given)
    if log is None:
        where = "" if folder is None else f" in {folder}"
        _LOG.warning("not in a log of acts: no party's key is at hand%s", where)
    else:
        _end(log, begun, act, "done", facts=told)


def _end(
    log: ActLog,
    begun: int,
    act: str,
    what: str,
    *,
    code: str = "",
    facts: Mapping[str, Any] | None = None,
) -> None:
    try:
        log.end(begun, act, what, code=code, facts=facts or {})
    except ANY_FAILURE as error:
        _LOG.warning("its end is not in the log of acts: %s", error)


def _outcome(error: BaseException) -> tuple[str, str]:
    """What ended an act, and the error's word: nothing of its text."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "interrupted"
    if is_passing(error):
        return "interrupted", str(getattr(error, "code", "file-system"))
    if is_known(error):
        return "refused", str(getattr(error, "code", "failed"))
    return ("refused", "file-system") if isinstance(error, OSError) else ("failed", "bug")
