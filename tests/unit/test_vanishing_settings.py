"""How many sites may vanish by the settings, what that comes to, and what is refused."""

from __future__ import annotations

import copy

import msgspec
import pytest
from test_config import FEDERATION

from aggregation.protocol import Vanishing
from fmfl_secure.errors import ConfigError
from fmfl_secure.settings.federation import FederationConfig, convert_config, encode_config


def settings(sites: int, *, vanished: int | None = None, colluding: int = 1, **more):
    made = copy.deepcopy(FEDERATION)
    made["federation"] |= more
    if vanished is not None:
        made["federation"]["vanished_sites"] = vanished
    made["privacy"]["colluding_sites"] = colluding
    made["sites"] = [{"name": f"site-{n}", "population": 500} for n in range(sites)]
    return convert_config(made, FederationConfig, source="settings")


def test_where_none_may_settings_are_what_they_were() -> None:
    without, zero = settings(5), settings(5, vanished=0)
    assert without.digest == zero.digest != settings(5, vanished=1).digest
    assert b"vanished" not in encode_config(zero)
    assert zero.openings() == 0
    assert zero.vanishing() is msgspec.UNSET
    assert not any("vanish" in line for line in zero.cohorts_in_words())


@pytest.mark.parametrize(
    ("sites", "colluding", "most"),
    [(4, 1, 1), (4, 2, 0), (5, 1, 1), (5, 2, 1), (8, 1, 3), (8, 2, 2), (16, 3, 6), (32, 19, 6)],
)
def test_so_many_may_and_no_more(sites: int, colluding: int, most: int) -> None:
    """2 n > n + c + 2 d, for all sites; in each cohort, openings are more than (n + c) / 2."""
    slack = sites - colluding
    assert slack > 2 * most
    assert slack <= 2 * (most + 1)
    with pytest.raises(ConfigError, match=f"expected {most} at most"):
        settings(sites, vanished=most + 1, colluding=colluding)
    if not most:
        return
    config = settings(sites, vanished=most, colluding=colluding)
    allowed = config.vanishing()
    assert isinstance(allowed, Vanishing)
    assert (allowed.sites, 2 * allowed.openings > sites + colluding) == (most, True)
    assert config.smallest_cohort() >= config.floor(sites) >= allowed.openings
    # A site that knows more of them than the settings list asks for more openings.
    assert config.openings(sites + 2) == allowed.openings + 1
    told = config.cohorts_in_words()[-1]
    assert f"{most} of {sites} sites" in told
    tolerated = 2 * allowed.openings - sites - 1
    assert colluding <= tolerated <= colluding + 1
    assert f"while {tolerated} sites at most collude" in told
    assert f"colluding_sites can be {sites - 2 * most - 1} at most" in told
    # However a hostile coordinator picks two cohorts, they take more openings than there are.
    honest = sites - tolerated
    for first in range(config.smallest_cohort(), sites + 1):
        for second in range(config.smallest_cohort(), sites + 1):
            needed = [max(k - most, allowed.openings) - tolerated for k in (first, second)]
            assert sum(needed) > honest


def test_a_run_waits_for_the_quorum_and_says_why() -> None:
    config = settings(5, vanished=1, colluding=2, min_share=0.0)
    assert config.smallest_cohort() == 4
    assert "4 of 5, by vanished_sites and colluding_sites" in config.cohorts_in_words()[1]


def test_of_more_than_128_sites_none_may() -> None:
    settings(128, vanished=3)
    with pytest.raises(ConfigError, match="expected 0 with more than 128"):
        settings(129, vanished=3)
