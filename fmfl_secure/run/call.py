"""The coordinator's signed call to a run: without it, no site reserves anything.

Who carries messages could otherwise name runs that do not exist, and have every site hold its
whole budget for them.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from aggregation import Identity, PublicIdentity
from aggregation.protocol import prepared
from fmfl_secure.errors import RunError
from fmfl_secure.outside import MALFORMED
from fmfl_secure.settings.federation import FederationConfig

LASTS: Final = timedelta(days=7)  # a call that somebody kept is worth nothing later
_DOMAIN: Final = b"fmfl-secure/run-call/v1\x00"
_SIGNATURE_BYTES: Final = 64  # Ed25519


class RunCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of a signed call.

    Attributes:
        run: Run id.
        federation: Name of the federation.
        settings: Digest of its settings.
        base_model: Digest of the base model that its plans name.
        adapter: Digest of the adapter that it starts from.
        until: UTC time from which nobody reserves on it any more, ISO 8601.
    """

    run: str
    federation: str
    settings: str
    base_model: str
    adapter: str
    until: datetime


def sign_call(
    identity: Identity,
    run: str,
    config: FederationConfig,
    *,
    base_model: str,
    adapter: str,
    now: datetime,
) -> bytes:
    """Call the sites to a run, as the coordinator.

    Args:
        identity: The coordinator's.
        run: Run id.
        config: The federation's settings.
        base_model: Digest of the base model.
        adapter: Digest of what the run starts from.
        now: The time, with its zone.
    """
    until = now.astimezone(UTC).replace(microsecond=0) + LASTS
    call = RunCall(run, config.federation.name, config.digest, base_model, adapter, until)
    body = msgspec.json.encode(call)
    return identity.sign(_DOMAIN + body) + body


def require_call(
    statement: bytes | None,
    *,
    coordinator: PublicIdentity,
    run: str,
    config: FederationConfig,
    base_models: Collection[str],
    adapter: str,
    now: datetime,
) -> None:
    """Check the call to a run before anything is reserved for it.

    A site whose base model or start is another would refuse the first plan, when others train.

    Args:
        statement: What came; None where nothing did.
        coordinator: Whom this site pinned.
        run: The run that a budget would be reserved for.
        config: The federation's settings, as this site has them.
        base_models: Digests of its base model, by this version's rule and by 0.1.0's.
        adapter: Digest of what it would start from itself.
        now: The time, with its zone.

    Raises:
        RunError: There is none, it is malformed or over, or it is of another run, federation,
            settings, base model or start.
        AggregationError: It is not signed by the coordinator.
    """
    if statement is None:
        raise RunError(
            f"nobody has called this site to run {run}: nothing is reserved",
            hint="A server of this version sends the coordinator's signed call with a run.",
        )
    body = statement[_SIGNATURE_BYTES:]
    coordinator.verify(statement[:_SIGNATURE_BYTES], _DOMAIN + body)
    try:
        call = msgspec.json.decode(body, type=prepared(RunCall))
    except MALFORMED as error:
        raise RunError("the call to the run is malformed") from error
    for what, said, own in (
        ("run", call.run, run),
        ("federation", call.federation, config.federation.name),
        ("training settings", call.settings, config.digest),
    ):
        if said != own:
            raise RunError(
                f"the coordinator's call is to another run: its {what} is not the one here",
                hint="Compare federation.toml with that of whoever runs the coordinator.",
            )
    for what, same in (
        ("base model", call.base_model in base_models),
        ("adapter that training starts from", call.adapter == adapter),
    ):
        if not same:
            raise RunError(
                f"the {what} is not the one that the coordinator calls to",
                hint="Every party must hold the same files: compare the digest that "
                "fmfl-secure plan prints, and fetch those of model.base, or of adapter.initial, "
                "again.",
            )
    if call.until.tzinfo is None or now >= call.until:
        raise RunError(
            f"the coordinator's call to run {run} ended at {call.until}",
            hint="Check this machine's clock. A server calls anew while it runs.",
        )
