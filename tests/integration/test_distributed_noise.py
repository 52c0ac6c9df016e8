"""Distributed noise from settings to ledger, through the real engine."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support import Quiet, leave_no_records, make_federation

from aggregation import Identity
from fmfl_secure.errors import RunError
from fmfl_secure.models.adapters import load_adapter_bytes
from fmfl_secure.parties.ledger_recovery import lost_runs
from fmfl_secure.parties.site import Site
from fmfl_secure.run.record import RunRecord, decode_record
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.storage.update_store import UpdateStore
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger, PlanError
from privacy.mechanism.distributed import DistributedPlan, SkellamShare
from privacy.mechanism.training import ClippedSum

PRIVACY = 'noise = "distributed"\ninsider_epsilon = 30.0\ndelta = 1e-4\n'


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("template") / "federation"
    make_federation(
        folder, tiny_model, sites=4, rounds=3, steps=1, privacy=PRIVACY, evaluation=False
    )
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four sites and three steps. The admission gate has tests of its own."""
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)
    return Path(shutil.copytree(template, tmp_path / "federation"))


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def run(folder: Path, name: str = "run", *, resume: bool = False) -> tuple[RunRecord, Quiet]:
    observer = Quiet()
    engine = LocalEngine(
        folder / "federation.toml", folder / name, resume=resume, observer=observer
    )
    return engine.run(), observer


def adapters(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Before the run and after it, by tensor."""
    store = RunStore(folder / "run")
    last = store.last_adapter()
    assert last is not None
    return tuple(
        {name: tensor.double().numpy() for name, tensor in load_adapter_bytes(data).items()}
        for data in (store.public().initial_adapter, last)
    )  # type: ignore[return-value]


def test_a_run_releases_every_step_and_charges_both_figures(folder: Path) -> None:
    record, _ = run(folder)
    assert [r.status for r in record.rounds] == ["released"] * 3
    assert record.mechanism.noise == "distributed"
    assert record.mechanism.colluding_sites == 1
    for site in record.sites:
        assert site.statement is not None
        (grant,) = site.statement.grants
        assert len(site.statement.epsilon_by_round) == 3
        assert 0 < grant.epsilon_spent < 8.0
        assert grant.insider_epsilon == 30.0
        assert grant.insider_epsilon_spent is not None
        assert grant.epsilon_spent < grant.insider_epsilon_spent <= 30.0
        assert grant.insider_epsilon_charged == grant.insider_epsilon_spent  # the repeat is back
    written = decode_record((folder / "run/report.json").read_bytes())
    assert written.sites == record.sites
    assert [r.adapter_digest for r in record.rounds] == sorted(
        {r.adapter_digest for r in record.rounds},
        key=[r.adapter_digest for r in record.rounds].index,
    )  # every step moved the adapter


def test_without_noise_a_step_is_the_pooled_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is between the sites' clipped sums and the adapter, against plain arithmetic."""
    sums: list[np.ndarray] = []
    real = ClippedSum.take_sum

    def noted(self: ClippedSum) -> object:
        total = real(self)
        sums.append(total.numpy().copy())
        return total

    monkeypatch.setattr(ClippedSum, "take_sum", noted)
    monkeypatch.setattr("privacy.training.check_apart", lambda *_, **__: None)  # sums of its own
    monkeypatch.setattr(
        "privacy.mechanism.skellam.SkellamSource.integers",
        lambda _, count: np.zeros(count, dtype=np.int64),
    )
    edit(folder / "federation.toml", "rounds = 3", "rounds = 1")
    edit(
        folder / "federation.toml",
        "physical_batch_size = 8",
        'physical_batch_size = 8\noptimizer = "sgd"\nlearning_rate = 0.5\nhead_learning_rate = 2.0',
    )
    run(folder)
    assert len(sums) == 4
    gradient = np.sum(sums, axis=0) / (0.25 * 4 * 40)  # q n, of the declared populations
    before, after = adapters(folder)
    moved, rates = [], []
    for name in sorted(before):
        if name.endswith("lora_A.default.weight"):
            assert np.array_equal(before[name], after[name])  # frozen
            continue
        moved.append((after[name] - before[name]).ravel())
        rates.append(np.full(before[name].size, 2.0 if name.startswith("head.") else 0.5))
    step = 1.0 / (5 * np.sqrt(len(gradient))) / (0.25 * 4 * 40)  # a rounding step of the mean
    difference = np.concatenate(moved) / np.concatenate(rates) + gradient
    assert np.abs(difference).max() < 4 * 1.01 * step  # four sites round by less than one each
    # And the gradient, which depends on who was sampled, is well above that.
    assert np.abs(gradient).max() > 12 * step


def test_a_grant_without_a_figure_for_other_sites_refuses(
    template: Path, tmp_path: Path, tiny_model: Path
) -> None:
    folder = tmp_path / "federation"
    make_federation(
        folder, tiny_model, sites=3, rounds=3, steps=1, privacy="delta = 1e-4\n", evaluation=False
    )
    edit(folder / "federation.toml", "delta = 1e-4\n", PRIVACY)
    leave_no_records(folder / "data/site-1.csv")
    with pytest.raises(RunError, match="nothing was charged"):
        run(folder)
    record = decode_record((folder / "run/report.json").read_bytes())
    assert {site.refusal for site in record.sites} == {"budget"}
    assert template.exists()


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("max_insider_epsilon_per_run = 20.0", "policy.insider_epsilon_per_run"),
        ("min_colluding_sites = 2", "policy.colluding_sites"),
    ],
)
def test_a_sites_policy_caps_the_second_figure_and_the_assumption(
    folder: Path, rule: str, code: str
) -> None:
    edit(folder / "sites/site-2/site.toml", "min_sites = 3", f"min_sites = 3\n{rule}")
    edit(folder / "federation.toml", "rounds = 3", "rounds = 1")
    record, _ = run(folder)
    assert {site.name: site.refusal for site in record.sites if site.refusal} == {"site-2": code}
    assert record.rounds[0].cohort == ("site-1", "site-3", "site-4")


def test_settings_that_allow_other_sites_too_little_are_refused_with_what_they_need(
    folder: Path,
) -> None:
    edit(folder / "federation.toml", "insider_epsilon = 30.0", "insider_epsilon = 8.0")
    with pytest.raises(PlanError, match="would learn epsilon") as refusal:
        run(folder)
    needed = float(refusal.value.hint.split("insider_epsilon = ")[1].split()[0])
    assert 8.0 < needed < 30.0


def test_an_interrupted_step_sends_the_same_share_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that nobody has opened is not drawn anew: two of one sum would average the noise."""
    drawn: list[np.ndarray] = []
    protect = SkellamShare.protect

    def noted(self: SkellamShare, clipped_sum: np.ndarray) -> np.ndarray:
        drawn.append(protect(self, clipped_sum))
        return drawn[-1]

    monkeypatch.setattr(SkellamShare, "protect", noted)
    stop = {"at": 6}  # in the second step, after two of its four sites have trained
    put = UpdateStore.put

    def stopping(self: UpdateStore, *arguments: object, **named: object) -> None:
        put(self, *arguments, **named)  # type: ignore[arg-type]
        if len(drawn) == stop["at"]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(UpdateStore, "put", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
    stop["at"] = -1
    record, _ = run(folder, resume=True)
    assert [r.status for r in record.rounds] == ["released"] * 3
    assert len(drawn) == 3 * 4
    for site in record.sites:
        held = Ledger(folder / f"sites/{site.name}/ledger.sqlite").budget().reservations
        assert [number for number, _ in held[record.run].commits] == [1, 2, 3]


def test_a_cohort_below_the_plans_never_opens(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Site.train

    def failing(self: Site, plan, *arguments):
        if plan.round == 2 and self.name in {"site-1", "site-2"}:
            raise RunError("gone")
        return train(self, plan, *arguments)

    monkeypatch.setattr(Site, "train", failing)
    with pytest.raises(RunError, match="fewer than min_sites = 3"):
        run(folder)
    record = decode_record((folder / "run/report.json").read_bytes())
    assert [r.status for r in record.rounds] == ["released"]
    assert record.status == "stopped"


def test_the_plan_of_every_site_yields_one_event(folder: Path) -> None:
    from fmfl_secure.planning.plans import site_plan
    from fmfl_secure.settings.federation import load_federation

    config = load_federation(folder / "federation.toml")
    plans = [site_plan(config, site, 98) for site in config.sites]
    assert all(isinstance(plan, DistributedPlan) for plan in plans)
    assert len({plan.round_event() for plan in plans if plan}) == 1


def test_a_lost_run_is_charged_as_the_shares_that_it_was(folder: Path) -> None:
    """Not as local noise as large as the sum's, which leaves out what the other sites learn."""
    run(folder)
    (event, times) = lost_runs([folder / "run/report.json"])[0]
    ledger = folder / "sites/site-1/ledger.sqlite"
    (held,) = Ledger(ledger).budget().reservations.values()
    assert (event, times) == (held.event, held.rounds)
    signer = Identity.load(folder / "sites/site-1/identity.pem", "site-1")
    (before,) = Ledger(ledger).status()
    lost = Ledger(ledger, signer=signer).recover(
        ["99:" + 64 * "0"], reason="the disk failed", losses=[(1, event, times)]
    )
    (after,) = Ledger(ledger).status()
    assert lost.charges[0].insider_cost == held.charge.insider_cost
    assert after.failures > before.failures
    for order, charged in after.insider_charged.items():
        assert charged > before.insider_charged[order]
