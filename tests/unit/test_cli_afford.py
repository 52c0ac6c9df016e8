"""`fmfl-secure ledger afford`: what it prints is what `reserve` admits."""

from __future__ import annotations

from pathlib import Path

import pytest
from answered import read_answer
from support import settings
from typer.testing import CliRunner

from aggregation import Identity
from fmfl_secure import cli
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.workspace import initialise
from fmfl_secure.planning.affordability import in_words
from fmfl_secure.planning.noise import distributed_plan, privacy_plan
from fmfl_secure.planning.task import build_task, largest_layout
from fmfl_secure.settings.federation import load_federation, load_site
from privacy import BudgetExhausted, Dataset, Ledger, PoissonSampledGaussian, PolicyRefusal
from privacy.mechanism.distributed import DistributedPlan
from privacy.mechanism.share_runs import ShareRuns


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "federation.toml").write_text(settings(Path("none")))
    initialise(tmp_path, epsilon=8.0, delta=1e-5, simulated=True)
    return tmp_path


def ledger(folder: Path) -> Ledger:
    site = folder / "sites/site-1"
    return Ledger(site / "ledger.sqlite", signer=Identity.load(site / "identity.pem"))


def afford(folder: Path, *options: object):
    arguments = ["ledger", "afford", str(folder / "sites/site-1/ledger.sqlite")]
    return CliRunner().invoke(cli.app, [*arguments, *(str(option) for option in options)])


def found(folder: Path, *options: object) -> dict:
    result = afford(folder, *options, "--json")
    assert result.exit_code == 0, result.exception
    return read_answer("ledger afford", result.stdout)


def by_settings(folder: Path) -> tuple[str, ...]:
    return "--federation", str(folder / "federation.toml"), "--site", "site-1"


def spend(folder: Path, rounds: int, **more) -> None:
    ledger(folder).reserve(
        run=f"earlier-{rounds}",
        event=PoissonSampledGaussian(0.25, 1.5, 2),
        rounds=rounds,
        plan="p",
        **more,
    )


def test_what_it_says_of_a_federation_is_what_the_ledger_admits(folder: Path) -> None:
    spend(folder, 4)
    answer = found(folder, *by_settings(folder), "--rounds", "3,12")
    filtered, exact = answer["planned"].pop("noise_by_kind")
    assert filtered == answer["planned"]["noise_multiplier"]
    assert 0.8 * filtered < exact < filtered, "of a grant for this run alone"
    assert answer["planned"] == {
        "epsilon": 8.0,
        "rounds": 3,  # two, and a repeat
        "noise_multiplier": pytest.approx(plan(folder, 8.0).noise_multiplier),
        "fits": False,
        "insider_epsilon": None,
    }
    assert [run["rounds"] for run in answer["runs"]] == [3, 12]
    longest = answer["runs"][1]
    event = PoissonSampledGaussian(0.25, longest["noise_multiplier"], 2)
    with pytest.raises(BudgetExhausted):
        ledger(folder).reserve(run="more", event=event, rounds=13, plan="p")
    # The largest epsilon in the table is one that the settings may have: with it, the run fits.
    epsilon = answer["runs"][0]["epsilon"]
    assert 0 < epsilon < 8.0
    for asked, fits in ((epsilon, True), (round(epsilon + 0.01, 2), False)):
        text = (folder / "federation.toml").read_text()
        changed = text.replace("epsilon = 8.0", f"epsilon = {asked}")
        (folder / "federation.toml").write_text(changed)
        assert found(folder, *by_settings(folder), "--rounds", 3)["planned"]["fits"] is fits
        (folder / "federation.toml").write_text(text)
    ledger(folder).reserve(
        run="largest", event=plan(folder, epsilon).round_event(), rounds=3, plan="p"
    )


def plan(folder: Path, epsilon: float):
    text = (folder / "federation.toml").read_text()
    other = folder / "other.toml"
    other.write_text(text.replace("epsilon = 8.0", f"epsilon = {epsilon}"))
    config = load_federation(other)
    return privacy_plan(config, config.sites[0])


def test_what_it_says_of_a_sampler_is_what_the_ledger_admits(folder: Path) -> None:
    answer = found(
        folder, "--sample-rate", 0.1, "--steps", 5, "--noise-multiplier", 1.3, "--rounds", 7
    )
    assert answer["planned"] is None
    assert (answer["sample_rate"], answer["steps_per_round"]) == (0.1, 5)
    event = PoissonSampledGaussian(0.1, 1.3, 5)
    rounds = answer["at_noise"]["rounds"]
    with pytest.raises(BudgetExhausted) as refusal:
        ledger(folder).reserve(run="more", event=event, rounds=rounds + 1, plan="p")
    assert refusal.value.affordable_rounds == rounds
    assert f"would fit: {rounds} rounds" in refusal.value.hint
    ledger(folder).reserve(run="all", event=event, rounds=rounds, plan="p")


def test_the_data_set_s_own_budget_counts(folder: Path) -> None:
    site = folder / "sites/site-1/site.toml"
    without = found(folder, *by_settings(folder), "--rounds", 10)
    site.write_text(
        site.read_text()
        .replace("# name =", "name =")
        .replace("# max_epsilon_per_dataset = 6.0", "max_epsilon_per_dataset = 2.0")
        .replace("# max_delta_per_dataset", "max_delta_per_dataset")
    )
    capped = found(folder, *by_settings(folder), "--rounds", 10)
    assert (without["dataset"], capped["dataset"]) == (None, "letters-2026")
    (run,) = [run for run in capped["runs"] if run["rounds"] == 10]
    assert run["epsilon"] <= 2.0 < without["runs"][-1]["epsilon"]
    event = PoissonSampledGaussian(0.25, run["noise_multiplier"], 2)
    dataset = load_site(site).dataset
    with pytest.raises(PolicyRefusal):
        ledger(folder).reserve(run="a", event=event, rounds=11, plan="p", dataset=dataset)
    ledger(folder).reserve(run="a", event=event, rounds=10, plan="p", dataset=dataset)


def test_it_prints_a_table(folder: Path) -> None:
    spend(folder, 4, dataset=Dataset("letters"))
    result = afford(folder, *by_settings(folder), "--rounds", "3,12")
    assert result.exit_code == 0
    assert "grant 1: epsilon 8 at delta 1e-05" in result.output
    assert "the planned run, epsilon 8 over 3 trainings with repeats, does not fit" in result.output
    assert "largest epsilon at delta 1e-05" in " ".join(result.output.split())
    answer = found(folder, *by_settings(folder), "--rounds", "3,12")
    for run in answer["runs"]:
        assert f"{run['epsilon']:.2f}" in result.output
    shown = CliRunner().invoke(
        cli.app, ["ledger", "show", str(folder / "sites/site-1/ledger.sqlite")]
    )
    assert "letters" in shown.output


def test_nothing_fits_an_exhausted_ledger(folder: Path) -> None:
    ledger(folder).record_non_private(run="baseline", reason="test")
    result = afford(folder, "--sample-rate", 0.1, "--noise-multiplier", 5)
    assert "at noise multiplier 5.0000: 0 trainings fit" in result.output
    assert "no run fits, however much noise it adds" in result.output
    assert found(folder, "--sample-rate", 0.1)["runs"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "not known how the run would sample"),
        (("--sample-rate", "0.1", "--site", "site-1"), "not known how the run would sample"),
        (("--federation", "F", "--sample-rate", "0.1"), "leave the sampler's options out"),
        (("--sample-rate", "0.1", "--rounds", "5,x"), "expected numbers with commas"),
        (("--sample-rate", "0.1", "--rounds", "0"), "expected numbers with commas"),
    ],
)
def test_what_makes_no_sense_is_refused(folder: Path, options: tuple[str, ...], said: str) -> None:
    result = afford(folder, *options)
    assert isinstance(result.exception, ConfigError)
    assert said in str(result.exception)


def test_in_a_kit_the_site_s_own_file_is_beside_the_settings(folder: Path) -> None:
    """A kit is one site's folder, with the settings in it."""
    kit = folder / "sites/site-1"
    (kit / "federation.toml").write_text((folder / "federation.toml").read_text())
    named = ("--federation", kit / "federation.toml", "--site", "site-1")
    assert afford(folder, *named).exit_code == 0
    other = afford(folder, *named[:3], "site-2")
    assert other.exit_code == 1
    assert "site.toml does not exist" in str(other.exception)


def test_settings_that_the_ledger_is_not_about_are_refused(folder: Path) -> None:
    path = folder / "federation.toml"
    text = path.read_text()
    path.write_text(text.replace('labels = ["no", "yes"]', 'labels = ["no", "yes"]\nunit = "who"'))
    assert "the ledger's unit is 'record'" in str(afford(folder, *by_settings(folder)).exception)
    path.write_text(text.replace("epsilon = 8.0", 'noise = "none"\nepsilon = 8.0'))
    assert "add no noise" in str(afford(folder, *by_settings(folder)).exception)


def test_a_search_that_ended_says_so() -> None:
    assert in_words(12_345) == "12,345"
    assert in_words(1_000_000) == "1,000,000 or more"


# Shares of distributed noise: a run has to fit two figures.


@pytest.fixture
def shares(tmp_path: Path, tiny_model: Path) -> Path:
    privacy = 'noise = "distributed"\ninsider_epsilon = 30.0\ndelta = 1e-5'
    (tmp_path / "federation.toml").write_text(
        settings(tiny_model, sites=4, rounds=3, steps=1, epsilon=2.0, privacy=privacy)
    )
    initialise(tmp_path, epsilon=None, delta=None, simulated=True)
    (tmp_path / "sites/site-1/ledger.sqlite").unlink()
    signer = Identity.load(tmp_path / "sites/site-1/identity.pem")
    Ledger.create(
        tmp_path / "sites/site-1/ledger.sqlite",
        population="people",
        unit="record",
        signer=signer,
        public_key=signer.public.key,
    )
    return tmp_path


def share_plan(folder: Path) -> DistributedPlan:
    config = load_federation(folder / "federation.toml")
    task = build_task(config, relative_to=folder)
    size = largest_layout(task, task.build_model(seed=0)).size
    return distributed_plan(config, config.sites[0], size)


@pytest.mark.parametrize(("epsilon", "insider"), [(3.0, 30.0), (3.0, 3.1)], ids=["sums", "sites"])
def test_what_it_says_of_shares_fits_both_figures_and_no_more(
    shares: Path, epsilon: float, insider: float
) -> None:
    """Whichever of the two figures it is that runs out first."""
    record = ledger(shares)
    record.grant(epsilon=epsilon, delta=1e-5, population_size=1000, insider_epsilon=insider)
    answer = found(shares, *by_settings(shares), "--rounds", "3,12")
    (grant,) = answer["grants"]
    assert (grant["insider_epsilon"], grant["insider_epsilon_left"]) == (insider, insider)
    plan = share_plan(shares)
    assert answer["planned"]["insider_epsilon"] == plan.insider_epsilon()
    event = plan.round_event()
    fitting = answer["at_noise"]["rounds"]
    headroom = record.budget().headroom()
    assert headroom.admits(event, fitting)
    assert not headroom.admits(event, fitting + 1)
    for run in answer["runs"]:
        runs = ShareRuns(plan)
        noise, rounds = run["noise_multiplier"], run["rounds"]
        assert headroom.admits(runs.event(noise, rounds), rounds)
        assert not headroom.admits(runs.event(noise * (1 - 1e-4), rounds), rounds)
        asked = runs.calibrated(run["epsilon"], plan.delta, rounds)
        assert headroom.admits(asked, rounds)
        assert not headroom.admits(runs.calibrated(run["epsilon"] + 0.01, 1e-5, rounds), rounds)
        assert run["epsilon"] < run["insider_epsilon"]


def test_it_prints_both_figures(shares: Path) -> None:
    ledger(shares).grant(epsilon=3.0, delta=1e-5, population_size=1000, insider_epsilon=30.0)
    text = " ".join(afford(shares, *by_settings(shares), "--rounds", "3").output.split())
    assert "against all other sites together: epsilon 30, 30.0000 left" in text
    assert "a run has to fit both figures of a grant" in text
    assert "5.4" in text  # in the table, beside epsilon 3
    assert "over 4 trainings with repeats, fits" in text


def test_a_ledger_that_permits_no_shares_says_so(shares: Path) -> None:
    ledger(shares).grant(epsilon=3.0, delta=1e-5, population_size=1000)
    result = afford(shares, *by_settings(shares))
    assert isinstance(result.exception, ConfigError)
    assert "permits shares of distributed noise" in str(result.exception)
