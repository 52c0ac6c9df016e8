"""Personal heads: trained under the same clipping and noise, kept at the site, never uploaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.torch
import torch
from support import Quiet, make_federation
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.errors import ConfigError, ModelError
from fmfl_secure.models.adapters import adapter_bytes
from fmfl_secure.models.layout import Layout
from fmfl_secure.models.personal import personal_bytes, set_personal
from fmfl_secure.parties.site import Site
from fmfl_secure.planning.noise import privacy_plan
from fmfl_secure.planning.plans import quantization
from fmfl_secure.planning.task import build_task
from fmfl_secure.report.export import export_run
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.storage.update_store import UpdateStore
from fmfl_secure.training.finished_run import evaluate_run, predict_run
from fmfl_secure.training.local_round import train_locally
from fmfl_secure.transports.local.engine import LocalEngine

SITES = ("site-1", "site-2", "site-3")
ADAPTER = "last_layers = 1\npersonal_head = true"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path):
    """A finished run, with the grids of its rounds and the head each site went on from."""
    folder = tmp_path_factory.mktemp("personal") / "federation"
    federation = make_federation(folder, tiny_model, adapter=ADAPTER, evaluation=False)
    began: dict[str, list[bytes]] = {name: [] for name in SITES}
    grids = []
    patch = pytest.MonkeyPatch()
    patch.setattr("privacy.training.check_admission", lambda *_, **__: None)
    original, current = train_locally, {}

    def train(*arguments, **named):
        began[current["site"]].append(named["personal"])
        grids.append(named["quantization"])
        return original(*arguments, **named)

    site_train = Site.train

    def noting(self, *arguments):
        current["site"] = self.name
        return site_train(self, *arguments)

    patch.setattr("fmfl_secure.parties.site_training.train_locally", train)
    patch.setattr(Site, "train", noting)
    record = LocalEngine(federation, folder / "run", resume=False, observer=Quiet()).run()
    patch.undo()
    return folder, record, began, grids


def kept(folder: Path, site: str) -> Path:
    (file,) = (folder / "sites" / site / "heads").glob("*.safetensors")
    return file


def test_nothing_of_a_head_is_uploaded_or_saved_for_all(finished) -> None:
    folder, record, _, grids = finished
    assert record.status == "finished"
    names = [segment.name for grid in grids for segment in grid.segments]
    assert names
    assert not [name for name in names if name.startswith("head.")]
    assert not (folder / "run/adapter/head.safetensors").exists()


def test_every_site_goes_on_from_its_own_head_and_keeps_it(finished) -> None:
    folder, _, began, _ = finished
    heads = {}
    for site in SITES:
        first, second = began[site]
        assert first == b""
        heads[site] = kept(folder, site).read_bytes()
        assert second not in {b"", heads[site]}
        tensors = safetensors.torch.load(heads[site])
        assert set(tensors) == {"weight", "bias"}
        assert all(bool(tensor.abs().sum() > 0) for tensor in tensors.values())
    assert len(set(heads.values())) == 3


def test_the_adapter_is_used_with_a_site_s_head_and_not_without(finished, tmp_path: Path) -> None:
    folder, *_ = finished
    run, data = folder / "run", folder / "data" / "holdout.csv"
    with pytest.raises(ModelError, match="every site kept its own"):
        evaluate_run(run, data)
    metrics = {site: evaluate_run(run, data, personal=kept(folder, site)).metrics for site in SITES}
    assert len({m["loss"] for m in metrics.values()}) == 3
    answers = predict_run(run, data, personal=kept(folder, "site-1"))
    assert len(answers) == 30
    with pytest.raises(ModelError, match="every site kept its own"):
        export_run(run, tmp_path / "without")
    out = export_run(run, tmp_path / "with", personal=kept(folder, "site-2"))
    assert (out / "head.safetensors").read_bytes() == kept(folder, "site-2").read_bytes()
    merged = export_run(run, tmp_path / "merged", merged=True, personal=kept(folder, "site-2"))
    assert (merged / "head.safetensors").exists()
    arguments = ["evaluate", str(run), "--data", str(data)]
    assert isinstance(CliRunner().invoke(app, arguments).exception, ModelError)
    done = CliRunner().invoke(app, [*arguments, "--head", str(kept(folder, "site-1"))])
    assert done.exit_code == 0
    assert f"{metrics['site-1']['accuracy']:.4f}" in done.output


def test_a_head_has_its_noise_even_where_no_unit_was_sampled(
    tmp_path: Path, tiny_model: Path
) -> None:
    federation = make_federation(tmp_path, tiny_model, adapter=ADAPTER, evaluation=False)
    config = load_federation(federation)
    config = msgspec.structs.replace(
        config,
        privacy=msgspec.structs.replace(config.privacy, sample_rate=1e-6, steps_per_round=1),
        training=msgspec.structs.replace(config.training, optimizer="sgd"),
    )
    task = build_task(config, relative_to=tmp_path)
    model = task.build_model(seed=1)
    layout = task.begin_round(model, 1)
    plan = privacy_plan(config, config.sites[0])
    train_locally(
        model,
        adapter_bytes(model),
        task.load(tmp_path / "data/site-1.csv", unit="record"),
        config=config,
        task=task,
        plan=plan,
        layout=layout,
        rank=2,
        quantization=quantization(config, layout, layout.size),
    )
    moved = torch.cat([p.detach().reshape(-1) for p in model.head.parameters()])
    expected = (
        plan.noise_multiplier
        * plan.max_grad_norm
        * config.training.head_learning_rate
        / (plan.sample_rate * plan.population)
    )
    assert bool((moved != 0).all())
    assert 0.6 < float(moved.std()) / expected < 1.5  # 34 values


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluation": True}, "without a site's own parts"),
        (
            {"privacy": 'noise = "distributed"\ninsider_epsilon = 30.0', "steps": 1},
            "needs local noise",
        ),
    ],
)
def test_where_it_means_nothing_it_is_refused(
    tmp_path: Path, tiny_model: Path, changes: dict, words: str
) -> None:
    settings = {"adapter": ADAPTER, "evaluation": False} | changes
    with pytest.raises(ConfigError, match=words):
        make_federation(tmp_path, tiny_model, rounds=1, **settings)


def test_a_head_that_does_not_fit_is_refused() -> None:
    class WithHead(torch.nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.head = torch.nn.Linear(2, classes)

    own, names = ("head",), ("head.weight", "head.bias")
    model = WithHead(3)
    data = personal_bytes(model, own)
    assert set(safetensors.torch.load(data)) == {"weight", "bias"}  # as a finished adapter's file
    other = WithHead(3)
    set_personal(other, names, data)
    assert personal_bytes(other, own) == data
    with pytest.raises(ModelError, match=r"do not fit this model: head\.bias"):
        set_personal(WithHead(4), names, data)
    with pytest.raises(ModelError, match="safetensors"):
        set_personal(model, names, b"\x80\x04not a pickle to be opened")
    with pytest.raises(ModelError, match="to upload"):
        Layout.of(model, kept_back=own)
    with pytest.raises(ModelError, match="no part head"):
        personal_bytes(torch.nn.Linear(2, 2), own)


def test_heads_are_stored_with_their_update_and_sealed(tmp_path: Path) -> None:
    path = tmp_path / "updates.sqlite"
    store = UpdateStore(path, bytes(32))
    update = np.arange(4, dtype=np.int32)
    assert store.personal("run") == b""
    for number in (1, 2, 3):
        store.put("run", number, update, personal=b"a secret head %d" % number)
    store.put("other", 1, update)
    assert store.personal("run") == b"a secret head 3"
    assert store.personal("other") == b""
    store.forget("run", 3)
    assert store.personal("run") == b"a secret head 3"
    assert b"secret head" not in b"".join(f.read_bytes() for f in tmp_path.iterdir())
    shutil.copy(path, tmp_path / "copy.sqlite")
    from fmfl_secure.errors import RunError

    with pytest.raises(RunError, match="own parts of round 3 does not verify"):
        UpdateStore(tmp_path / "copy.sqlite", bytes([1]) + bytes(31)).personal("run")
