"""Absurd figures in everything that comes in signed: refused by name, or shown for what they are.

Every figure of every structure is replaced by each absurd value, and signed again by whoever may
sign it: what answers is a typed error, or a page.
"""

from __future__ import annotations

import json

import msgspec
import pytest
from absurd import absurd
from test_report_records import ALL, a_grant, a_site, a_statement, an_audit, finished

from aggregation import Identity
from fmfl_secure.errors import Problem, RunError
from fmfl_secure.report import plots
from fmfl_secure.report.dpia import render_dpia
from fmfl_secure.report.page import render_html
from fmfl_secure.run.audit_check import decode_audit
from fmfl_secure.run.audit_record import encode_audit
from fmfl_secure.run.record import decode_record, encode_record
from fmfl_secure.run.site_notes import read_site_note
from fmfl_secure.runtime.inbox import CLOSED, Inbox, SignedStatement, statements
from fmfl_secure.storage.message_memory import MemoryMessageStore
from privacy.auditing import AuditDesign


def encoded(form) -> bytes:
    return json.dumps(form).encode()


@pytest.mark.parametrize(
    ("name", "every"),
    [("finished", 97), ("audited", 89), ("distributed_noise", 83)]
    + [pytest.param(name, 3, marks=pytest.mark.slow) for name in ALL],
)
def test_a_record_with_an_absurd_figure_is_refused_or_makes_a_page(
    name, every, monkeypatch
) -> None:
    for plot in ("epsilon_plot", "budget_plot", "utility_plot"):  # below: they take long
        monkeypatch.setattr(plots, plot, lambda *_: "")
    record = json.loads(encode_record(ALL[name]()))
    tried = refused = 0
    for where, value, form in absurd(record, every=every):
        tried += 1
        try:
            found = decode_record(encoded(form))
            assert render_html(found), (where, value)
            assert render_dpia(found), (where, value)
            encode_record(found)
        except RunError:
            refused += 1
        except Exception as error:
            error.add_note(f"at {where}: {value!r}")
            raise
    assert tried / 2 < refused < tried


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("every", "1"),
        ("every", []),
        ("every", None),
        ("every", -1),
        pytest.param("holdout", 10**400, id="holdout-huge"),
        ("holdout", "much"),
        ("measures", [1]),
    ],
)
def test_a_record_whose_settings_ask_what_cannot_be_is_refused(name, value) -> None:
    record = json.loads(encode_record(ALL["answered"]()))
    record["settings"]["evaluation"][name] = value
    with pytest.raises(RunError, match="not a run's record"):
        decode_record(encoded(record))


@pytest.mark.parametrize("epsilon", [0.0, 1e-320, 1e9, 1e12, float("inf")])
def test_plots_of_the_largest_figures_that_are_taken(epsilon) -> None:
    statement = msgspec.structs.replace(
        a_statement("clinic-a"),
        grants=(a_grant(1e9, spent=epsilon, charged=epsilon),),
        epsilon_by_round=(0.0, epsilon),
        epsilon_before=epsilon,
        pld_epsilon_life=epsilon,
    )
    assert render_html(finished(sites=(a_site("clinic-a", statement),)))


def test_an_audit_with_an_absurd_figure_is_refused_or_holds() -> None:
    honest = an_audit()
    design = AuditDesign(
        canaries=honest.canaries,
        guesses_in=honest.guesses_in,
        guesses_out=honest.guesses_out,
        delta=honest.delta,
        confidence=honest.confidence,
    )
    honest = an_audit(lower_bound=design.bound(honest.correct))
    assert decode_audit(encode_audit(honest)) == honest
    tried = refused = 0
    for where, value, form in absurd(json.loads(encode_audit(honest))):
        tried += 1
        try:
            decode_audit(encoded(form))
        except RunError:
            refused += 1
        except Exception as error:
            error.add_note(f"at {where}: {value!r}")
            raise
    assert tried / 2 < refused < tried


class _Site:
    """A site that signs anything, at the server's inbox."""

    def __init__(self) -> None:
        self.identity = Identity.generate("clinic-a")
        self.store = MemoryMessageStore()
        self.inbox = Inbox(self.store, part_bytes=1 << 20)
        self.inbox.open_run("cafe0123", {"clinic-a": self.identity.public})

    def state(self, form, *, final: bool = False) -> None:
        body = b"fmfl-secure/site-statement/v1\0" + msgspec.json.encode(form, order="sorted")
        signed = SignedStatement(form, self.identity.sign(body).hex())
        self.inbox.state("clinic-a", "cafe0123", signed, final=final)


def test_a_statement_with_an_absurd_figure_is_kept_or_said_not_to_be_shown() -> None:
    site = _Site()
    honest = msgspec.to_builtins(a_statement("clinic-a"))
    tried = refused = 0
    for where, value, form in absurd(honest):
        tried += 1
        try:
            site.state(form)
        except Problem as problem:
            assert problem.reason == "not-shown"  # noqa: PT017 - it need not be raised
            refused += 1
            stated = statements(site.store, "cafe0123")["clinic-a"]
            assert stated.statement is None
            assert len(stated.not_shown) > 10, (where, value)
        except Exception as error:
            error.add_note(f"at {where}: {value!r}")
            raise
        else:
            assert statements(site.store, "cafe0123")["clinic-a"].statement is not None
    assert tried / 2 < refused < tried
    site.state(honest)
    assert statements(site.store, "cafe0123")["clinic-a"].statement == a_statement("clinic-a")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pld_epsilon_life": 1e308}, "pld_epsilon_life is 1e+308"),
        ({"epsilon_before": -1.0}, "epsilon_before"),
        ({"epsilon_by_round": [2.0, 1.0]}, "epsilon_by_round does not grow"),
        ({"head_sequence": 0}, "head_sequence"),
        ({"site": "clinic-b"}, "another site"),
        ({"unknown\n": 1}, "unknown?"),
        ({"unit": "x" * 100_000}, "unit"),
    ],
    ids=["huge", "negative", "shrinking", "no-records", "another", "unknown", "long"],
)
def test_a_site_that_closes_with_what_cannot_be_shown_has_closed(change, named) -> None:
    site = _Site()
    honest = msgspec.to_builtins(a_statement("clinic-a"))
    site.state(honest)
    with pytest.raises(Problem, match="not shown"):
        site.state(honest | change, final=True)
    stated = statements(site.store, "cafe0123")["clinic-a"]
    assert named in stated.not_shown
    assert len(stated.not_shown) <= 300
    assert "clinic-a" in site.store.notes("cafe0123", CLOSED)


def test_an_infinite_epsilon_is_one_without_a_bound() -> None:
    site = _Site()
    honest = msgspec.to_builtins(a_statement("clinic-a"))
    site.state(json.loads(json.dumps(honest | {"pld_epsilon_life": None})))  # as HTTPS brings it
    assert statements(site.store, "cafe0123")["clinic-a"].statement.pld_epsilon_life == float("inf")


def test_what_an_earlier_version_kept_unlooked_at_is_not_shown() -> None:
    statement = msgspec.to_builtins(a_statement("clinic-a")) | {"pld_epsilon_life": 1e308}
    kept = {"visibility": "private", "refusal": None, "statement": statement, "signature": "00"}
    note = read_site_note(msgspec.msgpack.encode(kept))
    assert note.statement is None
    assert "pld_epsilon_life is 1e+308" in note.not_shown


def test_a_report_says_which_statement_is_not_shown() -> None:
    silent = a_site("clinic-a", None, not_shown="pld_epsilon_life is <b>1e+308</b>")
    others = tuple(site for site in finished().sites if site.name != "clinic-a")
    record = finished(sites=(silent, *others))
    assert decode_record(encode_record(record)) == record
    text = render_html(record)
    assert "clinic-a&#39;s statement is not shown: pld_epsilon_life is &lt;b&gt;1e" in text
    assert "Not shown for clinic-a" in text
    assert "not shown" in render_dpia(record)
