"""A custodian's process: it asks the server for work like a site, and listens to nobody."""

from __future__ import annotations

import logging
import threading

from typing_extensions import override

from aggregation import ReplayError, StateError
from fmfl_secure.errors import KNOWN_ERRORS, ServiceError, is_passing
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.parties.decisions import Decisions
from fmfl_secure.run.refusal_codes import leaving_code
from fmfl_secure.runtime.agents.anchors import check_journal, share_journal
from fmfl_secure.runtime.agents.base import Agent, split
from fmfl_secure.runtime.custodian_requests import LOST, SPENT
from fmfl_secure.runtime.task_board import Step
from fmfl_secure.runtime.transport import ServerTransport, Work

_LOG = logging.getLogger("fmfl_secure.runtime.agents.custodian")


class CustodianAgent(Agent):
    """Gives keys, and its word for one list a round.

    Args:
        custodian: Who decides.
        transport: To the server.
        stopping: Ends the loop.
        once: End after one run.
        decisions: What people decided here.
    """

    def __init__(
        self,
        custodian: Custodian,
        transport: ServerTransport,
        *,
        stopping: threading.Event,
        once: bool,
        decisions: Decisions | None = None,
    ) -> None:
        super().__init__(transport, stopping=stopping, once=once, decisions=decisions)
        self._custodian = custodian

    @property
    @override
    def party(self) -> Custodian:
        return self._custodian

    @override
    def do(self, work: Work) -> None:
        does = {Step.READY: self._ready, Step.APPROVE: self._approve}.get(work.step)
        if does is None:
            return
        plan = self._fetch(work, "plan")
        place = {"run": work.run, "round": work.round, "attempt": work.attempt}
        try:
            kind, message = does(work, plan)
        except (ReplayError, StateError) as error:
            # It refuses nothing: an attempt is over, or its keys went with an earlier process.
            _LOG.warning("%s: %s", work.step, error, extra=place)
            self.transport.fail(work, SPENT if self._custodian.has_spoken(plan) else LOST)
        except KNOWN_ERRORS as error:
            if is_passing(error) or isinstance(error, ServiceError):
                raise
            self.refusal = str(error)
            _LOG.error("lets nothing open (%s): %s", work.step, error, extra=place)
            self.transport.fail(work, leaving_code(error))
        else:
            self.refusal = ""
            self.transport.send(work, kind, message)

    def _ready(self, _: Work, plan: bytes) -> tuple[str, bytes]:
        check_journal(self._custodian, self.transport)
        return "custodian-ready", self._custodian.ready(plan)

    def _approve(self, work: Work, plan: bytes) -> tuple[str, bytes]:
        exchanges = split(self._fetch(work, "exchanges"), work.sizes)
        check_journal(self._custodian, self.transport)
        approval = self._custodian.approve(
            self._fetch(work, "cohort"), self._fetch(work, "list"), exchanges, plan_message=plan
        )
        share_journal(self._custodian, self.transport)
        return "approval", approval

    def _fetch(self, work: Work, name: str) -> bytes:
        return self.transport.fetch(work.document(name))
