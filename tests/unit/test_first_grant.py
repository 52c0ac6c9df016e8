"""The first grant is the site's: others propose, and nothing is granted of an unread template."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fmfl_secure import cli
from fmfl_secure.api import Federation
from fmfl_secure.errors import ConfigError, ModelError
from fmfl_secure.parties.first_grant import accept, proposed
from fmfl_secure.parties.proposals import ACCEPTED, SIMULATED
from fmfl_secure.parties.workspace import (
    Workspace,
    grant_simulated,
    grant_where_none,
    initialise,
)
from fmfl_secure.provisioning.own_keys import request_keys
from fmfl_secure.provisioning.provision import provision
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.templates import federation_toml
from privacy import Ledger, LedgerError


def invoke(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As `init` leaves it, from its own template."""
    made = tmp_path / "pilot"
    assert invoke("init", made, "--sites", 3).exit_code == 0
    return made


def edit(folder: Path, **more: str) -> None:
    file = folder / "federation.toml"
    text = file.read_text()
    for before, after in ({"rounds = 40": "rounds = 3"} | more).items():
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)


def ledger(folder: Path, site: str = "site-1") -> Ledger:
    return Ledger(folder / f"sites/{site}/ledger.sqlite")


def test_a_template_is_never_granted(folder: Path) -> None:
    site = folder / "sites/site-1"
    for arguments in (
        ("ledger", "grant", site),
        ("ledger", "grant", site, "--accept"),
        ("ledger", "grant", site / "ledger.sqlite", "--accept"),
    ):
        done = invoke(*arguments)
        assert isinstance(done.exception, ConfigError)
        assert "is as init wrote it" in str(done.exception)
    done = invoke("init", folder, "--simulated")
    assert done.exit_code == 0
    assert done.output.count("federation.toml is as init wrote it") == 3
    kits = folder.parent / "kits"
    said = provision(folder / "federation.toml", kits)
    assert sum("is as init wrote it" in line for line in said) == 3
    for place in (site, kits / "site-1"):
        assert Ledger(place / "ledger.sqlite").status() == []
        with pytest.raises(ConfigError, match="as init wrote it"):
            proposed(place)


def test_what_is_shown_is_what_is_granted_and_only_once(folder: Path) -> None:
    edit(folder, **{"epsilon = 8.0 ": "epsilon = 2.0 ", "population = 500": "population = 700"})
    site = folder / "sites/site-2"
    shown = invoke("ledger", "grant", site).output
    assert "epsilon 2 at delta 1e-05" in shown
    assert "700 units are declared, a unit being one 'record'" in shown
    assert "Epsilon 2 means: an attacker who wrongly names" in shown
    assert "nothing is granted yet" in shown
    assert ledger(folder, "site-2").status() == []
    done = invoke("ledger", "grant", site, "--accept")
    assert done.exit_code == 0
    assert "grant 1: epsilon 2 at delta 1e-05" in done.output
    (status,) = ledger(folder, "site-2").status()
    assert (status.grant.epsilon, status.grant.purpose) == (2.0, ACCEPTED)
    assert status.grant.population_size == 700
    assert ledger(folder, "site-1").status() == [], "each site for itself"
    again = invoke("ledger", "grant", site, "--accept")
    assert isinstance(again.exception, LedgerError)
    assert "the first grant of population 'site-2' was made" in str(again.exception)
    assert grant_simulated(Workspace(folder), ["site-2"]) == []


def test_whoever_initialises_proposes_another_amount(tmp_path: Path) -> None:
    folder = tmp_path / "pilot"
    assert invoke("init", folder, "--epsilon", 2.5, "--delta", 1e-7).exit_code == 0
    edit(folder)
    given = proposed(folder / "sites/site-1")
    assert (given.epsilon, given.delta) == (2.5, 1e-7)
    assert [each.epsilon for each in accept(folder / "sites/site-1", given)] == [2.5]


def test_a_ledger_follows_the_settings_until_its_first_grant_and_stays_then(folder: Path) -> None:
    """`init` opens it before anybody has said what a unit is, or whose data these are."""
    edit(folder, **{'unit = "record" ': 'unit = "patient_id" '})
    site = folder / "sites/site-1"
    text = (site / "site.toml").read_text()
    (site / "site.toml").write_text(text.replace('population = "site-1"', 'population = "ward"'))
    assert (ledger(folder).budget().population, ledger(folder).budget().unit) == (
        "site-1", "record",
    )  # fmt: skip
    assert invoke("ledger", "grant", site, "--accept").exit_code == 0
    state = ledger(folder).budget()
    assert (state.population, state.unit) == ("ward", "patient_id")
    from aggregation import Identity

    signed = Ledger(site / "ledger.sqlite", signer=Identity.load(site / "identity.pem"))
    with pytest.raises(LedgerError, match="population and unit stay"):
        signed.settle(population="others", unit="record")


def test_noise_in_shares_is_permitted_where_the_settings_ask_for_it(folder: Path) -> None:
    edit(
        folder,
        **{
            'noise = "local" ': 'noise = "distributed" ',
            'insider_epsilon = 0.0    # "dist': 'insider_epsilon = 12.0    # "dist',
        },
    )
    shown = invoke("ledger", "grant", folder / "sites/site-1").output
    assert "all other sites together may learn more: epsilon 12" in shown
    assert proposed(folder / "sites/site-1").insider_epsilon == 12.0


def test_a_simulation_grants_in_its_sites_place_and_says_so(folder: Path) -> None:
    edit(folder)
    said = invoke("init", folder, "--simulated").output
    assert said.count("A SIMULATION, since a site grants for itself") == 3
    assert "nothing was made" in invoke("init", folder, "--simulated").output
    kits = folder.parent / "kits"
    made = provision(folder / "federation.toml", kits)
    assert sum("A SIMULATION" in line for line in made) == 3
    for place in (folder / "sites/site-1", kits / "site-1"):
        (status,) = Ledger(place / "ledger.sqlite").status()
        assert status.grant.purpose == SIMULATED


def test_a_run_on_one_machine_grants_where_there_is_none_and_says_so(folder: Path) -> None:
    """Once the settings are edited, and never a second time."""
    workspace = Workspace(folder)
    config = load_federation(workspace.federation_file)
    assert all("as init wrote it" in note for note in grant_where_none(workspace, config))
    assert ledger(folder, "site-1").status() == []
    edit(folder, **{"epsilon = 8.0 ": "epsilon = 2.0 "})
    config = load_federation(workspace.federation_file)
    (folder / "sites/site-3/identity.pem").unlink()
    said = grant_where_none(workspace, config)
    assert [f"in the place of site-{n}" in note for n, note in enumerate(said, 1)] == [True, True]
    assert all("A SIMULATION" in note for note in said)
    (status,) = ledger(folder, "site-1").status()
    assert (status.grant.epsilon, status.grant.purpose) == (2.0, SIMULATED)
    assert ledger(folder, "site-3").status() == [], "what cannot be used is the run's to say"
    assert grant_where_none(workspace, config) == []


@pytest.mark.parametrize("engine", ["run", "ask", "api"])
def test_nothing_is_granted_for_a_run_that_its_base_model_rules_out(
    folder: Path, engine: str
) -> None:
    text = (folder / "federation.toml").read_text()
    (base,) = [line for line in text.splitlines() if line.startswith("base = ")]
    edit(folder, **{base: 'base = "nowhere/of-this-name"'})
    file = folder / "federation.toml"
    if engine == "api":
        with pytest.raises(ModelError):
            Federation(folder).run(folder / "run")
    else:
        asked = ["ask", file, "--what", "units", "--epsilon", 0.3]
        command = ["run", file, "--output", folder / "run"] if engine == "run" else asked
        done = invoke(*command)
        assert isinstance(done.exception, ModelError)
        assert "made a first grant" not in done.output
    assert ledger(folder, "site-1").status() == []


def test_a_site_that_drew_its_own_keys_grants_before_anybody_answered(tmp_path: Path) -> None:
    file = tmp_path / "federation.toml"
    file.write_text(federation_toml("pilot", 3).replace("rounds = 40", "rounds = 3"))
    place = tmp_path / "somewhere"
    request_keys(place, file, role="site", name="site-3")
    assert Ledger(place / "ledger.sqlite").status() == []
    assert proposed(place).site == "site-3"
    assert invoke("ledger", "grant", place, "--accept").exit_code == 0
    assert len(Ledger(place / "ledger.sqlite").status()) == 1


def test_figures_and_acceptance_do_not_go_together(folder: Path) -> None:
    edit(folder)
    place = folder / "sites/site-1/ledger.sqlite"
    figures = ("--epsilon", 1, "--delta", 1e-6, "--purpose", "p")
    for wrong in ((*figures, "--accept"), figures[:4], ("--insider-epsilon", 3)):
        assert isinstance(invoke("ledger", "grant", place, *wrong).exception, LedgerError)
    assert ledger(folder).status() == []


def test_two_that_accept_at_once_grant_once(folder: Path) -> None:
    edit(folder)
    site = folder / "sites/site-1"
    given = proposed(site)
    accept(site, given)
    with pytest.raises(LedgerError, match="the first grant"):
        accept(site, given)
    assert len(ledger(folder).status()) == 1


def test_without_settings_there_is_nothing_to_accept(folder: Path) -> None:
    initialise(folder, epsilon=None, delta=None)
    (folder / "federation.toml").unlink()
    with pytest.raises(ConfigError, match="nothing is proposed"):
        proposed(folder / "sites/site-1")
