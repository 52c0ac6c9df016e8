"""The Python interface does what the command line does, in a dozen lines."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from support import make_federation
from typer.testing import CliRunner

from fmfl_secure import Federation, Run
from fmfl_secure.cli import app
from fmfl_secure.errors import ConfigError, RunError
from privacy import PolicyRefusal


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Federation:
    folder = tmp_path_factory.mktemp("pilot")
    make_federation(folder, tiny_model, rounds=1, privacy="delta = 1e-4")
    return Federation(folder)


@pytest.fixture(scope="module")
def finished(pilot: Federation) -> Run:
    return pilot.run(pilot.folder / "run")


def test_a_run_from_settings_to_answers(pilot: Federation, finished: Run, tmp_path: Path) -> None:
    prediction = pilot.predict()
    assert 0.0 < prediction.epsilon_by_round[-1] <= prediction.epsilon_worst_case <= 8.0
    record = finished.record
    assert record.status == "finished"
    assert finished.report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    metrics = finished.evaluate(pilot.folder / "data" / "holdout.csv")
    assert metrics["accuracy"] == pytest.approx(record.rounds[-1].metrics["accuracy"])
    assert len(finished.predict(pilot.folder / "data" / "holdout.csv")) == 30
    assert (finished.export(tmp_path / "model") / "README.md").exists()
    (status,) = pilot.ledger("site-1").budget().status()
    assert 0.0 < status.epsilon_charged <= 8.0
    assert finished.adapter.is_dir()
    again = Run(finished.folder).record
    assert msgspec.structs.replace(again, updated=record.updated) == record


def test_a_site_checks_for_itself(pilot: Federation) -> None:
    assert pilot.check("site-2").path.resolve() == (pilot.folder / "data/site-2.csv").resolve()
    with pytest.raises(ConfigError, match="site-9 is not among the sites"):
        pilot.check("site-9")
    file = pilot.folder / "sites/site-3/site.toml"
    text = file.read_text()
    file.write_text(text.replace("[policy]", "[policy]\nmax_epsilon_per_run = 1.0"))
    with pytest.raises(PolicyRefusal):
        pilot.check("site-3")
    file.write_text(text)


def test_check_asks_about_people_under_several_ids(pilot: Federation, tmp_path: Path) -> None:
    """In the terminal of the site, with examples; and none once the settings say what is what."""
    folder = tmp_path / "pilot"
    shutil.copytree(pilot.folder, folder)
    file, data = folder / "federation.toml", folder / "data/site-1.csv"
    lines = data.read_text().splitlines()
    owners = ["patient", *("P7" if n % 2 else "p7" for n in range(1, len(lines)))]
    data.write_text("".join(f"{a},{b}\n" for a, b in zip(lines, owners, strict=True)))
    asked = {}
    for rules in ("", 'unit_normalisation = ["case"]', 'unit_normalisation = ["exact"]'):
        settings = (pilot.folder / "federation.toml").read_text()
        file.write_text(settings.replace("[adapter]", f'unit = "patient"\n{rules}\n[adapter]'))
        done = CliRunner().invoke(app, ["check", str(file), "site-1"])
        assert done.exit_code == 0, done.output
        asked[rules] = [line for line in done.output.splitlines() if "question:" in line]
    assert [len(lines) for lines in asked.values()] == [1, 0, 0]
    assert "are these 2 ids one person?" in asked[""][0]
    assert "'P7' = 'p7'" in asked[""][0]
    assert Federation(folder).check_units("site-1").ids == 2


def test_a_new_federation(tmp_path: Path) -> None:
    new = Federation.create(tmp_path / "new", name="new-pilot", sites=3)
    assert [site.name for site in new.config.sites] == ["site-1", "site-2", "site-3"]
    assert len(new.initialise()) > 9
    assert new.initialise() == []
    assert repr(new) == f"Federation({str(tmp_path / 'new/federation.toml')!r})"
    with pytest.raises(ConfigError, match="exists"):
        Federation.create(tmp_path / "new", name="new-pilot")
    with pytest.raises(ConfigError, match="does not exist"):
        Federation(tmp_path / "nowhere" / "federation.toml")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        Run(tmp_path)


def test_importing_the_package_brings_no_machine_learning_library() -> None:
    code = "import fmfl_secure, sys; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = __import__("fmfl_secure").Nothing
