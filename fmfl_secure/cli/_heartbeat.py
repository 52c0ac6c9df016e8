"""Nobody waits in silence: without a terminal, a line every 15 seconds of what a command does.

On standard error, so that an answer stays one document; with `--quiet` nowhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Final, Self

from rich.console import Console

EVERY_S: Final = 15.0


class Heartbeat:
    """Says where a command is, where nothing was said for `EVERY_S` seconds.

    Args:
        console: Where to.
        name: The command's.
        clock: Seconds.
        watched: Somebody sees bars, and is told nothing besides.
    """

    _current: ClassVar[Heartbeat | None] = None  # of the command that runs

    def __init__(
        self,
        console: Console,
        name: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        watched: bool = False,
    ) -> None:
        self._console, self._clock = console, clock
        self._begun = self._said = clock()
        self._where = self._name = name
        self._watched = watched
        self._over = threading.Event()
        self._outer: Heartbeat | None = None

    def __enter__(self) -> Self:
        self._outer, Heartbeat._current = Heartbeat._current, self
        if not self._watched:
            threading.Thread(target=self._keep_telling, name="heartbeat", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        Heartbeat._current = self._outer

    @classmethod
    def current(cls) -> Heartbeat | None:
        """That of the command that runs; None outside of any."""
        return cls._current

    def at(self, where: str) -> None:
        """Keep what is done now, for the next line, and say it if that is due."""
        self._where = f"{self._name}: {where}"
        self.tick()

    def told(self) -> None:
        """Something else was said just now."""
        self._said = self._clock()

    def tick(self) -> None:
        """Say where the command is, if nobody sees bars and nothing was said for a while."""
        now = self._clock()
        if not self._watched and now - self._said >= EVERY_S:
            self._said = now
            self._console.print(
                f"{self._where}, {now - self._begun:.0f} s so far",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip

    def _keep_telling(self) -> None:
        # One step may last for minutes, and so may the waiting for others.
        while not self._over.wait(EVERY_S):
            self.tick()


def doing(what: str) -> None:
    """Say what the command that runs does now, when its next line is due."""
    beat = Heartbeat.current()
    if beat is not None:
        beat.at(what)
