"""Whose keys a kit's party trusts: drawn by their owners or not, and compared or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aggregation import AggregationError
from fmfl_secure.doctor.machine import Finding
from fmfl_secure.errors import FmflError
from fmfl_secure.provisioning.ceremony import require_comparison, standing
from fmfl_secure.provisioning.own_keys import drew_own_keys
from fmfl_secure.provisioning.simulated import WARNING, is_simulation


def examine_keys(kit: Path) -> Iterator[Finding]:
    """Check a kit's keys. Yields nothing for a federation's folder of `init`.

    Args:
        kit: A party's kit, or its folder before its request was answered.
    """
    if is_simulation(kit):
        advice = "Public or invented data only; else begin with fmfl-secure request."
        yield Finding("keys", "question", f"A SIMULATION: {WARNING}", advice)
    if not drew_own_keys(kit):
        return
    if not (kit / "tls" / "certificate.pem").exists():
        advice = "Send the request to whoever provisions; then fmfl-secure accept."
        yield Finding("keys", "missing", "drawn here, and not answered yet", advice)
        return
    try:
        found = standing(kit)
        require_comparison(kit)
    except (FmflError, AggregationError) as error:
        yield Finding("keys", "fault", str(error), getattr(error, "hint", ""))
        return
    drawn = sorted(n for n, one in found.compared.items() if not one.drew_own_keys)
    if drawn:
        advice = "Ask who has them: whoever does can sign in their place."
        yield Finding("keys", "fault", f"not drawn by their owners: {', '.join(drawn)}", advice)
    if found.missing:
        advice = "fmfl-secure ceremony collect takes what they signed."
        missing = f"no signed comparison here of {', '.join(found.missing)}"
        yield Finding("keys", "missing", missing, advice)
    elif not drawn:
        yield Finding("keys", "ok", f"drawn and compared by all {len(found.compared)} parties")
