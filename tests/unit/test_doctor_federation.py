"""What `doctor` finds in a federation's folder that 0.1.0 let pass, and in a sound one nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ledgers import written_grant
from support import make_federation
from typer.testing import CliRunner

from aggregation import Identity
from fmfl_secure.cli import app
from fmfl_secure.doctor.federation import examine_federation
from fmfl_secure.doctor.machine import Finding


def federation(folder: Path, **more) -> Path:
    """No model is needed: nothing is trained."""
    return make_federation(folder, folder / "no-model", evaluation=False, **more)


def found(folder: Path, what: str) -> list[Finding]:
    return [each for each in examine_federation(folder) if each.what == what]


def patients(path: Path, *owners: str) -> None:
    rows = "".join(f'a note,yes,"{owner}"\n' for owner in owners)
    path.write_text("text,label,patient\n" + rows, encoding="utf-8")


def test_a_sound_federation_has_nothing_and_a_folder_that_is_none_neither(tmp_path: Path) -> None:
    assert list(examine_federation(tmp_path)) == []
    federation(tmp_path)
    assert {each.state for each in examine_federation(tmp_path)} == {"ok"}


def test_people_under_several_ids_are_asked_about(tmp_path: Path) -> None:
    path = federation(tmp_path, task='unit = "patient"')
    patients(tmp_path / "data/site-1.csv", "P7", "P7 ", "p7", "P8")
    patients(tmp_path / "data/site-2.csv", "P7", "P8", "NA")
    (tmp_path / "data/site-3.csv").unlink()
    spelled, alike = found(tmp_path, "site-1: unit ids")
    assert (spelled.state, alike.state) == ("question", "question")
    assert "4 spellings, 3 ids" in spelled.found
    assert "2 ids one person" in alike.found
    assert "'P7' = 'p7'" in alike.found
    assert '["case"]' in alike.advice
    assert [each.state for each in found(tmp_path, "site-2: unit ids")] == ["ok"]
    assert [each.state for each in found(tmp_path, "site-3: unit ids")] == ["missing"]
    settled = path.read_text().replace("[adapter]", 'unit_normalisation = ["exact"]\n[adapter]')
    path.write_text(settled)
    (spelled,) = found(tmp_path, "site-1: unit ids")
    assert "spellings" in spelled.found


def distributed(folder: Path) -> Path:
    return federation(
        folder,
        steps=1,
        privacy='noise = "distributed"\ncolluding_sites = 0\ninsider_epsilon = 50.0',
        federation="min_sites = 4",
        sites=5,
    )


def test_a_policy_below_the_plan_is_a_fault_with_noise_in_shares_alone(tmp_path: Path) -> None:
    distributed(tmp_path / "shares")
    own = tmp_path / "shares/sites/site-2/site.toml"
    own.write_text(own.read_text().replace("min_sites = 4", "min_sites = 3"))
    states = {
        f"site-{n}": [
            each.state for each in found(tmp_path / "shares", f"site-{n}: policy.min_sites")
        ]
        for n in (1, 2)
    }
    assert states == {"site-1": ["ok"], "site-2": ["fault"]}

    federation(tmp_path / "local", federation="min_sites = 4", sites=5)
    own = tmp_path / "local/sites/site-2/site.toml"
    own.write_text(own.read_text().replace("min_sites = 4", "min_sites = 3"))
    assert found(tmp_path / "local", "site-2: policy.min_sites") == []


def grant(site: Path, delta: float, **more: object) -> None:
    """A further grant as 0.1.0 wrote it, which asked nothing."""
    signer = Identity.load(site / "identity.pem", site.name)
    written_grant(site / "ledger.sqlite", signer=signer, epsilon=1.0, delta=delta, **more)


def test_a_delta_that_permits_publishing_somebody_is_a_fault(tmp_path: Path) -> None:
    """Populations are 40: at most 1 / 400, of a grant and of all together."""
    federation(tmp_path)
    grant(tmp_path / "sites/site-1", 0.3)
    for _ in range(2):
        grant(tmp_path / "sites/site-2", 1 / 500)
    grant(tmp_path / "sites/site-3", 1 / 500)
    (first,) = found(tmp_path, "site-1: ledger")
    assert first.state == "fault"
    assert "grant 2 of delta 0.3" in first.found
    assert "= 0.0025" in first.found
    (second,) = found(tmp_path, "site-2: ledger")
    assert second.state == "fault"
    assert "grant 3 of delta 0.002: the deltas of the grants up to it add" in second.found
    assert [each.state for each in found(tmp_path, "site-3: ledger")] == ["ok"]


def test_a_delta_whose_reason_is_recorded_is_none(tmp_path: Path) -> None:
    federation(tmp_path)
    grant(tmp_path / "sites/site-1", 0.3, delta_reason="everybody in the data published it")
    assert [each.state for each in found(tmp_path, "site-1: ledger")] == ["ok"]


def test_a_kit_is_checked_as_its_site_by_its_ledger_s_key(tmp_path: Path) -> None:
    path = federation(tmp_path)
    path.write_text(path.read_text().replace("population = 40", "population = 4000", 1))
    grant(tmp_path / "sites/site-1", 1 / 500)  # too large for 4000 people, and not for 40
    for number in (1, 2):
        kit = tmp_path / f"kit-{number}"
        shutil.copytree(tmp_path / f"sites/site-{number}", kit)
        shutil.copy(path, kit)
    assert [each.state for each in found(tmp_path / "kit-1", "this site: ledger")] == ["fault"]
    assert [each.state for each in found(tmp_path / "kit-2", "this site: ledger")] == ["ok"]


def test_what_cannot_be_read_is_a_finding_and_no_failure(tmp_path: Path) -> None:
    federation(tmp_path)
    (tmp_path / "sites/site-1/site.toml").write_text("[data]\npath = 3\n")
    (tmp_path / "sites/site-2/ledger.sqlite").write_bytes(b"not a ledger")
    (tmp_path / "sites/site-3/ledger.sqlite").unlink()
    assert [each.state for each in found(tmp_path, "site-1: site.toml")] == ["fault"]
    assert [each.state for each in found(tmp_path, "site-2: ledger")] == ["fault"]
    assert [each.state for each in found(tmp_path, "site-3: ledger")] == ["missing"]
    (tmp_path / "federation.toml").write_text("rounds")
    assert [each.what for each in examine_federation(tmp_path)] == ["federation.toml"]


def test_the_command_ends_with_1_for_a_fault_and_not_for_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmfl_secure.doctor.machine.examine", lambda _: iter(()))
    federation(tmp_path, task='unit = "patient"')
    for number in (1, 2, 3):
        patients(tmp_path / f"data/site-{number}.csv", "P7", "p7")
    done = CliRunner().invoke(app, ["doctor", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.output.count("asks") == 4  # of each site's ids, and once of round times
    grant(tmp_path / "sites/site-1", 0.3)
    assert CliRunner().invoke(app, ["doctor", str(tmp_path)]).exit_code == 1
