"""The decryptor's process: it asks the server for work like a site, and listens to nobody."""

from __future__ import annotations

import logging
import threading

from typing_extensions import override

from aggregation import AggregationError, Decryptor
from fmfl_secure.errors import is_passing
from fmfl_secure.parties.decisions import Decisions
from fmfl_secure.run.stop import RunHalted
from fmfl_secure.runtime.agents.anchors import check_journal, share_journal
from fmfl_secure.runtime.agents.base import Agent, accuse, split
from fmfl_secure.runtime.task_board import APPROVAL, Step
from fmfl_secure.runtime.transport import ServerTransport, Work

_LOG = logging.getLogger("fmfl_secure.runtime.agents.decryptor")


class DecryptorAgent(Agent):
    """Announces, confirms and releases.

    Args:
        decryptor: The protocol's role.
        transport: To the server.
        stopping: Ends the loop.
        once: End after one run.
        decisions: What people decided here.
    """

    def __init__(
        self,
        decryptor: Decryptor,
        transport: ServerTransport,
        *,
        stopping: threading.Event,
        once: bool,
        decisions: Decisions | None = None,
    ) -> None:
        super().__init__(transport, stopping=stopping, once=once, decisions=decisions)
        self._decryptor = decryptor

    @property
    @override
    def party(self) -> Decryptor:
        return self._decryptor

    @override
    def do(self, work: Work) -> None:
        does = {
            Step.ANNOUNCE: self._announce,
            Step.CONFIRM: self._confirm,
            Step.RELEASE: self._release,
            Step.REVEAL: self._reveal,
        }.get(work.step)
        if does is None:
            return
        try:
            kind, message = does(work)
        except (AggregationError, RunHalted) as error:
            if is_passing(error):
                raise
            # The reason stays here; the attempt ends, and a new one has fresh keys.
            _LOG.warning("%s: %s", work.step, error, extra={"run": work.run, "round": work.round})
            self.refusal = str(error)
            accuse(self.transport, work, error)
            self.transport.fail(work, error.code)
            return
        self.refusal = ""
        self.transport.send(work, kind, message)

    def _announce(self, work: Work) -> tuple[str, bytes]:
        check_journal(self._decryptor, self.transport)
        return "announcement", self._decryptor.announce(self._fetch(work, "plan"))

    def _confirm(self, work: Work) -> tuple[str, bytes]:
        secrets = split(self._fetch(work, "secrets"), work.sizes)
        confirmation = self._decryptor.confirm(
            self._fetch(work, "cohort"), self._fetch(work, "list"), secrets
        )
        return "confirmation", confirmation

    def _release(self, work: Work) -> tuple[str, bytes]:
        check_journal(self._decryptor, self.transport)
        release = self._decryptor.release(
            self._fetch(work, "cohort"),
            self._fetch(work, "list"),
            self._fetch(work, "sum"),
            split(self._fetch(work, "chunks"), work.sizes),
            plan_message=self._fetch(work, "plan"),
            approvals=[
                self.transport.fetch(document)
                for name, document in work.documents.items()
                if name.startswith(APPROVAL)
            ],
        )
        share_journal(self._decryptor, self.transport)
        return "release", release

    def _reveal(self, work: Work) -> tuple[str, bytes]:
        plan, cohort = self._fetch(work, "plan"), self._fetch(work, "cohort")
        return "reveal", self._decryptor.reveal(plan, cohort)

    def _fetch(self, work: Work, name: str) -> bytes:
        return self.transport.fetch(work.document(name))
