"""The page: well-formed, self-contained, escaped, deterministic, complete."""

from __future__ import annotations

import dataclasses
import functools
import html
from collections.abc import Callable

import html_page
import msgspec
import pytest
from html_page import Page
from test_report_records import (
    ALL,
    SITES,
    a_charge,
    a_grant,
    a_mechanism,
    a_round,
    a_site,
    a_statement,
    finished,
    interrupted,
    multi_run,
    refused,
    without_evaluation,
    without_privacy,
)

from fmfl_secure.report import overview, render_html
from fmfl_secure.report.inert import active_parts
from fmfl_secure.report.plots import epsilon_plot
from fmfl_secure.run.record import RunRecord
from fmfl_secure.run.statement import RecoveryNote


@functools.cache
def page_of(name: str) -> str:
    """A page is drawn once and then read by many tests."""
    return render_html(ALL[name]())


def text_of(record: RunRecord) -> str:
    return Page(render_html(record)).text


@pytest.fixture(params=ALL)
def page(request: pytest.FixtureRequest) -> Page:
    return Page(page_of(request.param))


def test_headings_are_in_order(page: Page) -> None:
    html_page.headings_are_in_order(page)


def test_ids_are_unique_and_references_exist(page: Page) -> None:
    html_page.ids_are_unique_and_references_exist(page)


def test_tables_have_captions_and_scopes(page: Page) -> None:
    html_page.tables_have_captions_and_scopes(page)


def test_plots_have_a_name_and_a_text(page: Page) -> None:
    for attrs in page.named("svg"):
        assert attrs["role"] == "img"
        assert attrs["aria-labelledby"]
    assert len(page.named("desc")) == len(page.named("svg"))


@pytest.mark.parametrize("name", ALL)
def test_page_needs_nothing_from_outside(name: str) -> None:
    html_page.needs_nothing_from_outside(page_of(name))
    assert active_parts(page_of(name)) == []  # whoever verifies it takes no other


@pytest.mark.parametrize("name", ALL)
def test_same_record_gives_the_same_page(name: str) -> None:
    assert render_html(ALL[name]()) == page_of(name)


def test_everything_from_outside_is_escaped() -> None:
    evil = '<script>alert("x")</script>&\'"'
    statement = a_statement(
        evil,
        population=evil,
        unit=evil,
        grants=(a_grant(spent=1.0, purpose=evil),),
        runs=(a_charge(purpose=evil),),
        head_digest=evil,
    )
    record = finished(
        federation=evil,
        base_model=evil,
        evaluation=evil,
        status="stopped",
        stop_reason=evil,
        started=evil,
        settings={evil: {evil: [evil, {evil: evil}]}},
        mechanism=a_mechanism(unit=evil, relation=evil),
        sites=(a_site(evil, statement, identity=evil, refusal=evil, statement_signature=evil),),
        rounds=(a_round(1, (evil,), refusals={evil: evil}, metrics={evil: 1.0}),),
        initial_metrics={evil: 0.5},
        identities={evil: evil},
        versions={evil: evil},
    )

    text = render_html(record)

    assert "<script" not in text
    assert active_parts(text) == []
    assert evil in Page(text).text
    assert "alert(" in html.unescape(text)


def test_odd_names_do_not_break_the_plots() -> None:
    names = ("$x^{", "患者", "a" * 63, "line\nbreak\x07")
    sites = tuple(a_site(name, a_statement(name, epsilon_before=i)) for i, name in enumerate(names))

    assert Page(render_html(finished(sites=sites))).named("svg")


def test_sites_that_coincide_are_one_line() -> None:
    record = finished()

    text = epsilon_plot(record, overview.tracks(record))

    assert "all 4 sites: 2.789" in text
    assert "clinic-a" not in text


def test_line_of_the_grant_and_the_epsilon_before_are_named() -> None:
    record = multi_run()

    text = epsilon_plot(record, overview.tracks(record))

    for granted in (3, 4, 6, 8):
        assert f"grant: {granted}<" in text
    assert "clinic-c: 4.900 before the run, 6.330 after 6 trainings, of a grant of 8." in text


def test_many_different_sites_stay_drawable() -> None:
    sites = tuple(
        a_site(f"site-{i}", a_statement(f"site-{i}", epsilon_before=i / 10)) for i in range(30)
    )

    text = text_of(finished(sites=sites))

    assert "the 24 with least left" in text


def test_worst_site_comes_first() -> None:
    left = [one.grant.epsilon_left for one in overview.accounts(multi_run())]
    text = text_of(multi_run())

    assert left == sorted(left)
    assert "Least at clinic-b: epsilon 0.211 of 3." in text


def test_grants_of_one_ledger_add_up() -> None:
    promises = overview.promises(multi_run())

    assert promises[-1].whole_ledger
    assert (promises[-1].epsilon, promises[-1].delta) == (10.0, 2e-5)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (finished, ("Finished", "6 of 6 planned rounds released.")),
        (finished, ("had the parameters been fixed in advance", "2 epsilon", "Family of 4")),
        (finished, ("the site trusts its own installed code", "add-or-remove-one-unit")),
        (finished, ("ckks-pk-4096-60-20", "4,096", "60 + 20 bits", "128 bits (classical)")),
        (finished, ("epsilon 2.789 of 8", "epsilon 5.211 of 8")),
        (refused, ("clinic-d refused the run and was charged nothing", "3 of 4, without clinic-d")),
        (interrupted, ("Interrupted", "3 of 6 planned", "spent and stays spent", "To go on")),
        (interrupted, ("still open", "1\N{EN DASH}3; again 2", "held")),
        (without_evaluation, ("No utility figures may be shown.",)),
        (multi_run, ("(this run)", "2025-11-04-pilot", "patient_id", "Pilot: learning rate")),
    ],
)
def test_page_says(build: Callable[[], RunRecord], said: tuple[str, ...]) -> None:
    text = Page(page_of(build.__name__)).text

    for words in said:
        assert words in text


PROTOCOL_LIMITS = (
    "The base model.",
    "Timing and traffic.",
    "A poisoned update.",
    "K - 1 of K sites",
    "linear authentication code",
)
PRIVACY_LIMITS = (
    "People with several records.",
    "People at several sites.",
    "Facts about the population.",
    "A restored machine.",
    "Floating-point arithmetic.",
)


@pytest.mark.parametrize("limit", PROTOCOL_LIMITS)
def test_limits_of_the_protocol_are_always_stated(page: Page, limit: str) -> None:
    assert limit in page.text


@pytest.mark.parametrize("limit", PRIVACY_LIMITS)
def test_limits_of_privacy_are_stated_where_there_is_any(limit: str) -> None:
    assert limit in Page(page_of("finished")).text
    assert limit not in Page(page_of("without_privacy")).text


def test_the_first_page_names_all_that_is_not_protected() -> None:
    text = Page(page_of("finished")).text
    first, later = (
        text.split("1. Budget over the run")[0],
        text.split("9. What is not protected")[1],
    )
    named = first.split("What is not protected")[1]
    for limit in PRIVACY_LIMITS:
        assert limit in named
        assert limit in later


def test_person_as_unit_needs_no_word_on_several_records() -> None:
    assert "People with several records." not in Page(page_of("multi_run")).text


def test_ledger_of_another_unit_is_reported() -> None:
    site = a_site("clinic-a", a_statement("clinic-a", unit="patient_id"))

    assert "protects the unit “patient_id”, the run trained with “record”" in text_of(
        finished(sites=(site,))
    )


def test_a_recovered_ledger_is_reported() -> None:
    lost = (RecoveryNote("2026-03-04T05:06:07+00:00", 7), RecoveryNote("2026-05-01T00:00:00Z", 1))
    site = a_site("clinic-a", a_statement("clinic-a", recoveries=lost))
    text = text_of(finished(sites=(site,)))
    assert "clinic-a lost records, and on 2026-03-04 its data-protection officer had 7" in text
    assert "on 2026-05-01 its data-protection officer had 1 training charged" in text
    assert "lost records" not in text_of(finished())


def test_run_without_privacy_says_so_loudly() -> None:
    page = Page(render_html(without_privacy()))

    assert "NO PRIVACY GUARANTEE" in page.text
    assert page.text.index("NO PRIVACY GUARANTEE") < page.text.index("In short")
    assert "data declared public" in page.text
    assert "strong limit" not in page.text
    assert "The guarantee is the grant" not in page.text


def test_private_data_without_privacy_are_called_out() -> None:
    record = msgspec.structs.replace(
        without_privacy(), sites=(a_site("clinic-a", None), *without_privacy().sites[1:])
    )

    assert "clinic-a declared private data and no privacy mechanism" in text_of(record)


def test_exhausted_ledger_has_no_bound() -> None:
    inf = float("inf")
    statement = a_statement(
        "clinic-a",
        grants=(a_grant(spent=inf),),
        epsilon_by_round=(inf,) * 6,
        pld_epsilon_run=inf,
        pld_epsilon_life=inf,
    )
    record = finished(sites=(a_site("clinic-a", statement),))

    text = text_of(record)

    assert "no bound holds there" in text
    assert "The guarantee does not hold there." in text


def test_unverified_ledger_is_marked_in_words() -> None:
    sites = (a_site("clinic-a", a_statement("clinic-a", verified=False)), *finished().sites[1:])

    text = text_of(finished(sites=sites))

    assert "The ledger of clinic-a did not verify" in text
    assert "NOT verified" in text


def test_roles_with_one_key_are_reported() -> None:
    one = "ed25519:" + "0" * 64
    text = text_of(finished(identities={"aggregator": one, "decryptor": one}))

    assert "aggregator and decryptor share one identity key" in text


def test_full_fingerprints_are_in_the_page() -> None:
    page = Page(render_html(finished()))
    titles = {attrs.get("title") for attrs in page.named("code")}

    for site in finished().sites:
        assert site.identity in titles
        assert site.identity in page.text


def test_lost_rounds_are_named() -> None:
    rounds = (a_round(1), a_round(2, status="lost", metrics={}), a_round(3))

    text = text_of(finished(status="stopped", stop_reason="too few sites", rounds=rounds))

    assert "Stopped early" in text
    assert "2 of 6 planned rounds released. Reason: too few sites." in text
    assert "Of round 2 the sum was opened and its release was lost" in text


def test_sites_that_vanished_are_named_and_what_it_rests_on_is_said() -> None:
    settings = finished().settings
    allowed = {**settings, "federation": {**settings["federation"], "vanished_sites": 1}}
    rounds = (a_round(1), a_round(2, vanished=SITES[1:2]))

    text = text_of(finished(settings=allowed, rounds=rounds))

    assert text.count(f"{SITES[1]} vanished after the upload") == 1
    assert "Up to 1 site of a cohort may vanish" in text
    assert "may vanish" not in text_of(finished())


def test_record_without_rounds_renders() -> None:
    statement = a_statement(
        "clinic-a", grants=(), runs=(), epsilon_by_round=(), verified=True, head_sequence=1
    )
    record = finished(
        status="interrupted", rounds=(), initial_metrics={}, sites=(a_site(SITES[0], statement),)
    )

    text = text_of(record)

    assert "Nothing: no ledger was charged for this run." in text
    assert "Nothing was granted." in text


def test_missing_statement_is_not_taken_for_nothing_spent() -> None:
    sites = tuple(a_site(name, None) for name in SITES)
    reason = "the process ended without finishing"

    text = text_of(finished(status="interrupted", stop_reason=reason, sites=sites))
    partly = text_of(finished(sites=(*finished().sites[:3], sites[3])))

    assert "Not known for all 4 sites" in text
    assert f"Reason: {reason}." in text
    assert "Nothing: no ledger" not in text
    assert "Not known for clinic-d" in partly


def test_views_are_immutable() -> None:
    account = overview.accounts(finished())[0]

    with pytest.raises(dataclasses.FrozenInstanceError):
        account.site = "other"  # type: ignore[misc]


def test_answers_stand_with_both_intervals_and_their_price() -> None:
    page = Page(page_of("answered"))
    for text in (
        "0.610 (noise 0.580 to 0.640, with sampling 0.560 to 0.660)",
        "accuracy, sex <f>",
        "none: the noise leaves no figure",
        "0.31",
        "One dishonest site can move any answer",
        "A share of 0.2 of each site's units was set apart",
    ):
        assert text in page.text
    assert "No utility figures may be shown" not in page.text
    assert any("After 6: accuracy 0.610" in each for each in page.text.splitlines()) or (
        "After 6: accuracy 0.610" in page_of("answered")
    )


def test_who_is_set_apart_is_said_where_nothing_was_asked() -> None:
    record = finished(settings={"evaluation": {"holdout": 0.1}})
    assert "A share of 0.1 of each site's units was set apart" in text_of(record)
