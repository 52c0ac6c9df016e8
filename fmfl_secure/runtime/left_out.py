"""Sites that are left out of the next attempts, and why: those that an attempt failed by.

An attempt that ends for one site's fault would end so again with the same cohort, as often as there
are attempts. What counts against a site is what the server saw itself:

    invalid   a message of its that does not hold: nobody else could have signed it; or what it
              sealed does not open, proved by whom it was sealed for (`protocol.accusation`)
    silent    it was there, knew what it had to do, and did not do it in time
    failed    it said that it could not go on, and no other site said so at that step
    gone      it was away, its secrets went with an earlier process, or its surroundings failed it
              (a full disk, an answer that did not arrive): once is forgiven
    rehearsed a rehearsal named it: what it sent is not what its own keys give
    refused   it signed that a sum does not verify, and more others that it does: it lies, or has
              another MAC key than they, or was shown another sum. Once is forgiven; twice in a run,
              it is left out of the rest of it
    several   it could not go on, and neither could others: whose fault that is cannot be told,
              since one site's message may stop all others; once is forgiven

Whoever is left out is left out of the round, and of five attempts at least, as long as the others
are enough. Where they are not, it gets one more chance, and then the run ends and says why. Where a
sum was spoiled and nobody is found, `suspicion` says who is left out to see if it goes without.

`runtime.round_driver` calls `choose` before it plans an attempt, and `count` or `spoiled` when one
has failed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from fmfl_secure.errors import RunError
from fmfl_secure.runtime.attempt_state import ServerAttempt
from fmfl_secure.runtime.inbox import INVALID, UNAVAILABLE, failures
from fmfl_secure.runtime.suspicion import ATTEMPTS, Suspicion
from fmfl_secure.runtime.waiting import LOST, AttemptOver, Waiter
from fmfl_secure.storage.message_store import Messages

_LOG = logging.getLogger("fmfl_secure.runtime.left_out")
# Kind of the notes; key SITE/ROUND/ATTEMPT, value: attempts so far, and words from above. No word
# takes another's place: whoever earns one by choice would have the other forgotten.
_STRIKES: Final = "strikes"
_SUSPECTED: Final = "suspected"
_AT_ONCE: Final = frozenset({"invalid", "silent", "failed", "rehearsed"})
_REFUSED: Final = "refused"
_REFUSALS: Final = 2  # of sums that others verified: from then on it is left out of the run
# What a site says whose secrets went with an earlier process, or whose surroundings failed it.
FORGIVEN: Final = frozenset({LOST, UNAVAILABLE.encode()})
CODE: Final = "attempt."  # begins the words that reports have


class LeftOut:
    """Counts, for one run, what sites' attempts ended by. Durable; safe across restarts.

    Args:
        store: Where it is noted.
        waiting: Knows who is there.
        run: The run.
        attempts: How many attempts of the run there have been, over all rounds.
    """

    def __init__(
        self, store: Messages, waiting: Waiter, run: str, attempts: Callable[[], int]
    ) -> None:
        self._store = store
        self._waiting = waiting
        self._run = run
        self._attempts = attempts
        self._suspicion = Suspicion(store, run, attempts)

    def count(self, attempt: ServerAttempt, over: AttemptOver | None) -> dict[str, str]:
        """Note whom an attempt failed by, also one that was released without them.

        Args:
            attempt: The attempt, ended.
            over: What ended it, if that was no release.

        Returns:
            The word for each of those.
        """
        said = self._store.notes(self._run, failures(*attempt.place))
        # Who proved another's fault has none of its own: it could not go on because of that one.
        missing = set(over.missing if over else ()) & set(attempt.invited) - set(attempt.accusers)
        passed = FORGIVEN | {INVALID}
        reported = {name for name in missing if said.get(name, INVALID) not in passed}
        found: dict[str, str] = {}
        for name in attempt.invited:
            if said.get(name) == INVALID:
                found[name] = "invalid"
            elif name not in missing:
                continue
            elif name in reported:
                found[name] = "failed" if len(reported) == 1 else "several"
            elif name in said or not self._waiting.is_present(name):
                found[name] = "gone"
            else:
                found[name] = "silent"
        for name, word in found.items():
            self.strike(attempt, name, word)
        for name in over.outvoted if over else ():
            self.strike(attempt, name, _REFUSED)
            found.setdefault(name, _REFUSED)
        return found

    def spoiled(self, attempt: ServerAttempt, enough: Callable[[Sequence[str]], bool]) -> None:
        """Note that a sum was spoiled, and nobody knows by whom.

        Args:
            attempt: The attempt, ended.
            enough: Whether so few sites may be summed.
        """
        known = {*attempt.invited, *self._suspicion.of()}
        out = {name for name, word in self.of().items() if word != _SUSPECTED}
        self._suspicion.spoiled(attempt.place, attempt.sites, sorted(known - out), enough)

    def choose(
        self, number: int, present: Sequence[str], enough: Callable[[Sequence[str]], bool]
    ) -> list[str]:
        """Whom to invite to the next attempt at a round.

        Args:
            number: The round.
            present: Sites that could take part, in order.
            enough: Whether these are.

        Raises:
            RunError: Too few, without those who failed this round twice; names them.
        """
        out = self.of()
        able = [name for name in present if name not in out]
        if enough(able):
            return able
        # Too few without them: whoever has not failed this very round twice is asked again.
        out_of_round = self.twice(number)
        able = [name for name in present if name not in out_of_round]
        if enough(able):
            return able
        twice = [name for name in present if name not in able]
        raise RunError(
            f"{len(able)} sites are left for round {number}, which are too few: "
            f"two attempts failed by {', '.join(twice)}",
            hint="; ".join(f"{name}: {_MEANINGS[out[name]]}" for name in twice if name in out),
        )

    def of(self) -> dict[str, str]:
        """Who is left out now, with the word for why."""
        strikes = self._strikes()
        total = self._attempts()
        out: dict[str, str] = {}
        for name, found in strikes.items():
            for round_number, place, words in found:
                recent = total - place < ATTEMPTS
                twice = sum(r == round_number for r, *_ in found) > 1
                at_once = [word for word in words if word in _AT_ONCE]
                if recent and (at_once or twice):
                    out[name] = (at_once or words)[-1]
            if sum(_REFUSED in words for *_, words in found) >= _REFUSALS:
                out[name] = _REFUSED
        return dict.fromkeys(self._suspicion.of(), _SUSPECTED) | out

    def twice(self, number: int) -> set[str]:
        """Whoever has failed a round twice: it gets no more chance in it."""
        strikes = self._strikes().items()
        return {name for name, found in strikes if sum(r == number for r, *_ in found) > 1}

    @property
    def suspected(self) -> tuple[str, ...]:
        """Who is left out now since sums were spoiled, and nobody knows by whom."""
        return self._suspicion.of()

    def codes(self, suspected: Sequence[str] | None = None) -> dict[str, str]:
        """Who is left out, in the words of a report.

        Args:
            suspected: Who was, of a round in which that changed; None takes who is now.
        """
        out = {name: word for name, word in self.of().items() if word != _SUSPECTED}
        apart = self.suspected if suspected is None else suspected
        found = dict.fromkeys(apart, _SUSPECTED) | out
        return {name: f"{CODE}{word}" for name, word in found.items()}

    def unanswered(self, attempt: ServerAttempt, name: str) -> None:
        """Note that a site did not answer, where the attempt went on without that."""
        said = self._store.notes(self._run, failures(*attempt.place))
        gone = name in said or not self._waiting.is_present(name)
        self.strike(attempt, name, "gone" if gone else "silent")

    def strike(self, attempt: ServerAttempt, name: str, word: str) -> None:
        """Note that an attempt failed by a site, besides what was noted of it and that attempt.

        Args:
            attempt: The attempt.
            name: The site.
            word: Why, one from above.
        """
        number, which = attempt.place
        key, place = f"{name}/{number}/{which}", self._attempts()
        noted = self._store.notes(self._run, _STRIKES).get(key, b"").decode().split()[1:]
        words = [*(each for each in noted if each != word), word]
        self._store.note(self._run, _STRIKES, key, " ".join([str(place), *words]).encode())
        _LOG.warning("%s: %s", name, _MEANINGS[word], extra={"run": self._run, "round": number})

    def _strikes(self) -> dict[str, list[tuple[int, int, list[str]]]]:
        """By site: round, how many attempts of the run there had been, and the words."""
        found: dict[str, list[tuple[int, int, list[str]]]] = {}
        for key, value in self._store.notes(self._run, _STRIKES).items():
            name, number, _ = key.rsplit("/", 2)
            place, *words = value.decode().split()
            found.setdefault(name, []).append((int(number), int(place), words))
        return found


_MEANINGS: Final = {
    "invalid": "it sent what does not hold",
    "silent": "it was there, and did not answer in time",
    "failed": "it could not go on with an attempt, and it alone",
    "gone": "it went away in two attempts at a round",
    "rehearsed": "a rehearsal named it: what it sent is not what its own keys give",
    "refused": "it signed that sums do not verify which more others verified",
    "suspected": "sums that it was in were spoiled, and nobody knows by whom",
    "several": "it could not go on, and neither could others: whose fault that is cannot be told",
}
