"""The same parties with an honest server and decryptor; processes end. Does a round finish?

The server goes through the steps with what `ServerAttempt` makes of them, and makes the next
attempt once nothing else can happen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from model import Model, State


class Step(NamedTuple):
    """Where the server is, and everybody else.

    Attributes:
        attempt: Its number.
        cohort: What it has fixed; empty before that.
        state: The parties.
    """

    attempt: int
    cohort: str
    state: State


class HonestServer(Model):
    """A round as `runtime` carries it.

    Args:
        advances: Whether the next attempt is another one.
        more: As `Model`.
    """

    def __init__(self, *, attempts: int = 3, advances: bool = True, **more) -> None:
        plans = tuple(("one", number) for number in range(1, attempts + 1))
        super().__init__(plans=plans, is_honest=True, **more)
        self.attempts, self.advances = attempts, advances
        self.first = Step(1, "", self.start)

    def steps(self, at: Step) -> Iterator[tuple[str, Step]]:
        """What can happen next."""
        if self.ends(at):
            return
        went_on = False
        for move, following in self._ordered(at):
            went_on = True
            yield move, following
        for place in range(len(self.sites)) if at.state.crashes else ():
            for op in (("crash",), *self._unheard(at)):
                for move, state in self._told(at.state, place, op, crashes=1):
                    yield move, Step(at.attempt, at.cohort, state)
        if not went_on and at.attempt < self.attempts:
            number = at.attempt + self.advances
            if Step(number, "", at.state) != at:
                yield "the next attempt", Step(number, "", at.state)

    def _ordered(self, at: Step) -> Iterator[tuple[str, Step]]:
        plan = f"one/{at.attempt}"
        if not at.cohort:
            orders = [(name, ("ready", plan)) for name in self.honest]
            orders.append(("decryptor", ("announce", plan)))
            for cohort in self._formed(at.state.heard):
                if self.of[cohort][0] == plan:
                    yield f"fix {cohort}", Step(at.attempt, cohort, at.state)
        else:
            orders = [
                (who, op)
                for who, op in self.options(at.state.heard)
                if op[1] == plan
                and op[0] not in {"ready", "announce"}
                and op[-1].partition(":")[0] == at.cohort
                and op[-1].partition(":")[2] == ""
            ]
        for who, op in orders:
            for move, state in self._asked(at.state, who, op):
                yield move, Step(at.attempt, at.cohort, state)

    def _unheard(self, at: Step) -> list[tuple]:
        """A site opens, records it, and ends before a word of it leaves."""
        listed = f"{at.cohort}:"
        if listed not in self.lists:
            return []
        return [("open, unheard", f"one/{at.attempt}", listed)]

    def ends(self, at: Step) -> bool:
        """Whether the sum is released."""
        return bool(at.state.heard & self._masks.get("release", 0))

    def excused(self, at: Step) -> bool:
        """Whether a site has ended between its upload and its opening.

        Its upload is on the list then, others open for it, and without sharing self-masks that
        round is lost, and said to be.
        """
        facts = [party.facts[held] for party, held in zip(self.sites, at.state.sites, strict=True)]
        opened = {
            name: self.opens(name, fact.opened)
            for name, fact in zip(self.honest, facts, strict=True)
            if fact.opened
        }
        for cohort in {at.cohort, *opened.values()} - {""}:
            plan = self.plans[self.of[cohort][0]].message
            for name, fact in zip(self.honest, facts, strict=True):
                sent = at.state.heard & self._bits.get(("upload", name, cohort), 0)
                if sent and opened.get(name) != cohort and fact.live != plan:
                    return True
        return False
