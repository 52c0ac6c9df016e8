"""What `init` makes, what it leaves alone, and what it never makes again."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from support import settings

from aggregation import AggregationError, Identity
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.workspace import Members, Workspace, grant_simulated, initialise
from fmfl_secure.settings.federation import load_site
from privacy import Ledger, PlanError

ROLES = ("coordinator", "aggregator", "decryptor")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_settings(tmp_path, sites=3)
    return tmp_path


def write_settings(folder: Path, **more) -> None:
    path = folder / "federation.toml"
    path.write_text(settings(Path("no-model-is-needed"), **more), encoding="utf-8")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.endswith(("-wal", "-shm"))
    }


def test_it_makes_identities_site_files_keys_and_ledgers(folder: Path) -> None:
    created = initialise(folder, epsilon=None, delta=None)
    expected = {"federation.toml", "members.json"}
    expected |= {f"{role}/identity.pem" for role in ROLES}
    for n in (1, 2, 3):
        expected |= {
            f"sites/site-{n}/{name}"
            for name in (
                "site.toml",
                "identity.pem",
                "storage.key",
                "members.json",
                "ledger.sqlite",
            )
        }
    assert set(files(folder)) == expected
    said = "\n".join(created)
    for party in (*ROLES, "site-1", "site-2", "site-3"):
        assert f"identity key of {party} " in said
    assert len(created) == 3 + 3 * 3


def test_custodians_get_a_folder_of_their_own_and_are_pinned_by_all(folder: Path) -> None:
    initialise(folder, epsilon=None, delta=None)
    before = {name: data for name, data in files(folder).items() if name.endswith(".pem")}
    path = folder / "federation.toml"
    path.write_text(f'{path.read_text()}\n[aggregation]\ncustodians = ["board"]\n')
    created = initialise(folder, epsilon=None, delta=None)
    assert [line.split(" (")[0] for line in created] == [
        "identity key of board",
        str(folder / "custodians/board/custodian.toml"),
    ]
    after = files(folder)
    assert {name: after[name] for name in before} == before
    own = Identity.load(folder / "custodians/board/identity.pem", "board").public
    for place in (".", "sites/site-1", "custodians/board"):
        members = Members.load(folder / place / "members.json")
        assert members.custodians == {"board": own}
        assert members.pinned["board"] == own
    assert initialise(folder, epsilon=None, delta=None) == []


def test_members_of_before_there_were_custodians_are_read(folder: Path) -> None:
    initialise(folder, epsilon=None, delta=None)
    path = folder / "members.json"
    stored = json.loads(path.read_text())
    del stored["custodians"]
    path.write_text(json.dumps(stored))
    assert Members.load(path).custodians == {}


def test_keys_are_for_their_owner_only(folder: Path) -> None:
    initialise(folder, epsilon=None, delta=None)
    keys = [*folder.rglob("identity.pem"), *folder.rglob("storage.key")]
    assert len(keys) == 9
    for key in keys:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for site in (folder / "sites").iterdir():
        assert stat.S_IMODE(site.stat().st_mode) == 0o700
    storage = {p.read_bytes() for p in folder.rglob("storage.key")}
    assert len(storage) == 3
    assert {len(key) for key in storage} == {32}


def test_a_second_time_changes_nothing(folder: Path) -> None:
    initialise(folder, epsilon=None, delta=None)
    before = files(folder)
    assert initialise(folder, epsilon=99.0, delta=1e-3) == []
    assert files(folder) == before


def test_everyone_pins_the_same_members(folder: Path) -> None:
    initialise(folder, epsilon=None, delta=None)
    workspace = Workspace(folder)
    members = Members.load(workspace.members_file)
    for n in (1, 2, 3):
        own = Members.load(workspace.site(f"site-{n}") / "members.json")
        assert own == members
        identity = Identity.load(workspace.site(f"site-{n}") / "identity.pem")
        assert members.sites[f"site-{n}"] == identity.public
    assert set(members.pinned) == {"aggregator", "decryptor", "site-1", "site-2", "site-3"}
    assert len({p.key for p in (*members.pinned.values(), members.coordinator)}) == 6


def test_a_site_added_later_is_made_alone(folder: Path) -> None:
    initialise(folder, epsilon=None, delta=None)
    before = files(folder)
    write_settings(folder, sites=4)
    created = initialise(folder, epsilon=2.0, delta=1e-6)
    assert len(created) == 3
    assert all("site-4" in line for line in created)
    after = files(folder)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        "federation.toml", "members.json", *(f"sites/site-{n}/members.json" for n in (1, 2, 3))
    }  # fmt: skip
    assert "site-4" in Members.load(folder / "sites/site-1/members.json").sites
    grant_simulated(Workspace(folder), ["site-4"])
    (status,) = Ledger(folder / "sites/site-4/ledger.sqlite").status()
    assert (status.grant.epsilon, status.grant.delta) == (2.0, 1e-6)
    assert Ledger(folder / "sites/site-1/ledger.sqlite").status() == []


def test_the_first_grant_is_the_settings_or_what_is_asked_for(folder: Path, tmp_path: Path) -> None:
    write_settings(folder, sites=3, epsilon=3.0)
    initialise(folder, epsilon=None, delta=None, simulated=True)
    ledger = Ledger(folder / "sites/site-2/ledger.sqlite")
    (status,) = ledger.status()
    assert (status.grant.epsilon, status.grant.delta) == (3.0, 1e-5)
    assert status.epsilon_charged == 0.0
    assert (ledger.budget().population, ledger.budget().unit) == ("site-2", "record")
    other = tmp_path / "other"
    other.mkdir()
    write_settings(other, sites=3)
    initialise(other, epsilon=5.5, delta=1e-7, simulated=True)
    (status,) = Ledger(other / "sites/site-1/ledger.sqlite").status()
    assert (status.grant.epsilon, status.grant.delta) == (5.5, 1e-7)


def test_a_ledger_knows_its_site_s_declared_population(folder: Path) -> None:
    path = folder / "federation.toml"
    path.write_text(path.read_text().replace("population = 40", "population = 700", 1))
    initialise(folder, epsilon=None, delta=None, simulated=True)
    sizes = [
        Ledger(folder / f"sites/site-{n}/ledger.sqlite").budget().population_size for n in (1, 2)
    ]
    assert sizes == [700, 40]


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(0.0, None), (-1.0, None), (None, 0.0), (8.0, 2.0), (8.0, 0.9), (8.0, 3e-3), (1e308, None)],
)
def test_an_impossible_grant_is_refused_before_anything_is_made(
    folder: Path, epsilon: float | None, delta: float | None
) -> None:
    before = files(folder)
    with pytest.raises(PlanError):
        initialise(folder, epsilon=epsilon, delta=delta)
    assert files(folder) == before


def test_a_lost_ledger_is_missed_and_not_made_again(folder: Path) -> None:
    initialise(folder, epsilon=None, delta=None)
    (folder / "sites/site-2/ledger.sqlite").unlink()
    with pytest.raises(ConfigError, match=r"site-2 has an identity, and its ledger .* missing"):
        initialise(folder, epsilon=None, delta=None)
    assert not (folder / "sites/site-2/ledger.sqlite").exists()


def test_new_sites_are_pointed_at_their_data(folder: Path, tmp_path: Path) -> None:
    initialise(folder, epsilon=None, delta=None)
    assert load_site(folder / "sites/site-2/site.toml").data.path == "../../data/site-2.csv"
    write_settings(folder, sites=4)
    initialise(folder, epsilon=None, delta=None, data="parts/{site}.tsv")
    assert load_site(folder / "sites/site-4/site.toml").data.path == "../../parts/site-4.tsv"
    assert load_site(folder / "sites/site-2/site.toml").data.path == "../../data/site-2.csv"
    write_settings(folder, sites=5)
    initialise(folder, epsilon=None, delta=None, data=str(tmp_path / "{site}.parquet"))
    absolute = load_site(folder / "sites/site-5/site.toml").data.path
    assert absolute == str(tmp_path / "site-5.parquet")


def test_several_sites_have_no_one_file(folder: Path) -> None:
    with pytest.raises(ConfigError, match="would be the training file of 3 sites"):
        initialise(folder, epsilon=None, delta=None, data="train.csv")
    assert not (folder / "sites").exists()
    initialise(folder, epsilon=None, delta=None)
    write_settings(folder, sites=4)
    initialise(folder, epsilon=None, delta=None, data="fourth.csv")
    assert load_site(folder / "sites/site-4/site.toml").data.path == "../../fourth.csv"


def test_a_site_file_made_beforehand_is_kept_and_obeyed(folder: Path) -> None:
    site = folder / "sites/site-1"
    site.mkdir(parents=True)
    text = '[data]\npath = "x.csv"\n[budget]\npopulation = "cohort-a"\nledger = "own.sqlite"\n'
    (site / "site.toml").write_text(text)
    initialise(folder, epsilon=None, delta=None)
    assert (site / "site.toml").read_text() == text
    assert Ledger(site / "own.sqlite").budget().population == "cohort-a"
    assert not (site / "ledger.sqlite").exists()


def test_a_wrong_site_file_leaves_no_identity_without_a_ledger(folder: Path) -> None:
    site = folder / "sites/site-1"
    site.mkdir(parents=True)
    (site / "site.toml").write_text("[data]\n")
    with pytest.raises(ConfigError, match=r"site\.toml"):
        initialise(folder, epsilon=None, delta=None)
    assert not (site / "identity.pem").exists()
    (site / "site.toml").unlink()
    initialise(folder, epsilon=None, delta=None)
    assert (site / "ledger.sqlite").exists()


def test_a_ledger_shared_by_two_sites_data_is_granted_once(folder: Path) -> None:
    for name in ("site-1", "site-2"):
        site = folder / "sites" / name
        site.mkdir(parents=True)
        (site / "site.toml").write_text(
            f'[data]\npath = "{name}.csv"\n[budget]\npopulation = "p"\nledger = "../p.sqlite"\n'
        )
    said = initialise(folder, epsilon=None, delta=None, simulated=True)
    assert any("ledger admit" in line and "site-2" in line for line in said)
    assert len(Ledger(folder / "sites/p.sqlite").budget().grants) == 1


def test_an_identity_that_others_may_read_is_refused(folder: Path) -> None:
    initialise(folder, epsilon=None, delta=None)
    (folder / "aggregator/identity.pem").chmod(0o644)
    with pytest.raises(AggregationError, match="chmod 600"):
        initialise(folder, epsilon=None, delta=None)


def test_without_settings_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        initialise(tmp_path, epsilon=None, delta=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", '{"coordinator": "x"}', "[]", "\x00"])
def test_a_damaged_members_file_is_a_typed_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "members.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"members\.json"):
        Members.load(path)


def test_members_are_read_back_and_a_bad_key_is_refused(folder: Path) -> None:
    initialise(folder, epsilon=None, delta=None)
    path = folder / "members.json"
    members = Members.load(path)
    assert members.encode() == path.read_bytes()
    path.write_text(path.read_text().replace("ed25519:", "rsa:", 1))
    with pytest.raises(AggregationError):
        Members.load(path)
    path.unlink()
    with pytest.raises(ConfigError, match="cannot read the members"):
        Members.load(path)


@pytest.mark.parametrize(("public", "visibility"), [(False, "private"), (True, "public")])
def test_data_are_private_unless_declared_public(
    folder: Path, public: bool, visibility: str
) -> None:
    initialise(folder, epsilon=None, delta=None, public=public)
    for n in (1, 2, 3):
        assert load_site(folder / f"sites/site-{n}/site.toml").data.visibility == visibility
    # What is there is left alone, whatever is asked for later.
    initialise(folder, epsilon=None, delta=None, public=not public)
    assert load_site(folder / "sites/site-1/site.toml").data.visibility == visibility
