"""Tells an engine's observer of a run that goes on in another thread: read from its store."""

from __future__ import annotations

import time
from typing import Final

from fmfl_secure.run.observer import Observer
from fmfl_secure.runtime.inbox import REFUSED, statements
from fmfl_secure.runtime.server import RunServer

_EVERY_S: Final = 0.2


class ProgressWatcher:
    """Tells an observer what is new.

    Args:
        side: The run.
        observer: Who is told.
    """

    def __init__(self, side: RunServer, observer: Observer) -> None:
        self._side = side
        self._observer = observer
        self._seen = len(side.coordinator.store.rounds())
        self._refused: set[str] = set()
        self._started = False
        self._looked = 0.0

    def look(self, *, now: bool = False) -> None:
        """Tell what happened since the last look.

        Args:
            now: Also if that was a moment ago: the store is read every time.
        """
        if not now and time.monotonic() < self._looked + _EVERY_S:
            return
        self._looked = time.monotonic()
        side, observer = self._side, self._observer
        run = side.coordinator.run
        if not self._started:
            self._started = True
            rounds = side.config.all_rounds
            observer.run_started(run, first_round=self._seen + 1, rounds=rounds)
        if len(side.coordinator.store.rounds()) == self._seen:
            return
        for name, code in side.store.notes(run, REFUSED).items():
            if name not in self._refused:
                self._refused.add(name)
                observer.site_refused(name, code.decode(), "its own log says why")
        for record in side.coordinator.rounds[self._seen :]:
            self._seen += 1
            uploaded = side.coordinator.store.state.upload_bytes
            observer.round_finished(record, self._epsilon(run), uploaded)

    def _epsilon(self, run: str) -> dict[str, float]:
        spent = {}
        for name, stated in statements(self._side.store, run).items():
            by_round = stated.statement.epsilon_by_round if stated.statement else ()
            spent[name] = by_round[-1] if by_round else 0.0
        return spent
