"""Asking custodians: for keys before any site trains, and for their word before any site opens.

So a refusal costs no budget, or opens nothing. It ends the run, as in the embedded engine; a
custodian that was merely away, or lost its keys, ends the attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from fmfl_secure.errors import RunError
from fmfl_secure.runtime.attempt_state import ServerAttempt
from fmfl_secure.runtime.task_board import Assignment, Document, Step, TaskBoard
from fmfl_secure.runtime.waiting import AttemptOver, RoundSpent, Waiter

# What a custodian says that cannot go on with an attempt, and does not refuse.
SPENT: Final = "spent"  # it gave its word in this round, for an attempt that is over
LOST: Final = "lost"  # its keys of this attempt, in a restart


class CustodianRequests:
    """The server's side towards custodians; does nothing where a plan names none.

    Args:
        board: Where they look for what to do.
        waiting: Waits for them.
    """

    def __init__(self, board: TaskBoard, waiting: Waiter) -> None:
        self._board = board
        self._waiting = waiting

    def collect_keys(self, attempt: ServerAttempt) -> None:
        """Wait for the custodians' single-use keys (step 4).

        Raises:
            RunError: One refuses.
            AttemptOver: One did not come, or gave its word in this round already.
        """
        if not attempt.custodians:
            return
        plan = attempt.plan
        task = Assignment(
            step=Step.READY,
            run=plan.run,
            round=plan.round,
            attempt=plan.attempt,
            documents={"plan": Document([attempt.message])},
        )
        self._board.assign(attempt.custodians, task)
        self._require(attempt, lambda: attempt.custodian_readies, "announce")

    def collect_approvals(self, attempt: ServerAttempt) -> None:
        """Wait for the custodians' word for the list that was confirmed (step 6).

        Raises:
            RunError: One refuses.
            AttemptOver: One did not come.
        """
        if not attempt.custodians:
            return
        plan = attempt.plan
        handed = attempt.handed()
        for name in attempt.custodians:
            task = Assignment(
                step=Step.APPROVE,
                run=plan.run,
                round=plan.round,
                attempt=plan.attempt,
                documents={
                    "plan": Document([attempt.message]),
                    "cohort": Document([attempt.cohort_message or b""]),
                    "list": Document([attempt.confirmation or b""]),
                    "exchanges": Document(handed[name]),
                },
                sizes=[len(message) for message in handed[name]],
            )
            self._board.assign([name], task)
        self._require(attempt, lambda: attempt.approvals, "approve")

    def _require(
        self, attempt: ServerAttempt, here: Callable[[], Collection[str]], step: str
    ) -> None:
        try:
            self._waiting.require(attempt, attempt.custodians, here, step)
        except AttemptOver as over:
            present = here()
            failed = self._waiting.failed(attempt)
            codes = {n: failed[n].decode() for n in attempt.custodians if n in failed}
            for name, code in codes.items():
                if name in present or code == LOST:
                    continue
                if code == SPENT:
                    raise RoundSpent(f"{name} gave its word for an attempt that is over") from over
                raise RunError(
                    f"the custodian {name} does not let round {attempt.plan.round} open",
                    hint="All custodians must agree before a sum opens: ask this one why.",
                ) from over
            raise
