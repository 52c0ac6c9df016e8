"""Records of runs that other tests of the report start from, and their way through JSON."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import msgspec
import pytest

from fmfl_secure.run.answer_record import AnswerRecord, FigureRecord
from fmfl_secure.run.audit_record import AuditRecord
from fmfl_secure.run.record import (
    FORMAT,
    Encryption,
    Mechanism,
    RoundRecord,
    RunRecord,
    SiteRecord,
    decode_record,
    encode_record,
)
from fmfl_secure.run.statement import GrantRecord, RunCharge, SiteStatement

RUN = "2026-03-02-notes"
SITES = ("clinic-a", "clinic-b", "clinic-c", "clinic-d")


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def identity(name: str) -> str:
    return "ed25519:" + hashlib.sha256(name.encode()).hexdigest()


def curve(start: float, end: float, trainings: int) -> tuple[float, ...]:
    """Epsilon after each training, rising like a square root."""
    return tuple(
        math.sqrt(start**2 + (end**2 - start**2) * i / trainings) for i in range(1, trainings + 1)
    )


def a_grant(
    epsilon: float = 8.0,
    *,
    spent: float,
    charged: float | None = None,
    number: int = 1,
    purpose: str = "Note classification, first study",
) -> GrantRecord:
    charged = spent if charged is None else charged
    return GrantRecord(
        number=number,
        epsilon=epsilon,
        delta=1e-5,
        purpose=purpose,
        at="2026-02-20T09:00:00Z",
        epsilon_spent=spent,
        epsilon_charged=charged,
        epsilon_left=max(0.0, epsilon - charged),
    )


def a_charge(run: str = RUN, **changes: Any) -> RunCharge:
    values: dict[str, Any] = {
        "run": run,
        "grant": 1,
        "purpose": "Baseline adapter",
        "at": "2026-03-02T08:00:05Z",
        "rounds_reserved": 7,
        "rounds_trained": (1, 2, 3, 4, 5, 6),
        "open": False,
    }
    return RunCharge(**(values | changes))


def a_statement(name: str, **changes: Any) -> SiteStatement:
    values: dict[str, Any] = {
        "site": name,
        "population": f"patients of {name}",
        "unit": "record",
        "grants": (a_grant(spent=2.7881234),),
        "runs": (a_charge(),),
        "epsilon_by_round": curve(0.0, 2.7881234, 6),
        "epsilon_before": 0.0,
        "pld_epsilon_run": 2.4312,
        "pld_epsilon_life": 2.4312,
        "head_sequence": 10,
        "head_digest": digest(name + " head"),
        "verified": True,
    }
    return SiteStatement(**(values | changes))


def a_site(name: str, statement: SiteStatement | None, **changes: Any) -> SiteRecord:
    values: dict[str, Any] = {
        "name": name,
        "population": 2500,
        "identity": identity(name),
        "public_key": "ed25519:" + "A" * 43 + "=",
        "visibility": "private",
        "rounds": (1, 2, 3, 4, 5, 6),
        "refusal": None,
        "statement": statement,
        "statement_signature": "" if statement is None else "5a" * 64,
    }
    return SiteRecord(**(values | changes))


def a_round(number: int, cohort: tuple[str, ...] = SITES, **changes: Any) -> RoundRecord:
    values: dict[str, Any] = {
        "round": number,
        "status": "released",
        "attempts": 1,
        "cohort": cohort,
        "refusals": {},
        "adapter_digest": digest(f"adapter {number}"),
        "release_digest": digest(f"release {number}"),
        "metrics": {
            "accuracy": 0.87 - 0.37 * math.exp(-number / 2),
            "loss": 0.34 + 0.35 * math.exp(-number / 2),
        },
        "at": f"2026-03-02T08:{10 + 5 * number:02d}:00Z",
    }
    return RoundRecord(**(values | changes))


def a_mechanism(epsilon: float = 3.0, **changes: Any) -> Mechanism:
    values: dict[str, Any] = {
        "noise": "local",
        "unit": "record",
        "relation": "add-or-remove-one-unit",
        "target_epsilon": epsilon,
        "delta": 1e-5,
        "sample_rate": 0.1,
        "noise_multiplier": 1.4142,
        "max_grad_norm": 1.0,
        "steps_per_round": 4,
        "rounds": 6,
        "repeats": 1,
    }
    return Mechanism(**(values | changes))


def finished(**changes: Any) -> RunRecord:
    """Four sites that trained alike and finished."""
    values: dict[str, Any] = {
        "format": FORMAT,
        "federation": "clinics",
        "run": RUN,
        "status": "finished",
        "stop_reason": "",
        "started": "2026-03-02T08:00:00Z",
        "updated": "2026-03-02T08:41:00Z",
        "settings": {
            "federation": {"name": "clinics", "rounds": 6, "min_sites": 3, "seed": 1},
            "task": {"labels": ["normal", "urgent"], "unit": "record"},
            "privacy": {"noise": "local", "epsilon": 3.0, "delta": 1e-5},
            "sites": [{"name": name, "population": 2500} for name in SITES],
        },
        "settings_digest": digest("settings"),
        "base_model": "minilm",
        "base_model_digest": digest("model"),
        "layout_digest": digest("layout"),
        "mechanism": a_mechanism(),
        "encryption": Encryption(
            suite="ckks-pk",
            parameter_set="ckks-pk-4096-60-20",
            poly_modulus_degree=4096,
            coeff_mod_bit_sizes=(60, 20),
            security_bits=128,
            bits=16,
            parameters=19_202,
            upload_bytes=147_640,
        ),
        "sites": tuple(a_site(name, a_statement(name)) for name in SITES),
        "rounds": tuple(a_round(number) for number in range(1, 7)),
        "initial_metrics": {"accuracy": 0.5, "loss": 0.6931},
        "evaluation": "heldout.jsonl",
        "identities": {role: identity(role) for role in ("coordinator", "aggregator", "decryptor")},
        "versions": {"fmfl-secure": "0.1.0", "torch": "2.13.0", "tenseal": "0.3.18"},
    }
    return RunRecord(**(values | changes))


def refused() -> RunRecord:
    """One of four sites had nothing left and refused."""
    three = SITES[:3]
    poor = a_statement(
        "clinic-d",
        grants=(a_grant(1.0, spent=0.9812),),
        runs=(a_charge("2025-11-pilot", rounds_reserved=4, rounds_trained=(1, 2, 3, 4)),),
        epsilon_by_round=(),
        epsilon_before=0.9812,
        pld_epsilon_run=0.0,
        pld_epsilon_life=0.91,
    )
    return finished(
        sites=(
            *(a_site(name, a_statement(name)) for name in three),
            a_site("clinic-d", poor, rounds=(), refusal="budget"),
        ),
        rounds=tuple(a_round(n, three, refusals={"clinic-d": "budget"}) for n in range(1, 7)),
    )


def interrupted() -> RunRecord:
    """Stopped by a crash after three rounds, one of them trained twice at one site."""
    held = a_grant(spent=1.9, charged=2.9971)
    again = a_grant(spent=2.2, charged=2.9971)
    statements = [
        a_statement(
            name,
            grants=(held,),
            runs=(a_charge(rounds_trained=(1, 2, 3), open=True),),
            epsilon_by_round=curve(0, 1.9, 3),
        )
        for name in SITES[:3]
    ]
    statements.append(
        a_statement(
            "clinic-d",
            grants=(again,),
            runs=(a_charge(rounds_trained=(1, 2, 2, 3), open=True),),
            epsilon_by_round=curve(0, 2.2, 4),
        )
    )
    return finished(
        status="interrupted",
        sites=tuple(a_site(one.site, one, rounds=(1, 2, 3)) for one in statements),
        rounds=(a_round(1), a_round(2, attempts=2), a_round(3)),
    )


def without_privacy() -> RunRecord:
    """A baseline without noise on public data."""
    return finished(
        mechanism=a_mechanism(noise="none", noise_multiplier=0.0),
        sites=tuple(a_site(name, None, visibility="public") for name in SITES),
    )


def without_evaluation() -> RunRecord:
    """No public evaluation set, so no figures."""
    return finished(
        evaluation="",
        initial_metrics={},
        rounds=tuple(a_round(number, metrics={}) for number in range(1, 7)),
    )


def answered() -> RunRecord:
    """Without public data, and with answers of the sites on whom they set apart."""

    def answer(number: int, trained: int, value: float) -> AnswerRecord:
        share = FigureRecord(value, (value - 0.03, value + 0.03), (value - 0.05, value + 0.05))
        none = FigureRecord(None, None, None)
        found = {"accuracy": {"accuracy": share}, "subgroups": {"accuracy, sex <f>": none}}
        return AnswerRecord(number, trained, 4, 0.31, found)

    return finished(
        evaluation="",
        settings={"evaluation": {"data": "sites", "holdout": 0.2, "every": 3}},
        initial_metrics={},
        rounds=tuple(a_round(number, metrics={}) for number in range(1, 7)),
        answers=(answer(4, 3, 0.52), answer(8, 6, 0.61)),
    )


def multi_run() -> RunRecord:
    """Ledgers with a history: earlier runs, a second grant, different budgets, another unit."""
    histories = {
        "clinic-a": (6.0, 1.2, 3.1),
        "clinic-b": (3.0, 0.0, 2.7881234),
        "clinic-c": (8.0, 4.9, 6.33),
        "clinic-d": (4.0, 0.6, 2.95),
    }
    sites = []
    for name, (granted, before, after) in histories.items():
        runs = [a_charge()]
        if before:
            runs.insert(
                0,
                a_charge(
                    "2025-11-04-pilot",
                    at="2025-11-04T10:00:00Z",
                    purpose="Pilot: learning rate",
                    rounds_reserved=5,
                    rounds_trained=(1, 2, 3),
                ),
            )
        grants = [a_grant(granted, spent=after)]
        if name == "clinic-c":
            runs.append(a_charge("2026-03-01-imaging", grant=2, rounds_trained=(1,), open=True))
            grants.append(
                a_grant(2.0, spent=0.4, charged=1.1, number=2, purpose="Discharge letters")
            )
        sites.append(
            a_site(
                name,
                a_statement(
                    name,
                    unit="patient_id",
                    grants=tuple(grants),
                    runs=tuple(runs),
                    epsilon_before=before,
                    epsilon_by_round=curve(before, after, 6),
                    pld_epsilon_life=after * 0.88,
                    head_sequence=31,
                ),
            )
        )
    return finished(sites=tuple(sites), mechanism=a_mechanism(unit="patient_id"))


def distributed_noise() -> RunRecord:
    """Shares of noise: two figures, and ledgers that differ in the second."""
    sites = []
    for name, insider_spent in zip(SITES, (5.4321234, 5.4321234, 7.1, 5.4321234), strict=True):
        grant = msgspec.structs.replace(
            a_grant(3.0, spent=0.9876),
            insider_epsilon=9.5,
            insider_epsilon_spent=insider_spent,
            insider_epsilon_charged=insider_spent,
        )
        statement = a_statement(name, grants=(grant,), epsilon_by_round=curve(0.0, 0.9876, 6))
        sites.append(a_site(name, statement))
    mechanism = a_mechanism(
        1.0, noise="distributed", steps_per_round=1, colluding_sites=1, insider_epsilon=7.2
    )
    return finished(mechanism=mechanism, sites=tuple(sites))


def an_audit(**changes: Any) -> AuditRecord:
    values: dict[str, Any] = {
        "format": 1,
        "federation": "clinic-notes",
        "run": RUN,
        "settings_digest": digest("settings"),
        "base_model_digest": digest("base"),
        "at": "2026-03-02T12:00:00+00:00",
        "version": "0.1.0",
        "unit": "record",
        "rounds": 6,
        "steps": 24,
        "sample_rate": 0.1,
        "noise_multiplier": 1.4142,
        "claimed_epsilon": 2.4312,
        "charged_epsilon": 2.7881234,
        "delta": 1e-5,
        "canaries": 1000,
        "spare_canaries": 0,
        "records_per_canary": 1,
        "guesses_in": 200,
        "guesses_out": 0,
        "correct": 138,
        "confidence": 0.95,
        "lower_bound": 0.4999,
        "verdict": "below-claim",
        "expected_without_noise": 4.17,
        "expected_noise_eighth": 4.1712,
        "expected_noise_half": 1.11,
        "expected_correct": 0.37,
        "cpu_s": 9.0,
    }
    return AuditRecord(**(values | changes))


def audited() -> RunRecord:
    return msgspec.structs.replace(finished(), audit=an_audit())


def refuted() -> RunRecord:
    audit = an_audit(correct=200, lower_bound=4.1712, verdict="above-claim", spare_canaries=17)
    return msgspec.structs.replace(multi_run(), audit=audit)


ALL = {
    one.__name__: one
    for one in (
        finished, refused, interrupted, without_privacy, without_evaluation, answered, multi_run,
        audited,
        refuted, distributed_noise,
    )
}  # fmt: skip


@pytest.mark.parametrize("build", ALL.values(), ids=ALL)
def test_record_survives_json(build: Any) -> None:
    record = build()

    assert decode_record(encode_record(record)) == record


def test_json_is_readable_and_sorted() -> None:
    data = encode_record(finished())

    assert data.startswith(b'{\n  "audit": null,\n  "base_model"')
    assert data.endswith(b"}\n")
    assert list(msgspec.json.decode(data)) == sorted(msgspec.json.decode(data))


def test_an_exhausted_second_figure_survives_json_as_infinite() -> None:
    record = distributed_noise()
    grant = msgspec.structs.replace(
        a_grant(3.0, spent=math.inf),
        insider_epsilon=9.5,
        insider_epsilon_spent=math.inf,
        insider_epsilon_charged=math.inf,
    )
    sites = (a_site(SITES[0], a_statement(SITES[0], grants=(grant,))),)
    exhausted = msgspec.structs.replace(record, sites=sites)

    assert decode_record(encode_record(exhausted)) == exhausted
