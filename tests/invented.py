"""A server that names a run which nobody called, before it goes on with its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fmfl_secure.runtime.run_driver import RunDriver
from fmfl_secure.runtime.task_board import Assignment, Document, Step

INVENTED = "feedfacefeedface"


def inventing(steps: Sequence[Step]) -> Callable[[RunDriver], None]:
    """What to put in place of `RunDriver._call`: these steps of an invented run come first."""
    call, left = RunDriver._call, list(steps)

    def lying(self: RunDriver) -> None:
        names = self._members().sites
        if not all(self._board.was_told(name) for name in names):
            return
        if not left:
            call(self)
            return
        step = left.pop(0)
        documents = {name: Document([name.encode()]) for name in ("plan", "adapter")}
        number = 0 if step == Step.JOIN else 1
        task = Assignment(
            step=step, run=INVENTED, round=number, attempt=number, documents=documents
        )
        self._board.assign(names, task)

    return lying
