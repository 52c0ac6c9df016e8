"""A ledger as a document that a data-protection officer can keep, read and check without it.

It holds every record as it was signed, and beside them what they add up to: grants, runs, and
each charge with its date, its own epsilon and the grant's after it. `read_export` verifies the
records as a ledger would, adds them up again, and compares. An epsilon without a bound is null.

`cli.ledger` writes the export, and `report.dataset.build` reads it where a report on a data set is
made without the ledger.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from privacy.accounting.events import Event, NonPrivate, PoissonSampledSkellam
from privacy.accounting.rdp import epsilon_spent, rdp_bound
from privacy.errors import LedgerDamaged
from privacy.ledger.budget import Budget
from privacy.ledger.chain import Record, canonical_json, verify_lines
from privacy.ledger.charges import Charge
from privacy.ledger.entries import Reservation
from privacy.ledger.grants import GrantStatus
from privacy.mechanism.plan import RELATION

FORMAT = "fmfl-secure/ledger-export/v1"
# Between versions of the accountant figures move in their last digits.
_TOLERANCE = 1e-6
_COST = re.compile(r"\.(cost\.\d+|spent|charged|bound)$")
_COLUMNS = (
    "sequence", "at", "kind", "run", "purpose", "round", "grant", "mechanism", "sample_rate",
    "noise_multiplier", "steps", "times", "cost", "epsilon_alone", "epsilon_so_far",
)  # fmt: skip


def export_json(records: Sequence[Record]) -> str:
    """A ledger's verified records as an export; indented JSON."""
    document = {"exported": _now(), **_document(records)}
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def export_csv(records: Sequence[Record]) -> str:
    """A ledger's charges, one a line, for a spreadsheet."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for charge in _document(records)["charges"]:
        cells = charge | charge["event"]
        cells["cost"] = " ".join(f"{order}:{cost}" for order, cost in charge["cost"].items())
        writer.writerow({name: _cell(cells.get(name)) for name in _COLUMNS})
    return out.getvalue()


def read_export(text: str) -> list[Record]:
    """Verify an export by itself.

    Returns:
        Its records, verified.

    Raises:
        LedgerDamaged: It is no export, a record does not verify, or what it says beside them is
            not what they add up to.
    """
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        lines = [canonical_json(record) for record in document["records"]]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise LedgerDamaged(f"not a ledger's export: {error!r}") from error
    records = verify_lines(lines)
    said = {name: value for name, value in document.items() if name != "exported"}
    where = _difference(said, json.loads(json.dumps(_document(records))))
    if where is not None:
        raise LedgerDamaged(f"the export says at {where} other than its records add up to")
    return records


def _document(records: Sequence[Record]) -> dict[str, Any]:
    budget = Budget.replay(records)
    epsilon, delta = budget.guarantee()
    return {
        "format": FORMAT,
        "population": budget.population,
        "unit": budget.unit,
        "relation": RELATION,
        "public_key": budget.public_key.hex(),
        "head": records[-1].head,
        "guarantee": {"epsilon": _finite(epsilon), "delta": delta},
        **({} if budget.population_size is None else {"population_size": budget.population_size}),
        **_signers(budget),
        "grants": [_grant(status) for status in budget.status()],
        "runs": [_run(held) for held in budget.reservations.values()],
        "charges": list(_charges(budget, records)),
        "records": [json.loads(record.to_line()) for record in records],
    }


def _signers(budget: Budget) -> dict[str, Any]:
    """Who signs besides the opener; nothing where nobody does."""
    others = [
        {"key": each.key, "name": each.name, "custodian": each.custodian,
         "dismissed": each.dismissed}
        for each in budget.signers
        if each.name or each.dismissed is not None
    ]  # fmt: skip
    return {"signers": others} if others else {}


def _grant(status: GrantStatus) -> dict[str, Any]:
    grant = status.grant
    each = grant.filter_delta / len(grant.orders)
    extra: dict[str, Any] = {}
    if status.insider_epsilon_charged is not None:
        extra = {
            "insider_epsilon": grant.insider_epsilon,
            "insider_epsilon_spent": _finite(status.insider_epsilon_committed or 0.0),
            "insider_epsilon_charged": _finite(status.insider_epsilon_charged),
        }
    # Fields of this version only where there is something to say: exports of 0.1.0 verify.
    told = {
        "population_size": grant.population_size,
        "delta_reason": grant.delta_reason,
        **grant.decided.body(),
        "lowered_from": grant.lowered_from,
        "closed": grant.closed,
        "exact": None if grant.exact is None else grant.exact.body(),
        "cap": None if grant.cap is None else list(grant.cap),
        "affords_nothing": bool(status.objection),  # the words for why may change
    }
    extra |= {name: value for name, value in told.items() if value}
    return extra | {
        "number": grant.number,
        "at": grant.at,
        "purpose": grant.purpose,
        "epsilon": grant.epsilon,
        "delta": grant.delta,
        "epsilon_spent": _finite(status.epsilon_committed),
        "epsilon_charged": _finite(status.epsilon_charged),
        "epsilon_left": status.epsilon_left,
        # In RDP_UNIT, 10^-12 nat: what the filter compares. It admits while some order fits.
        "orders": {
            str(order): {
                "spent": status.committed[order],
                "charged": status.charged[order],
                "bound": rdp_bound(order, grant.epsilon, each),
            }
            for order in grant.orders
        },
    }


def _run(held: Reservation) -> dict[str, Any]:
    told = {
        "expires": held.expires,
        "call": held.call,
        "signer": held.signer,
        "released": held.released,
    }
    return {name: value for name, value in told.items() if value} | {
        "run": held.run,
        "at": held.at,
        "purpose": held.purpose,
        "plan": held.plan,
        "grant": held.grant,
        "event": _event(held.event),
        "rounds_reserved": held.rounds,
        "rounds_charged": held.charged_rounds,
        "trained": [{"round": number, "at": at} for number, at in held.commits],
        "open": held.open,
        "closed_by": held.evidence,
    }


def _charges(budget: Budget, records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """Everything that was spent, in order; reservations that still hold budget are in the runs."""
    spends, recoveries = iter(budget.history), iter(budget.recoveries)
    for record in records:
        if record.kind == "commit":
            held = budget.reservations[str(record.body["run"])]
            spend = next(spends)
            entry = {"run": held.run, "purpose": held.purpose, "round": spend.round}
            once = replace(held.charge, rounds=1)
            yield _charge(budget, record, once, spend.epsilon, **entry)
        elif record.kind == "recover":
            recovery = next(recoveries)
            for charge in recovery.charges:
                spend = next(spends)
                entry = {"run": "", "purpose": recovery.reason, "round": 0}
                yield _charge(budget, record, charge, spend.epsilon, **entry)
        elif record.kind == "non-private":
            body = record.body
            event = NonPrivate(str(body["reason"]))
            entry = {"run": str(body["run"]), "purpose": str(body["reason"]), "round": 0}
            unbounded: dict[str, Any] = {"cost": {}, "epsilon_alone": None, "epsilon_so_far": None}
            yield _entry(record, event, **entry) | {"grant": None, "times": 1, **unbounded}


def _charge(
    budget: Budget, record: Record, charge: Charge, so_far: float, **entry: Any
) -> dict[str, Any]:
    total = {o: None if c is None else c * charge.rounds for o, c in charge.cost.counted.items()}
    delta = budget.grants[charge.grant - 1].filter_delta
    return _entry(record, charge.event, **entry) | {
        "grant": charge.grant,
        "times": charge.rounds,
        "cost": {str(order): cost for order, cost in total.items()},
        "epsilon_alone": _finite(epsilon_spent(total, delta)),
        "epsilon_so_far": _finite(so_far),
    }


def _entry(record: Record, event: Event, **entry: Any) -> dict[str, Any]:
    seen = {"sequence": record.sequence, "at": record.at, "kind": record.kind}
    return seen | entry | {"event": _event(event)}


def _event(event: Event) -> dict[str, Any]:
    if isinstance(event, NonPrivate):
        return {"mechanism": "none"}
    if isinstance(event, PoissonSampledSkellam):
        return {
            "mechanism": "Poisson-sampled Skellam, in shares",
            "sample_rate": event.sample_rate,
            "noise_multiplier": event.noise_multiplier,
            "noise_multiplier_to_sites": event.seen_by_sites().noise_multiplier,
            "steps": event.steps,
        }
    return {
        "mechanism": "Poisson-sampled Gaussian",
        "sample_rate": event.sample_rate,
        "noise_multiplier": event.noise_multiplier,
        "steps": event.steps,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cell(value: object) -> object:
    # A spreadsheet would run a text that begins so.
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return "" if value is None else value


def _difference(said: Any, is_so: Any, where: str = "$") -> str | None:
    """The first place where two documents differ, floats up to rounding; None if nowhere."""
    if isinstance(said, dict) and isinstance(is_so, dict):
        if said.keys() != is_so.keys():
            return f"{where}: {min(map(str, said.keys() ^ is_so.keys()))}"
        pairs = [(f"{where}.{name}", said[name], is_so[name]) for name in is_so]
    elif isinstance(said, list) and isinstance(is_so, list):
        if len(said) != len(is_so):
            return where
        pairs = [(f"{where}[{n}]", a, b) for n, (a, b) in enumerate(zip(said, is_so, strict=True))]
    elif isinstance(said, float) and isinstance(is_so, float):
        close = math.isclose(said, is_so, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
        return None if close else where
    elif type(said) is int and type(is_so) is int and _COST.search(where):
        most = max(abs(said), abs(is_so))  # a bound at an order of no use is below 0
        return None if abs(said - is_so) <= _TOLERANCE * most + 1 else where
    else:
        return None if type(said) is type(is_so) and said == is_so else where
    found = (_difference(a, b, place) for place, a, b in pairs)
    return next((difference for difference in found if difference is not None), None)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
