"""An exported ledger: it says what the ledger says, and can be checked without it."""

import csv
import io
import json
import math

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy import Ledger, LedgerDamaged, PoissonSampledGaussian, epsilon_spent, rdp_cost
from privacy.accounting.rdp import add_costs
from privacy.ledger.export import export_csv, export_json, read_export

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
EVENT = PoissonSampledGaussian(0.1, 2.0, 4)
OTHER = PoissonSampledGaussian(1.0, 20.0, 1)


@pytest.fixture
def ledger(tmp_path):
    """Two grants, two runs, a recovery, and in the end a use without privacy."""
    ledger = Ledger.create(
        tmp_path / "ledger.sqlite",
        population="cardiology",
        unit="patient_id",
        signer=SIGNER,
        public_key=SIGNER.public_key().public_bytes_raw(),
    )
    ledger.grant(epsilon=3.0, delta=1e-5, population_size=1000, purpose="ethics vote 12/2026")
    ledger.reserve(run="a", event=EVENT, rounds=4, plan="plan-a", purpose="=cmd|'/c calc'!A1")
    ledger.commit(run="a", round=1)
    ledger.reserve(run="b", event=OTHER, rounds=2, plan="plan-b", purpose="second")
    ledger.commit(run="b", round=1)
    ledger.commit(run="a", round=2)
    ledger.refund(run="a", evidence="sha256:end-of-a")
    ledger.recover([f"99:{'a' * 64}"], reason="backup", losses=[(1, EVENT, 3)])
    ledger.grant(epsilon=1.0, delta=1e-6, population_size=1000)
    return ledger


def test_it_says_what_the_ledger_says(ledger):
    records = ledger.records()
    document = json.loads(export_json(records))
    assert read_export(export_json(records)) == records
    assert (document["population"], document["unit"]) == ("cardiology", "patient_id")
    assert document["head"] == "{}:{}".format(*ledger.head())
    assert document["guarantee"] == {"epsilon": 4.0, "delta": pytest.approx(1.1e-5)}
    first, second = document["grants"]
    assert (first["purpose"], first["epsilon"], first["delta"]) == (
        "ethics vote 12/2026",
        3.0,
        1e-5,
    )
    status = ledger.status()[0]
    assert first["epsilon_spent"] == status.epsilon_committed
    assert first["epsilon_charged"] == status.epsilon_charged > first["epsilon_spent"]
    assert first["epsilon_left"] == status.epsilon_left
    assert {int(o): v["charged"] for o, v in first["orders"].items()} == status.charged
    assert any(v["charged"] <= v["bound"] for v in first["orders"].values())
    assert second["epsilon_spent"] == 0.0
    run_a, run_b = document["runs"]
    assert (run_a["open"], run_a["closed_by"], run_a["plan"]) == (
        False,
        "sha256:end-of-a",
        "plan-a",
    )
    assert (run_b["open"], run_b["rounds_reserved"], run_b["rounds_charged"]) == (True, 2, 2)
    assert [each["round"] for each in run_a["trained"]] == [1, 2]


def test_every_charge_has_its_date_its_epsilon_and_the_grant_s_after_it(ledger):
    records = ledger.records()
    charges = json.loads(export_json(records))["charges"]
    assert [(c["kind"], c["run"], c["round"], c["times"]) for c in charges] == [
        ("commit", "a", 1, 1),
        ("commit", "b", 1, 1),
        ("commit", "a", 2, 1),
        ("recover", "", 0, 3),
    ]
    orders = ledger.status()[0].grant.orders
    so_far = dict.fromkeys(orders, 0)
    for charge, event in zip(charges, (EVENT, OTHER, EVENT, EVENT), strict=True):
        record = records[charge["sequence"] - 1]
        assert (record.kind, record.at) == (charge["kind"], charge["at"])
        alone = add_costs(dict.fromkeys(orders, 0), rdp_cost(event, orders), charge["times"])
        so_far = add_costs(so_far, alone)
        assert charge["cost"] == {str(order): cost for order, cost in alone.items()}
        assert charge["epsilon_alone"] == epsilon_spent(alone, 1e-5)
        assert charge["epsilon_so_far"] == epsilon_spent(so_far, 1e-5)
        assert charge["event"]["sample_rate"] == event.sample_rate
    assert so_far == ledger.status()[0].committed


def test_an_unbounded_cost_is_null_and_still_verifies(ledger):
    ledger.record_non_private(run="baseline", reason="debugging")
    ledger.recover([f"98:{'b' * 64}"], reason="unknown", losses=None)
    text = export_json(ledger.records())
    document = json.loads(text)
    assert document["guarantee"]["epsilon"] is None
    assert {grant["epsilon_spent"] for grant in document["grants"]} == {None}
    last = document["charges"][-3:]
    assert [c["kind"] for c in last] == ["non-private", "recover", "recover"]
    assert {c["epsilon_so_far"] for c in last} == {None}
    assert last[0]["purpose"] == "debugging"
    assert math.inf == ledger.budget().guarantee()[0]
    assert read_export(text) == ledger.records()
    assert "baseline" in export_csv(ledger.records())


def test_an_empty_ledger_can_be_exported(tmp_path):
    ledger = Ledger.create(
        tmp_path / "empty.sqlite",
        population="p",
        unit="record",
        signer=SIGNER,
        public_key=SIGNER.public_key().public_bytes_raw(),
    )
    assert read_export(export_json(ledger.records())) == ledger.records()
    assert export_csv(ledger.records()).count("\n") == 1


def leaves(node, path=()):
    if isinstance(node, dict):
        for name, value in node.items():
            yield from leaves(value, (*path, name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from leaves(value, (*path, index))
    else:
        yield path, node


def changed(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value * 1.001 + 0.001
    if isinstance(value, int):
        return value + max(2, value // 1000)
    return "x" if value is None else value + "x"


def test_whatever_is_changed_in_an_export_is_detected(ledger):
    whole = json.loads(export_json(ledger.records()))
    checked = 0
    for path, value in list(leaves(whole)):
        if path == ("exported",):
            continue
        node = whole
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = changed(value)
        with pytest.raises(LedgerDamaged):
            read_export(json.dumps(whole))
        node[path[-1]] = value
        checked += 1
    assert checked > 150
    read_export(json.dumps(whole))
    for name in set(whole) - {"exported"}:
        with pytest.raises(LedgerDamaged):
            read_export(json.dumps({k: v for k, v in whole.items() if k != name}))
    with pytest.raises(LedgerDamaged, match="unheard"):
        read_export(json.dumps(whole | {"unheard": 1}))
    for section in ("grants", "runs", "charges", "records"):
        with pytest.raises(LedgerDamaged):
            read_export(json.dumps(whole | {section: whole[section][:-1]}))


@pytest.mark.parametrize(
    "text", ["", "x", "null", "[]", "{}", '{"format": 1}', "[" * 100_000, '{"records": []}']
)
def test_what_is_no_export_is_refused(text):
    with pytest.raises(LedgerDamaged, match="not a ledger's export"):
        read_export(text)


def test_an_export_without_records_is_refused(ledger):
    document = json.loads(export_json(ledger.records()))
    for records in ([], [5], [{}], None, "x"):
        with pytest.raises(LedgerDamaged):
            read_export(json.dumps(document | {"records": records}))


def test_the_table_of_charges(ledger):
    table = list(csv.DictReader(io.StringIO(export_csv(ledger.records()))))
    assert [row["kind"] for row in table] == ["commit", "commit", "commit", "recover"]
    assert [row["epsilon_so_far"] for row in table] == sorted(r["epsilon_so_far"] for r in table)
    assert table[0]["purpose"] == "'=cmd|'/c calc'!A1"  # as a text, and not as a formula
    assert table[0]["noise_multiplier"] == "2.0"
    orders = ledger.status()[0].grant.orders
    costs = rdp_cost(EVENT, orders)
    assert table[0]["cost"] == " ".join(f"{order}:{costs[order]}" for order in orders)
    assert all(row["at"] and row["sequence"] for row in table)


def test_figures_of_another_version_of_the_accountant_still_verify(ledger, monkeypatch):
    text = export_json(ledger.records())

    def drifting(event, orders):
        return {o: math.ceil(c * (1 + 1e-7)) for o, c in rdp_cost(event, orders).items()}

    monkeypatch.setattr("privacy.ledger.charges.rdp_cost", drifting)
    read_export(text)
