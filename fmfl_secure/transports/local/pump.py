"""Waiting, where all parties are in this process: they do their work, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from typing_extensions import override

from fmfl_secure.errors import ANY_FAILURE, Rejected
from fmfl_secure.run.refusal_codes import GENERIC
from fmfl_secure.runtime.agents.base import Agent
from fmfl_secure.runtime.inbox import Inbox
from fmfl_secure.runtime.waiting import Stopping, Waiter
from fmfl_secure.settings.service import Time


class Pump(Waiter):
    """Waits by letting each party do what it is assigned, without threads or a clock.

    It ends when what is waited for has come, or when nobody has anything to do: whoever has not
    answered by then is missing. Nobody is ever silent.

    Args:
        inbox: Where the parties' messages come in.
        limits: How many attempts there are; no time in it counts.
        agents: All parties by name, in the order they take their turns.
    """

    def __init__(self, inbox: Inbox, limits: Time, agents: Mapping[str, Agent]) -> None:
        super().__init__(inbox, limits)
        self._agents = agents

    @override
    def until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        while not holds():
            if self.stopping:
                raise Stopping("the run is asked to stop")
            if not self._turn(holds):
                return False
        return True

    @override
    def is_present(self, party: str) -> bool:
        return party in self._agents

    def _turn(self, holds: Callable[[], bool]) -> bool:
        """Let everybody work until something holds; whether anybody had anything to do."""
        worked = False
        for agent in self._agents.values():
            if _work(agent):
                worked = True
                if holds():
                    break
        return worked


def _work(agent: Agent) -> bool:
    try:
        return agent.step()
    except Rejected as rejected:
        # What a party sent does not hold: elsewhere its process would end. The attempt, or the
        # run, goes on without it.
        agent.refusal = str(rejected)
        work = agent.work
        if work is not None:
            with suppress(Rejected):
                if work.attempt:
                    agent.transport.fail(work, "refused")
                else:
                    agent.transport.refuse(work.run, GENERIC)
        return True
    except ANY_FAILURE as error:
        agent.endure(error)  # its next turn is another try
        return True
