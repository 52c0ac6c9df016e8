"""A whole federation in one process: what a run leaves behind, and that it is right."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import dp_accounting
import msgspec
import numpy as np
import peft
import pytest
import safetensors.torch
import torch
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from support import Quiet, leave_no_records, make_federation
from transformers import AutoModel

import fmfl_secure.parties.site_training
from aggregation import AggregationError, PublicIdentity, dequantize
from fmfl_secure.errors import ConfigError, RunError, Unavailable
from fmfl_secure.models.adapters import ADAPTERS
from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.parties.site import Site
from fmfl_secure.report.export import export_run
from fmfl_secure.report.results import write_results
from fmfl_secure.run.ledger_statement import verify_statement
from fmfl_secure.run.record import decode_record
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.training.finished_run import evaluate_run
from fmfl_secure.training.server_step import ServerStep
from fmfl_secure.transports.local.engine import LocalEngine
from fmfl_secure.vectors.adapter import Adapter
from privacy import Ledger
from privacy.accounting.rdp import RDP_UNIT


def run(federation: Path, output: Path, *, resume: bool = False):
    observer = Quiet()
    record = LocalEngine(federation, output, resume=resume, observer=observer).run()
    return record, observer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path):
    """A finished run, with every update and every released sum written down as it went by."""
    folder = tmp_path_factory.mktemp("finished")
    federation = make_federation(folder, tiny_model, rounds=3)
    updates: dict[int, list] = {}
    totals: dict[int, np.ndarray] = {}
    train, following = Site.train, Coordinator.following
    with pytest.MonkeyPatch.context() as patch:

        def recording_train(self, plan, adapter, on_step=None):
            integers = train(self, plan, adapter, on_step)
            updates.setdefault(plan.round, []).append(integers)
            return integers

        def recording(self, plan, total, sites):
            totals[plan.round] = total
            return following(self, plan, total, sites)

        patch.setattr(Site, "train", recording_train)
        patch.setattr(Coordinator, "following", recording)
        record, observer = run(federation, folder / "run")
    return folder, record, observer, updates, totals


def test_every_released_sum_is_the_exact_sum_of_the_quantised_updates(finished) -> None:
    _, _, _, updates, totals = finished
    assert sorted(totals) == [1, 2, 3]
    for number, total in totals.items():
        expected = np.sum([u.astype(np.int64) for u in updates[number]], axis=0)
        assert len(updates[number]) == 3
        assert np.array_equal(total, expected)
        assert np.any(total)


def test_a_run_leaves_an_adapter_that_peft_opens(finished, tiny_model: Path) -> None:
    folder, *_ = finished
    adapter = folder / "run" / "adapter"
    opened = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_model), adapter)
    lora_b = [p for n, p in opened.named_parameters() if "lora_B" in n]
    assert lora_b
    assert all(bool(p.abs().sum() > 0) for p in lora_b)
    assert not list(adapter.glob("*.bin"))
    assert not list(adapter.glob("*.pt"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-bert"


def test_the_adapter_on_disk_scores_as_the_run_said(finished) -> None:
    folder, record, *_ = finished
    metrics = evaluate_run(folder / "run", folder / "data" / "holdout.csv").metrics
    for name, value in record.rounds[-1].metrics.items():
        assert metrics[name] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("was_there", [False, True])
def test_an_export_that_found_no_room_leaves_nothing_in_the_way(
    finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: bool, was_there: bool
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if was_there:
        (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("fmfl_secure.report.export.write_card", full)
        with pytest.raises(Unavailable, match="what is exported cannot be written"):
            export_run(finished[0] / "run", tmp_path / "out", merged=merged)
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"] * was_there
    assert (export_run(finished[0] / "run", tmp_path / "out", merged=merged) / "README.md").exists()


def test_the_record_and_its_files_agree(finished) -> None:
    folder, record, observer, *_ = finished
    stored = decode_record((folder / "run" / "report.json").read_bytes())
    assert stored == record
    assert record.status == "finished"
    assert [r.round for r in record.rounds] == [1, 2, 3]
    assert [r.status for r in record.rounds] == ["released"] * 3
    assert all(r.cohort == ("site-1", "site-2", "site-3") for r in record.rounds)
    assert list(record.rounds) == observer.rounds
    assert {s.name for s in record.sites} == {"site-1", "site-2", "site-3"}
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert len(metrics["rounds"]) == 3


def test_a_report_is_rebuilt_from_the_run_alone(finished) -> None:
    folder, record, *_ = finished
    before = (folder / "run" / "report.html").read_text()
    (folder / "run" / "report.html").unlink()
    (folder / "run" / "report.json").unlink()
    again = write_results(RunStore(folder / "run"))
    assert again.rounds == record.rounds
    assert again.sites == record.sites
    after = (folder / "run" / "report.html").read_text()
    assert len(after) == pytest.approx(len(before), rel=0.01)


def test_the_transcript_tells_who_saw_what_and_no_secret(finished) -> None:
    folder, *_ = finished
    text = (folder / "run" / "transcript.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    aggregator = {line["saw"] for line in lines if line["role"] == "aggregator"}
    decryptor = {line["saw"] for line in lines if line["role"] == "decryptor"}
    assert aggregator == {"upload", "opening"}
    assert decryptor == {"plan", "sum"}
    assert all("message" not in line for line in lines if line["saw"] == "opening")
    uploads = [line["upload_bytes"] for line in lines if line["saw"] == "upload"]
    assert len(set(uploads)) == 1, "the size of an upload must not depend on the site"


def test_nothing_of_the_data_is_in_the_run_folder(finished) -> None:
    folder, *_ = finished
    texts = [line.split(",")[0] for line in (folder / "data/site-1.csv").read_text().splitlines()]
    keys = [p.read_bytes() for p in folder.rglob("identity.pem")]
    for path in (folder / "run").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(len(t) > 20 and t.encode() in data for t in texts[1:])
            assert not any(key.splitlines()[2] in data for key in keys)


def test_ledger_costs_are_what_dp_accounting_says(finished) -> None:
    folder, record, *_ = finished
    mechanism = record.mechanism
    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(
            mechanism.sample_rate, dp_accounting.GaussianDpEvent(mechanism.noise_multiplier)
        ),
        mechanism.steps_per_round * 3,
    )
    pld = PLDAccountant()
    pld.compose(event)
    for number in (1, 2, 3):
        ledger = Ledger(folder / f"sites/site-{number}/ledger.sqlite")
        (status,) = ledger.status()
        rdp = RdpAccountant(list(status.grant.orders))
        rdp.compose(event)
        for order, expected in zip(status.grant.orders, rdp.rdp, strict=True):
            stored = status.committed[order]
            assert stored is not None
            assert expected <= stored / RDP_UNIT <= expected + 1e-6
        assert status.epsilon_committed <= status.epsilon_charged <= status.grant.epsilon
        statement = record.sites[number - 1].statement
        assert statement is not None
        assert statement.pld_epsilon_run == pytest.approx(pld.get_epsilon(1e-5), rel=0.01)
        assert statement.pld_epsilon_run <= status.epsilon_committed


def test_the_unused_repeat_comes_back_at_the_end(finished) -> None:
    folder, record, *_ = finished
    (held,) = Ledger(folder / "sites/site-1/ledger.sqlite").budget().reservations.values()
    assert held.rounds == 4
    assert len(held.commits) == 3
    assert not held.open
    assert record.sites[0].statement is not None
    assert record.sites[0].statement.runs[0].rounds_trained == (1, 2, 3)


def test_runs_compose_and_one_that_does_not_fit_reads_no_data(
    tmp_path: Path, tiny_model: Path
) -> None:
    federation = make_federation(
        tmp_path, tiny_model, epsilon=3.0, grant=4.0, privacy="repeats = 0"
    )
    first, _ = run(federation, tmp_path / "run-1")
    assert first.sites[0].statement is not None
    run(federation, tmp_path / "run-2")
    (status,) = Ledger(tmp_path / "sites/site-1/ledger.sqlite").status()
    assert first.sites[0].statement.grants[0].epsilon_spent < status.epsilon_committed <= 4.0
    # Were any data read, their absence would be what is complained about.
    for number in (1, 2, 3):
        leave_no_records(tmp_path / f"data/site-{number}.csv")
    with pytest.raises(RunError, match="nothing was charged"):
        run(federation, tmp_path / "run-3")
    record = decode_record((tmp_path / "run-3/report.json").read_bytes())
    assert record.status == "stopped"
    assert {s.refusal for s in record.sites} == {"budget"}
    assert record.rounds == ()


def test_without_an_evaluation_set_there_are_no_figures(tmp_path: Path, tiny_model: Path) -> None:
    federation = make_federation(tmp_path, tiny_model, rounds=1, evaluation=False)
    record, _ = run(federation, tmp_path / "run")
    assert record.initial_metrics == {}
    assert record.rounds[0].metrics == {}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=() if kind in {"lora", "head"} else pytest.mark.slow)
        for kind in ADAPTERS.names
    ],
)
def test_every_kind_of_adapter_runs(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    """Sites train it under encryption and a ledger, and its files score as the run said."""
    federation = make_federation(tmp_path, tiny_model, rounds=1)
    federation.write_text(federation.read_text().replace("ffa-lora", kind))
    record, _ = run(federation, tmp_path / "run")
    assert record.status == "finished"
    metrics = evaluate_run(tmp_path / "run", tmp_path / "data/holdout.csv").metrics
    assert metrics["accuracy"] == pytest.approx(record.rounds[0].metrics["accuracy"])


def test_a_run_in_half_the_memory_exports_weights_in_float32(
    tmp_path: Path, tiny_model: Path
) -> None:
    federation = make_federation(tmp_path, tiny_model, rounds=1)
    text = federation.read_text().replace("[model]", '[model]\ndtype = "bfloat16"')
    federation.write_text(text.replace("[training]", "[training]\ncheckpointing = true"))
    record, _ = run(federation, tmp_path / "run")
    assert record.status == "finished"
    metrics = evaluate_run(tmp_path / "run", tmp_path / "data/holdout.csv").metrics
    assert metrics["accuracy"] == pytest.approx(record.rounds[0].metrics["accuracy"])
    export_run(tmp_path / "run", tmp_path / "merged", merged=True)
    merged = safetensors.torch.load_file(tmp_path / "merged" / "model.safetensors")
    base = safetensors.torch.load_file(tiny_model / "model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.float32}
    # Merged into the rounded weights that were trained on.
    trained = {n: t.bfloat16().float() if t.ndim > 1 else t for n, t in base.items()}
    changed = {n for n, t in merged.items() if n in base and not torch.equal(t, trained[n])}
    assert {n.split("attention.self.")[-1] for n in changed} == {"query.weight", "value.weight"}


def test_the_baseline_without_privacy_needs_public_data(tmp_path: Path, tiny_model: Path) -> None:
    federation = make_federation(tmp_path, tiny_model, privacy='noise = "none"')
    with pytest.raises(RunError, match="nothing was charged") as refusal:
        run(federation, tmp_path / "run-1")
    assert "policy.non_private" in refusal.value.hint
    for number in (1, 2, 3):
        site = tmp_path / f"sites/site-{number}/site.toml"
        site.write_text(site.read_text().replace('visibility = "private"', 'visibility = "public"'))
    record, _ = run(federation, tmp_path / "run-2")
    assert record.mechanism.noise == "none"
    assert record.mechanism.noise_multiplier == 0.0
    assert all(s.statement is None for s in record.sites)


def test_a_site_s_statement_verifies_and_an_altered_one_does_not(finished) -> None:
    _, record, *_ = finished
    for site in record.sites:
        identity = PublicIdentity.parse(site.name, site.public_key)
        assert identity.fingerprint == site.identity
        assert site.statement is not None
        verify_statement(identity, site.statement, site.statement_signature)
        altered = msgspec.structs.replace(site.statement, epsilon_before=1.0)
        with pytest.raises(AggregationError):
            verify_statement(identity, altered, site.statement_signature)
        with pytest.raises(AggregationError):
            verify_statement(identity, site.statement, "not a signature")


def test_sites_weigh_in_public_powers_of_two(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_federation(
        tmp_path, tiny_model, sites=4, rounds=1, federation='weights = "population"'
    )
    text = path.read_text()
    last = text.rindex("population = 40")
    path.write_text(text[:last] + "population = 20" + text[last + len("population = 40") :])
    weights: list[float] = []
    updates: list[np.ndarray] = []
    totals: list[np.ndarray] = []
    train, apply = fmfl_secure.parties.site_training.train_locally, ServerStep.apply

    def training(*arguments, **named):
        weights.append(named["weight"])
        updates.append(train(*arguments, **named))
        return updates[-1]

    def applying(self, layout, grid, adapter, total, cohort):
        totals.append(total)
        after = apply(self, layout, grid, adapter, total, cohort)
        moved = Adapter.read(after).flatten(layout) - Adapter.read(adapter).flatten(layout)
        assert np.allclose(moved, dequantize(total, grid, 3.5), atol=1e-7)
        return after

    monkeypatch.setattr("fmfl_secure.parties.site_training.train_locally", training)
    monkeypatch.setattr(ServerStep, "apply", applying)
    record = LocalEngine(path, tmp_path / "run", resume=False, observer=Quiet()).run()
    assert record.status == "finished"
    assert weights == [1.0, 1.0, 1.0, 0.5]
    assert np.array_equal(totals[0], np.sum([u.astype(np.int64) for u in updates], axis=0))


def test_sites_of_very_different_weight_are_too_few(tmp_path: Path, tiny_model: Path) -> None:
    path = make_federation(tmp_path, tiny_model, federation='weights = "population"')
    path.write_text(path.read_text().replace("population = 40", "population = 10", 1))
    with pytest.raises(ConfigError, match=r"worth 2\.45 equal ones"):
        load_federation(path)
