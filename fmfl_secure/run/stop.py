"""A signed stop of a run, by its coordinator or any custodian: nobody begins a round after it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import ClassVar, Final

import msgspec

from aggregation import Identity, PublicIdentity
from fmfl_secure.errors import Nature, RunError
from fmfl_secure.outside import MALFORMED

_DOMAIN: Final = b"fmfl-secure/run-stop/v1\x00"
_SIGNATURE_BYTES: Final = 64  # Ed25519
_RUN: Final = re.compile(r"[0-9a-z-]{1,64}\Z")
MOST_REASON: Final = 500  # characters; others read it
MOST_STOP: Final = 1 << 13  # bytes of a signed stop


class RunHalted(RunError):
    """Somebody whose word counts has stopped the run."""

    nature: ClassVar[Nature] = "decided"
    code = "stopped"


class RunStop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of a signed stop.

    Attributes:
        run: Run id.
        party: Who stopped it: `coordinator`, or a custodian's name.
        reason: Why, in that party's words. Others read it.
        at: UTC time.
    """

    run: str
    party: str
    reason: str
    at: str


def sign_stop(identity: Identity, run: str, party: str, reason: str) -> bytes:
    """Stop a run, as its coordinator or a custodian.

    Raises:
        RunError: The run's id is none, or the reason is empty or long.
    """
    if not _RUN.match(run):
        raise RunError(
            f"{run!r} is no id of a run", hint="Take it from its report or from ledger show."
        )
    if not reason.strip() or len(reason) > MOST_REASON:
        raise RunError(
            f"--reason has {len(reason)} characters, expected 1 to {MOST_REASON}",
            hint="Say why in a sentence: everybody who takes part reads it.",
        )
    stop = RunStop(run, party, reason.strip(), datetime.now(UTC).isoformat(timespec="seconds"))
    body = msgspec.json.encode(stop)
    return identity.sign(_DOMAIN + body) + body


def read_stop(statement: bytes, *, may_stop: dict[str, PublicIdentity]) -> RunStop:
    """Check a stop.

    Args:
        statement: What was signed.
        may_stop: Whose word counts, by name: the coordinator and the custodians, as pinned here.

    Raises:
        RunError: It is malformed, or of somebody whose word does not count.
        AggregationError: It is not signed by whom it names.
    """
    if len(statement) > MOST_STOP:
        raise RunError(f"the stop has {len(statement)} bytes", hint="Ask for it again.")
    signature, body = statement[:_SIGNATURE_BYTES], statement[_SIGNATURE_BYTES:]
    try:
        stop = msgspec.json.decode(body, type=RunStop)
    except MALFORMED as error:
        raise RunError("the stop is malformed", hint="Ask for it again.") from error
    if stop.party not in may_stop or not _RUN.match(stop.run):
        raise RunError(
            f"{stop.party!r} stops no run here: the coordinator and custodians do",
            hint="Compare whom this party trusts: fmfl-secure members show.",
        )
    may_stop[stop.party].verify(signature, _DOMAIN + body)
    return stop
