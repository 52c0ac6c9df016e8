"""What a report says of who drew the parties' keys, and who compared them."""

from __future__ import annotations

from test_report_records import finished

from fmfl_secure.report import render_html
from fmfl_secure.report.wording import warnings
from fmfl_secure.run.keys_record import Comparison, KeysRecord
from fmfl_secure.run.record import decode_record, encode_record


def compared(party: str, **changes: object) -> Comparison:
    fields = {"drew_own_keys": True, "heard_from": "coordinator", "at": "2026-11-29T10:00:00+00:00"}
    return Comparison(party=party, **{**fields, **changes})  # type: ignore[arg-type]


def with_keys(**changes: object):
    fields = {"one_place": False, "fingerprint": "ab" * 32, "compared": (), "missing": ()}
    return finished(keys=KeysRecord(**{**fields, **changes}))  # type: ignore[arg-type]


def test_keys_that_all_drew_and_compared_need_no_warning() -> None:
    record = with_keys(compared=(compared("site-1"), compared("site-2")))
    assert warnings(record) == []
    page = render_html(record)
    assert "site-1 and site-2 signed (2026-11-29)" in page
    assert "2 parties signed to have drawn their own keys" in page
    assert decode_record(encode_record(record)) == record


def test_a_simulation_and_what_is_missing_are_warned_of() -> None:
    (said,) = warnings(with_keys(one_place=True))
    assert said.startswith("A simulation")
    record = with_keys(compared=(compared("site-1", drew_own_keys=False),), missing=("site-2",))
    drawn, missing = warnings(record)
    assert "keys of site-1 were drawn by somebody else" in drawn
    assert missing.startswith("site-2 had not signed")


def test_a_record_of_an_earlier_version_says_that_it_does_not_know() -> None:
    record = finished()
    assert b'"keys"' not in encode_record(record)
    (said,) = warnings(record)  # as where a coordinator takes the file away
    assert "does not say who drew the parties" in said
    assert said.replace("'", "&#39;") in render_html(record)
