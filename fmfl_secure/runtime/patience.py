"""How long a process tries again what its surroundings fail: with pauses, and not for ever.

A locked database, a full disk, a server that is away decide nothing. They are waited out; whoever
has waited long enough ends, and goes on when it is started again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from fmfl_secure.errors import said

_LOG = logging.getLogger("fmfl_secure.runtime.patience")
LIMIT_S: Final = 600.0
_FIRST_S: Final = 0.5
_LONGEST_S: Final = 30.0
_APART_S: Final = 300.0  # failures further apart than this are not of one spell


class Patience:
    """Counts what fails in vain.

    Args:
        limit_s: How long a spell of failures may last.
        clock: Seconds that only grow.
    """

    def __init__(
        self, limit_s: float = LIMIT_S, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._began = self._last = clock()
        self._pause_s = 0.0

    def pause_after(self, error: Exception) -> float:
        """How many seconds to wait before the next try.

        Raises:
            Exception: The error itself: it has failed for too long.
        """
        now = self._clock()
        if self._pause_s == 0.0 or now - self._last > _APART_S:
            self._began, self._pause_s = now, _FIRST_S
        else:
            self._pause_s = min(2 * self._pause_s, _LONGEST_S)
        self._last = now
        if now - self._began >= self._limit_s:
            raise error
        _LOG.warning("%s; tried again in %.1f s", said(error), self._pause_s)
        return self._pause_s

    def worked(self) -> None:
        """Something went well: the next failure begins a new spell."""
        self._pause_s = 0.0
