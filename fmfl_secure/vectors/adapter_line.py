"""The line of runs that an adapter continues, oldest first.

The line travels with the adapter, in a file beside its tensors, so that whoever goes on from an
adapter can say what all of it cost, and not the last run alone. In a run's own folder the file has
another name: the run itself is not in it yet, and its report has to be beside it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from fmfl_secure.errors import ModelError
from fmfl_secure.outside import MALFORMED

LINE_FILE: Final = "adapter_line.json"
EARLIER_FILE: Final = "earlier_line.json"  # in a run's folder; earlier versions: `LINE_FILE` too
_MOST: Final = 1000


class Ancestor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run of a line.

    Attributes:
        run: Run id.
        federation: Its federation's name.
        settings_digest: Of its settings.
        adapter_digest: Of the adapter that it made.
        unit: What its privacy protects as one.
        delta: At which its epsilon was planned.
        trainings: Most rounds that one of its sites trained, repeats included.
        event: What one of them did, in `privacy`'s canonical form; null where all data were public,
            or nothing was trained.
        answers: Most answers that one of its sites gave, repeats included; absent where none was
            asked for.
        answer_event: What one of them did, likewise.
    """

    run: str
    federation: str
    settings_digest: str
    adapter_digest: str
    unit: str
    delta: Annotated[float, msgspec.Meta(ge=0, lt=1)]
    trainings: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    event: dict[str, Any] | None
    answers: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | msgspec.UnsetType = msgspec.UNSET
    answer_event: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET

    @property
    def uses(self) -> tuple[tuple[dict[str, Any], int], ...]:
        """Lists all uses of private data, and how often each; none where all data were public."""
        found = [] if self.event is None else [(self.event, self.trainings)]
        if isinstance(self.answer_event, dict):
            found.append((self.answer_event, self.answers or 0))
        return tuple(found)


class AdapterLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The adapter that a run started from, and its line.

    Attributes:
        initial_digest: Of the adapter before the first round, as every plan's first round has it.
        ancestors: The runs before, oldest first.
    """

    initial_digest: str
    ancestors: tuple[Ancestor, ...]


def encode_line(ancestors: tuple[Ancestor, ...]) -> str:
    """Encodes the line as JSON text."""
    return msgspec.json.format(msgspec.json.encode(ancestors, order="deterministic")).decode()


def decode_line(text: str | bytes) -> tuple[Ancestor, ...]:
    """Read what `encode_line` wrote.

    Raises:
        ModelError: It is something else.
    """
    try:
        found = msgspec.json.decode(text, type=tuple[Ancestor, ...])
    except MALFORMED as error:
        raise ModelError(f"{LINE_FILE} does not say what an adapter cost: {error}") from error
    if not 1 <= len(found) <= _MOST:
        raise ModelError(f"{LINE_FILE} names {len(found)} runs, expected 1 to {_MOST}")
    return found
