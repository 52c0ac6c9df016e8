"""A party that orders come to: it verifies each, has its agent do it, and signs what that says."""

from __future__ import annotations

import logging

from aggregation import Identity, PublicIdentity
from fmfl_secure.errors import FrameRefused, is_known, is_passing
from fmfl_secure.run.refusal_codes import GENERIC
from fmfl_secure.runtime.agents.base import Agent
from fmfl_secure.runtime.task_board import Step
from fmfl_secure.transports.flower.fingerprint import fingerprint
from fmfl_secure.transports.flower.frames import (
    HELLO,
    Answer,
    Failed,
    Order,
    Present,
    Refused,
    Word,
    open_frame,
    seal,
)
from fmfl_secure.transports.flower.order_transport import OrderTransport

_LOG = logging.getLogger("fmfl_secure.transports.flower.party")


class FlowerParty:
    """One party: a site, the decryptor or a custodian.

    The agent is the same as over HTTPS, so what a step does, and does twice without harm, is
    decided there. A step that is ordered again is done again, and gives the same bytes.

    Args:
        identity: The party's key pair.
        coordinator: Whose orders it follows.
        agent: What does them.
        transport: The agent's.
    """

    def __init__(
        self,
        identity: Identity,
        coordinator: PublicIdentity,
        agent: Agent,
        transport: OrderTransport,
    ) -> None:
        self._identity = identity
        self._coordinator = coordinator
        self._agent = agent
        self._transport = transport
        self._newest = -1

    def answer(self, frame: bytes) -> bytes:
        """Do an order.

        Args:
            frame: As it came.

        Returns:
            The answer's frame. Whatever goes wrong within the order is a code in it.

        Raises:
            FrameRefused: It is not the coordinator's order to this party, or an old one.
            FmflError, PrivacyError, AggregationError: The surroundings failed it for too long:
                nobody hears of that, and the order comes again.
        """
        order, opened = open_frame(frame, Order, self._coordinator)
        name = self._identity.public.name
        if order.step == HELLO:
            words: list[Word] = [Present(fingerprint())]
            return seal(self._identity, Answer(name, opened.digest, words))
        if order.party != name:
            raise FrameRefused(f"an order for {order.party or 'nobody'} came to {name}")
        if order.sequence < self._newest:
            raise FrameRefused("an order that a later one replaced came again")
        if order.package != fingerprint():
            raise FrameRefused("the coordinator runs another version of this project")
        if order.step not in set(Step):
            raise FrameRefused("an order for a step that there is not")
        self._newest = order.sequence
        place = {"run": order.run, "round": order.round, "attempt": order.attempt}
        _LOG.info("%s: %s", name, order.step, extra=place)
        while True:
            work = self._transport.take(order, opened)
            try:
                self._agent.perform(work)
                self._agent.worked()
            except Exception as error:  # noqa: BLE001 - the one place where all of them end
                if is_passing(error):
                    self._agent.endure(error)
                    continue
                # Its text may quote what no other party may see: a code goes, the rest stays here.
                traced = not is_known(error)
                _LOG.error("%s: %s: %s", name, order.step, error, extra=place, exc_info=traced)
                in_attempt = order.attempt > 0
                self._transport.words.append(Failed(GENERIC) if in_attempt else Refused(GENERIC))
            break
        words = list(self._transport.words)
        return seal(self._identity, Answer(name, opened.digest, words), self._transport.messages)
