"""The words for distributed noise: two figures, each with whom it holds against."""

from __future__ import annotations

import re

import msgspec
import pytest
from html_page import Page
from test_report_page import page_of, text_of
from test_report_records import SITES, a_mechanism, a_site, a_statement, distributed_noise, finished

from fmfl_secure.report import overview, protection, shares, wording

OVERSELLS = re.compile(r"\b(safe|guaranteed|anonymous|certified)\b", re.IGNORECASE)


def page() -> str:
    return Page(page_of("distributed_noise")).text


def test_each_figure_is_given_with_whom_it_holds_against() -> None:
    text = page()
    for words in (
        (
            "to whoever sees the released sums and the adapters, other sites included, as long as "
            "at most 1 of the sites whose parts are in a sum leaves its noise out or tells it to "
            "others: epsilon 3 at delta 0.00001"
        ),
        (
            "To all other sites together, who can take their own parts out of every sum, it is: "
            "epsilon 9.5, whatever they do"
        ),
        (
            "planned to cost each site at most epsilon 1, and against all other sites "
            "together at most epsilon 7.2"
        ),
        "Against all other sites together, most at clinic-c: epsilon 7.100 of 9.5.",
        "Against all other sites together, least at clinic-c: epsilon 2.400 of 9.5.",
        "limited by its own share of noise alone, that is, by the second, larger figure",
        "Against all other sites together: epsilon 9.5 is no meaningful bound",
    ):
        assert words in text
    assert "all of them together included" not in text, "that is local noise's promise"
    assert not OVERSELLS.search(shares.trust(distributed_noise()))


def test_the_tables_hold_both_figures() -> None:
    text = page()
    for words in (
        "The same against all other sites together",
        "9.5 5.433 5.433 4.067",  # spent up, left down
        "This run alone, as planned; against all other sites together",
        "Grant: all 4 sites; against all other sites together",
        "at most epsilon 7.2 at the same delta",
        "at most 1 of the sites in a sum",
        "DP-SGD over all sites, with a share of the noise from each.",
        "composed by Renyi DP",
    ):
        assert words in text


def test_nobody_is_told_that_a_site_s_own_noise_suffices() -> None:
    text = page()
    assert "The guarantee is local" not in text
    assert "Nothing shows that a site did add its share" in text
    assert "its own gradient with its share of noise" in text
    assert "its own noised update" not in text
    names = {limit.name for limit in protection.limits(distributed_noise())}
    assert "More colluding sites than assumed." in names
    assert "Colluding sites." not in names


@pytest.mark.parametrize(
    ("colluding", "said"),
    [
        (0, "as long as no site whose part is in a sum leaves its noise out or tells it"),
        (1, "at most 1 of the sites whose parts are in a sum leaves its noise out or tells it"),
        (3, "at most 3 of the sites whose parts are in a sum leave their noise out or tell it"),
    ],
)
def test_the_assumption_is_in_words(colluding: int, said: str) -> None:
    record = msgspec.structs.replace(
        distributed_noise(),
        mechanism=a_mechanism(noise="distributed", colluding_sites=colluding, insider_epsilon=7.0),
    )
    assert said in shares.assumption(record)
    assert said in wording.visibility(record)


def test_a_local_run_on_a_ledger_that_permits_shares_states_both() -> None:
    """Earlier runs may have spent shares: what the ledger promises is not local noise's alone."""
    record = msgspec.structs.replace(distributed_noise(), mechanism=a_mechanism())
    text = wording.promised(record)
    assert "as long as no more sites collude than the runs with shares of noise assumed" in text
    assert "epsilon 9.5, whatever they do" in text
    assert "The guarantee is local" in text_of(record)


def test_sites_with_different_second_figures_are_a_range() -> None:
    record = distributed_noise()
    first = record.sites[0].statement
    assert first is not None
    grant = msgspec.structs.replace(
        first.grants[0],
        insider_epsilon=4.0,
        insider_epsilon_spent=3.2,
        insider_epsilon_charged=3.2,
    )
    other = a_site(SITES[0], a_statement(SITES[0], grants=(grant,)))
    changed = msgspec.structs.replace(record, sites=(other, *record.sites[1:]))
    assert "from epsilon 4 to epsilon 9.5, depending on the site" in shares.promised(changed)


def test_training_and_answers_charged_to_two_grants_add_up() -> None:
    record = distributed_noise()
    first = record.sites[0].statement
    assert first is not None
    training = msgspec.structs.replace(
        first.grants[0], insider_epsilon_spent=6.253, insider_epsilon_charged=6.253
    )
    answers = msgspec.structs.replace(
        training, number=2, epsilon=2.0, insider_epsilon=7.0, epsilon_spent=1.5,
        epsilon_charged=1.5, epsilon_left=0.5, insider_epsilon_spent=4.759,
        insider_epsilon_charged=4.759,
    )  # fmt: skip
    (own, *others) = (charge for charge in first.runs if charge.run == record.run)
    asked = msgspec.structs.replace(
        own, run=f"{record.run}.answers", grant=2, rounds_trained=(7, 8), rounds_reserved=2
    )
    statement = msgspec.structs.replace(
        first,
        grants=(training, answers),
        runs=(own, *others, asked),
        epsilon_by_round=(*first.epsilon_by_round, 2.0, 2.4876),
    )
    changed = msgspec.structs.replace(
        record, sites=(a_site(SITES[0], statement), *record.sites[1:])
    )
    assert (
        f"most at {SITES[0]}, grant 1 and {SITES[0]}, grant 2: epsilon 11.012 of 16.5"
    ) in shares.spent(changed)
    track = overview.tracks(changed)[0]
    assert (track.sites, track.granted, track.final) == ((SITES[0],), 5.0, 2.4876)
    assert len(track.trained) == len(track.spent)
    assert f"{SITES[0]}: epsilon 2.488 of 5" in wording.spent(changed)


def test_without_shares_nothing_is_said_of_them() -> None:
    record = finished()
    assert not shares.in_force(record)
    assert shares.spent(record) == shares.left(record) == ""
    text = Page(page_of("finished")).text
    assert "all other sites together" not in text
    assert "all of them together included" in text


def test_no_grant_is_no_promise() -> None:
    record = finished(
        mechanism=a_mechanism(noise="distributed", colluding_sites=1, insider_epsilon=7.0)
    )
    assert "No ledger states a figure against all other sites together" in wording.promised(record)
