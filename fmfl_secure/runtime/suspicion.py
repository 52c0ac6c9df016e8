"""Sums that are spoiled, and nobody knows by whom: who is left out to see if rounds go without.

Of a round's uploads nobody can say whose is false (`docs/protocol.md`, *A sum that lies*). But a
sum that was spoiled was so by somebody in it. So whoever spoils is in every cohort whose sum was,
and others are not, once they were left out of one. Each such loss counts one for every site of its
cohort. From the second on, half of those that have most are left out of the next five attempts, as
far as the others are enough; half of these out of the five after that, and so on. While the one
that spoils is out, rounds are released; while it is in, it can spoil, and then all that were out
have one less than it.

It is no proof, and nobody is named by it: an honest site shares its count with the one that spoils
until it was out. With one such site, whenever it behaves, it always has most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from fmfl_secure.storage.message_store import Messages

_LOG = logging.getLogger("fmfl_secure.runtime.suspicion")
_SPOILED: Final = "spoiled"  # kind of the notes of such losses; key ROUND/ATTEMPT, value: its sites
_OUT: Final = "suspected"  # and of who is left out now; one key, value: attempts so far, and sites
_NOW: Final = "now"
FORGIVEN: Final = 1  # losses: an accident
ATTEMPTS: Final = 5  # that a site is left out of


class Suspicion:
    """Counts spoiled sums of one run. Durable; safe across restarts.

    Args:
        store: Where it is noted.
        run: The run.
        attempts: How many attempts of the run there have been, over all rounds.
    """

    def __init__(self, store: Messages, run: str, attempts: Callable[[], int]) -> None:
        self._store = store
        self._run = run
        self._attempts = attempts

    def spoiled(
        self,
        place: tuple[int, int],
        cohort: Sequence[str],
        able: Sequence[str],
        enough: Callable[[Sequence[str]], bool],
    ) -> tuple[str, ...]:
        """Note a spoiled sum, and choose whom to leave out next.

        Args:
            place: Round and attempt.
            cohort: Whose sum it was.
            able: Who could be invited next, were nobody left out by this.
            enough: Whether so few may be summed.

        Returns:
            Who is left out.
        """
        number, attempt = place
        self._store.note(self._run, _SPOILED, f"{number}/{attempt}", " ".join(cohort).encode())
        cohorts = [set(v.decode().split()) for v in self._notes(_SPOILED).values()]
        if len(cohorts) <= FORGIVEN or not able:
            return ()
        count = {name: sum(name in each for each in cohorts) for name in able}
        most = [name for name in able if count[name] == max(count.values())]
        start = len(cohorts) % len(most)  # others each time, so that they come apart
        most, out = most[start:] + most[:start], list[str]()
        for name in most[: (len(most) + 1) // 2]:
            if enough([each for each in able if each not in {*out, name}]):
                out.append(name)
        self._store.note(self._run, _OUT, _NOW, " ".join([str(self._attempts()), *out]).encode())
        _LOG.warning(
            "sums were spoiled, and nobody knows by whom: %s left out to see if it goes without",
            ", ".join(out) or "too few sites, none is",
            extra={"run": self._run, "round": number},
        )
        return tuple(out)

    def of(self) -> tuple[str, ...]:
        """Who is left out now."""
        noted = self._notes(_OUT).get(_NOW)
        if noted is None:
            return ()
        place, *names = noted.decode().split()
        periods = (self._attempts() - int(place)) // ATTEMPTS
        return tuple(names[: len(names) >> periods])  # so that those in it come apart as well

    def _notes(self, kind: str) -> dict[str, bytes]:
        return self._store.notes(self._run, kind)
