"""What a plan measures is kept by digest, and nothing that protects a site is."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import msgspec
import pytest
from support import make_federation
from typer.testing import CliRunner

from fmfl_secure import Federation
from fmfl_secure.cli import app
from fmfl_secure.data import DataError
from fmfl_secure.errors import ConfigError, ModelError
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.storage import measured
from fmfl_secure.storage.measured import cache_folder, measured_once
from fmfl_secure.tasks.adapter_task import AdapterTask
from fmfl_secure.training import outlook
from fmfl_secure.training.outlook import Outlook, look_ahead
from privacy import AdmissionError, PolicyRefusal


class Length(msgspec.Struct, frozen=True):
    metres: float


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def counted():
    """Measures, and counts how often."""

    class Counted:
        times = 0

        def __call__(self) -> Length:
            self.times += 1
            return Length(float(self.times))

    return Counted()


def test_a_measurement_is_made_once_for_the_same_key_and_code(counted, monkeypatch) -> None:
    assert measured_once("a", Length, counted) == measured_once("a", Length, counted)
    assert counted.times == 1
    measured_once("b", Length, counted)
    assert counted.times == 2
    monkeypatch.setattr(measured, "code_digest", lambda: "changed")
    measured_once("a", Length, counted)
    assert counted.times == 3


def test_what_was_kept_is_this_user_s_alone_and_no_condition(counted) -> None:
    measured_once("a", Length, counted)
    (file,) = cache_folder().glob("*.json")
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    for spoiled in (b"", b"{", b'{"metres": "far"}', b"[" * 100_000):
        file.write_bytes(spoiled)
        measured_once("a", Length, counted)
    assert counted.times == 5
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("a file in its place")
    assert measured_once("a", Length, counted).metres == 6
    assert measured_once("a", Length, counted).metres == 7


def test_the_oldest_go(counted, monkeypatch) -> None:
    monkeypatch.setattr(measured, "_KEPT", 3)
    for number in range(6):
        measured_once(str(number), Length, counted)
    assert len(list(cache_folder().glob("*.json"))) == 4


def test_a_plan_s_measurements_are_of_settings_and_base_model(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_federation(tmp_path / "pilot", tiny_model, evaluation=False)
    config = load_federation(file)
    real, made = outlook._measure, []
    monkeypatch.setattr(outlook, "_measure", lambda *a, **k: made.append(1) or real(*a, **k))

    def ahead(text: str = "", signals: bool = False) -> Outlook:
        changed = text or file.read_text()
        (file.parent / "other.toml").write_text(changed)
        settings = load_federation(file.parent / "other.toml")
        return look_ahead(settings, relative_to=file.parent, signals=signals)

    first = ahead()
    assert ahead() == first
    assert len(made) == 1
    assert first.base_digest.startswith("sha256:")
    assert first.size > 0
    text = file.read_text()
    ahead(re.sub(r"^rank = \d+", "rank = 3", text, flags=re.MULTILINE))
    assert len(made) == 2
    found = ahead(signals=True).signals
    assert len(made) == 2  # what is kept without signals serves with them
    assert found is not None
    assert {"head", config.adapter.kind} <= set(found)
    monkeypatch.setattr(outlook, "_expect", None)
    assert ahead(signals=True).signals == found


def test_a_check_again_builds_no_model_and_asks_policy_and_data_as_before(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pilot = Federation(make_federation(tmp_path / "pilot", tiny_model, evaluation=False))
    first = pilot.check("site-1")
    monkeypatch.setattr(AdapterTask, "build_model", None)
    assert pilot.check("site-1") == first
    data = first.path.read_text()
    first.path.write_text(data + "one more row,of no label\n")
    with pytest.raises(DataError):
        pilot.check("site-1")
    first.path.write_text(data)
    file = pilot.folder / "sites/site-1/site.toml"
    file.write_text(file.read_text().replace("[policy]", "[policy]\nmax_epsilon_per_run = 1.0"))
    with pytest.raises(PolicyRefusal):
        pilot.check("site-1")


def test_a_check_is_refused_by_the_gate_each_time(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was refused is not kept."""
    pilot = Federation(make_federation(tmp_path / "pilot", tiny_model, evaluation=False))

    def refuse(*_: object, **__: object) -> None:
        raise AdmissionError("a loss couples the records of a batch")

    monkeypatch.setattr("privacy.training.check_admission", refuse)
    for _ in range(2):
        with pytest.raises(AdmissionError):
            pilot.check("site-1")


def test_a_base_model_that_is_gone_is_not_answered_for(tmp_path: Path, tiny_model: Path) -> None:
    file = make_federation(tmp_path / "pilot", tiny_model, evaluation=False)
    config = load_federation(file)
    look_ahead(config, relative_to=file.parent, signals=False)
    gone = msgspec.structs.replace(
        config, model=msgspec.structs.replace(config.model, base=str(tmp_path / "gone"))
    )
    with pytest.raises(ModelError):
        look_ahead(gone, relative_to=file.parent, signals=False)


def test_no_party_takes_its_gate_from_what_was_kept() -> None:
    root = Path(outlook.__file__).parents[1]
    users = {
        str(file.relative_to(root))
        for file in root.rglob("*.py")
        if "training.outlook import" in file.read_text() or "measured_once" in file.read_text()
    }
    assert users == {"api.py", "cli/plan.py", "training/outlook.py", "storage/measured.py"}


def test_a_federation_s_folder_stands_for_its_settings(tmp_path: Path, tiny_model: Path) -> None:
    file = make_federation(tmp_path / "pilot", tiny_model, evaluation=False)
    by_file = CliRunner().invoke(app, ["plan", str(file), "--no-advice"])
    by_folder = CliRunner().invoke(app, ["plan", str(file.parent), "--no-advice"])
    assert by_folder.exit_code == 0
    assert by_folder.output == by_file.output
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ConfigError, match=r"elsewhere/federation\.toml does not exist"):
        CliRunner().invoke(app, ["plan", str(tmp_path / "elsewhere")], catch_exceptions=False)
