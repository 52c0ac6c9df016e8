"""What reports say of a ledger's deltas: the declared size, the reason, and what does not stand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_report_records import a_grant, finished

from aggregation import AggregationError, Identity
from fmfl_secure.report import overview, rounding, wording
from fmfl_secure.report.dataset import Source, record_of, render_dataset
from fmfl_secure.report.dataset.record import encode_dataset
from fmfl_secure.report.dpia import render_dpia
from fmfl_secure.report.model_card import model_card
from fmfl_secure.report.page import render_html as render
from fmfl_secure.run.ledger_statement import describe_ledger, sign_statement, verify_statement
from fmfl_secure.run.record import RunRecord, decode_record, encode_record
from fmfl_secure.run.statement import GrantRecord, SiteStatement
from privacy import Ledger, PoissonSampledGaussian
from privacy.ledger.chain import new_record
from privacy.ledger.tables import insert
from privacy.storage import open_store

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
EVENT = PoissonSampledGaussian(0.1, 2.0, 4)
WHY = "the board of 3 May accepted it"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """One grant above the bound, with a reason; one of delta 0.9 that was signed by hand."""
    place = tmp_path / "ledger.sqlite"
    made = Ledger.create(
        place,
        population="p",
        unit="record",
        signer=SIGNER,
        public_key=SIGNER.public_key().public_bytes_raw(),
    )
    made.grant(epsilon=3.0, delta=1e-3, population_size=1000, delta_reason=WHY)
    body = {
        "grant": 2, "epsilon": (1.0).hex(), "delta": (0.9).hex(), "orders": [6, 7], "purpose": "",
    }  # fmt: skip
    record = new_record(previous=made.records()[-1], kind="grant", body=body, signer=SIGNER)
    with open_store(place).write() as transaction:
        insert(transaction, record)
    made.reserve(run="r", event=EVENT, rounds=1, plan="p", population_size=900)
    made.commit(run="r", round=1)
    return made


def with_statement(record: RunRecord, statement: SiteStatement) -> RunRecord:
    first = msgspec.structs.replace(record.sites[0], statement=statement)
    kinds = {"task": "text-classification", "adapter": "ffa-lora"}
    settings = record.settings | {name: {"kind": kind} for name, kind in kinds.items()}
    return msgspec.structs.replace(record, sites=(first, *record.sites[1:]), settings=settings)


def test_every_report_shows_the_reason_and_what_affords_nothing(ledger: Ledger) -> None:
    statement = describe_ledger(ledger, site="clinic-a", run="r")
    record = with_statement(finished(), statement)
    dataset = record_of(Source(ledger.records()))
    bound = "above 1 / (10 x 1,000 declared units) = 0.0001"
    for text in (render(record), render_dpia(record), render_dataset(dataset)):
        assert WHY in text
        assert bound in text.replace("\\", "")
        assert "affords nothing: the deltas of the grants up to it add up to 0.901" in text
        assert "1,000 units declared" in text
    card = model_card(record, merged=False, files=())
    assert "epsilon 3 at delta 0.001, for a reason that the report gives" in card
    assert "epsilon 1 at delta 0.9, which affords nothing any more" in card
    assert dataset.population_size == 1000
    assert (dataset.guarantee_epsilon, dataset.guarantee_delta) == (3.0, 1e-3)
    assert overview.guarantee(statement) == (3.0, 1e-3)
    grants = json.loads(encode_dataset(dataset))["grants"]
    assert (grants[0]["population_size"], grants[0]["delta_reason"]) == (1000, WHY)
    assert "delta_reason" not in grants[1]
    assert grants[1]["objection"]


def test_without_a_reason_the_report_says_so() -> None:
    record = finished()
    statement = record.sites[0].statement
    assert statement is not None
    grant = msgspec.structs.replace(a_grant(spent=1.0), delta=0.01)
    changed = msgspec.structs.replace(statement, grants=(grant,), population_size=2500)
    assert "above 1 / (10 x 2,500 declared units) = 0.00004. No reason is recorded." in render(
        with_statement(record, changed)
    )
    sound = msgspec.structs.replace(statement, population_size=2500)
    assert "No reason is recorded" not in render(with_statement(record, sound))


def charged(epsilon: float, delta: float, number: int) -> GrantRecord:
    grant = a_grant(epsilon, spent=1.0, number=number)
    return msgspec.structs.replace(grant, delta=delta, objection="it says so")


def test_deltas_of_one_or_more_are_no_guarantee_on_any_page() -> None:
    record = finished()
    statement = record.sites[0].statement
    assert statement is not None
    grants = (charged(8.0, 0.5, 1), charged(1.0, 0.9, 2))
    changed = msgspec.structs.replace(statement, grants=grants)
    assert overview.guarantee(changed) == (math.inf, 1.0)
    assert overview.insider_guarantee(changed) == math.inf
    record = with_statement(record, changed)
    for text in (render(record), render_dpia(record), model_card(record, merged=False, files=())):
        assert "delta 1.4" not in text
        assert ">1.4<" not in text
        assert "| 1.4 |" not in text
    assert "no bound" in render(record)


def test_a_ledger_of_which_no_grant_stands_promises_nothing() -> None:
    record = finished()
    none = msgspec.structs.replace(a_grant(spent=0.0), objection="it says so", epsilon_left=0.0)
    sites = tuple(
        msgspec.structs.replace(
            site, statement=msgspec.structs.replace(site.statement, grants=(none,))
        )
        for site in record.sites
    )
    text = render(msgspec.structs.replace(record, sites=sites))
    assert "No site has stated a grant" in text
    assert "epsilon 0 at delta 0" not in text


# Statements that sites signed with 0.1.0, which knew none of these fields, stay signed.


def test_an_old_statement_is_encoded_as_it_was_signed() -> None:
    record = finished()
    text = encode_record(record).decode()
    for field in ("delta_reason", "objection"):
        assert field not in text
    statement = record.sites[0].statement
    assert statement is not None
    assert "population_size" not in msgspec.json.encode(statement).decode()
    assert decode_record(text.encode()) == record


def test_what_a_statement_says_of_its_deltas_is_signed(ledger: Ledger) -> None:
    identity = Identity.generate("clinic-a")
    statement = describe_ledger(ledger, site="clinic-a", run="r")
    signature = sign_statement(identity, statement)
    verify_statement(identity.public, statement, signature)
    assert statement.population_size == 1000
    first = msgspec.structs.replace(statement.grants[0], delta_reason="all is well")
    for changed in (
        {"population_size": 10},
        {"population_size": msgspec.UNSET},
        {"grants": (first, *statement.grants[1:])},
    ):
        with pytest.raises(AggregationError):
            verify_statement(
                identity.public, msgspec.structs.replace(statement, **changed), signature
            )


LOST = "9:" + "ab" * 32


def lower_and_grant_shares(ledger: Ledger) -> None:
    ledger.commit(run="a", round=1)
    ledger.lower(1, epsilon=5.0, reason="a smaller study")
    ledger.grant(epsilon=1.0, delta=1e-5, insider_epsilon=2.0)


@pytest.mark.parametrize(
    ("happens", "insiders"),
    [
        (lambda ledger: ledger.commit(run="a", round=1), 8.0),
        # Other sites see all that everyone sees, of a grant that was lowered too.
        (lower_and_grant_shares, 10.0),
        (lambda ledger: ledger.recover([LOST], reason="r", losses=[(1, EVENT, 200)]), None),
        (lambda ledger: ledger.recover([LOST], reason="r", losses=None), math.inf),
        (lambda ledger: ledger.record_non_private(run="b", reason="r"), math.inf),
    ],
    ids=["as granted", "lowered", "recovered beyond", "everything lost", "without noise"],
)
def test_a_report_promises_no_less_than_its_ledger_counts(
    tmp_path: Path, happens: Callable[[Ledger], object], insiders: float | None
) -> None:
    identity = Identity.generate("clinic-a")
    ledger = Ledger.create(
        tmp_path / "ledger.sqlite",
        population="p",
        unit="record",
        signer=identity,
        public_key=identity.public.key,
    )
    ledger.grant(epsilon=8.0, delta=1e-5, population_size=1000)
    ledger.reserve(run="a", event=EVENT, rounds=3, plan="p")
    happens(ledger)
    epsilon, delta = ledger.budget().guarantee()
    statement = describe_ledger(ledger, site="clinic-a", run="a")
    assert overview.guarantee(statement)[0] == epsilon
    assert math.isinf(epsilon) or overview.guarantee(statement) == (epsilon, delta)
    assert overview.insider_guarantee(statement) == (epsilon if insiders is None else insiders)
    record = finished()
    sites = tuple(
        msgspec.structs.replace(site, statement=msgspec.structs.replace(statement, site=site.name))
        for site in record.sites
    )
    record = msgspec.structs.replace(record, sites=sites)
    said = wording.promised(record)
    assert f"epsilon {rounding.typed(epsilon)} at delta" in said
    for text in (render(record), render_dpia(record)):
        assert math.isfinite(epsilon) or rounding.NO_BOUND in text
