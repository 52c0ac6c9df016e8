"""`plan` names settings that say something and change nothing beside the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import make_federation

LOCAL = "privacy.insider_epsilon, privacy.colluding_sites: for noise in shares alone"


@pytest.mark.parametrize(
    ("privacy", "said"),
    [
        ("insider_epsilon = 20.0\ncolluding_sites = 2", LOCAL),
        ("length_shares = [[8, 0.5]]", "privacy.length_shares: for privacy.constant_time"),
        ('noise = "distributed"\ninsider_epsilon = 50.0\ncolluding_sites = 0', ""),
        ("colluding_sites = 1", ""),
    ],
)
def test_settings_that_change_nothing_are_named(
    main, tmp_path: Path, tiny_model: Path, privacy: str, said: str
) -> None:
    path = make_federation(tmp_path, tiny_model, privacy=privacy, steps=1)
    code, printed, errors = main("plan", path, "--json", "--no-advice")
    assert code == 0, errors
    remarks = json.loads(printed)["remarks"]
    assert said in remarks.get("passed over", "")
    assert bool(said) == ("passed over" in remarks)
