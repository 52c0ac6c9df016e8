"""Every reachable state of a model, breadth first, and the shortest way to a bad one.

States are hashable values. What a model does not say cannot happen, and whatever it says can happen
does, in every order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass
class Explored(Generic[S]):
    """What was reached.

    Attributes:
        before: By state, the one that it was first reached from, and by what.
        after: By state, all that follow; empty where only safety was asked for.
        broken: What does not hold in the first bad state; empty where there is none.
        path: What led to it, in order.
    """

    before: dict[S, tuple[S, str] | None]
    after: dict[S, list[S]] = field(default_factory=dict)
    broken: str = ""
    path: tuple[str, ...] = ()

    def doomed(self, ends: Callable[[S], bool]) -> list[S]:
        """States from which none is reached that ends well."""
        back: dict[S, list[S]] = {}
        for state, following in self.after.items():
            for each in following:
                back.setdefault(each, []).append(state)
        good = {state for state in self.before if ends(state)}
        waiting = deque(good)
        while waiting:
            for earlier in back.get(waiting.popleft(), ()):
                if earlier not in good:
                    good.add(earlier)
                    waiting.append(earlier)
        return [state for state in self.before if state not in good]

    def way_to(self, state: S) -> tuple[str, ...]:
        """What led to a state, in order."""
        path = []
        while (step := self.before[state]) is not None:
            state, move = step
            path.append(move)
        return tuple(reversed(path))


def explore(
    start: S,
    moves: Callable[[S], Iterable[tuple[str, S]]],
    broken: Callable[[S], str],
    *,
    edges: bool = False,
) -> Explored[S]:
    """Visit every state once.

    Args:
        start: Where it begins.
        moves: What can happen in a state, each with its name and what follows.
        broken: What an invariant says of a state; empty where all hold.
        edges: Whether to keep what follows each state.
    """
    found: Explored[S] = Explored({start: None})
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        found.broken = broken(state)
        if found.broken:
            found.path = found.way_to(state)
            return found
        following = found.after.setdefault(state, []) if edges else []
        for move, after in moves(state):
            following.append(after)
            if after not in found.before:
                found.before[after] = (state, move)
                waiting.append(after)
    return found
