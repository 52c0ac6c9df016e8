"""What the load test needs holds; the load itself is run by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from fmfl_secure.bench.service import federation_toml
from fmfl_secure.settings.federation import load_federation


@pytest.mark.parametrize("sites", [3, 50])
def test_the_settings_of_the_load_are_settings(tmp_path: Path, sites: int) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(federation_toml(sites, 20, "minilm"), encoding="utf-8")
    config = load_federation(path)
    assert len(config.sites) == sites
    assert config.federation.rounds == 20
    assert config.privacy.noise == "none"
