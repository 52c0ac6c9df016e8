"""What trackers are told of a run: what may leave, and nothing else, whatever the run hears."""

from __future__ import annotations

import importlib
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import Quiet, settings

from fmfl_secure.errors import ConfigError
from fmfl_secure.planning.answers import answer_layout
from fmfl_secure.run.observer import Observer
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.run.trackers import may_leave, tracked
from fmfl_secure.settings.federation import FederationConfig, load_federation

SECRET = "patient-4711"
PRIVATE = "site-of-a-rare-disease"
PUBLIC = {"public/accuracy", "public/macro_f1"}
NUMBERS = {"sites", "upload_bytes", "epsilon"}


@pytest.fixture
def config(tmp_path: Path) -> FederationConfig:
    (tmp_path / "federation.toml").write_text(settings(Path("none")))
    return load_federation(tmp_path / "federation.toml")


@pytest.fixture
def asking(tmp_path: Path) -> FederationConfig:
    text = settings(Path("none"), evaluation=False)
    question = '[question]\nwhat = ["labels"]\nepsilon = 1.0\n'
    (tmp_path / "asks.toml").write_text(f"{text}\n{question}")
    return load_federation(tmp_path / "asks.toml")


def finished(**more: Any) -> RoundRecord:
    """A round of whose record every text could be a secret."""
    return RoundRecord(
        **{
            "round": 1,
            "status": "released",
            "attempts": 1,
            "cohort": ("site-1", "site-2", PRIVATE),
            "refusals": {PRIVATE: SECRET},
            "adapter_digest": SECRET,
            "release_digest": SECRET,
            "metrics": {"accuracy": 0.5, "macro_f1": 0.25},
            "at": SECRET,
        }
        | more
    )


class TensorBoardCalls:
    """As documented: `Writer(folder).add_scalar(tag, data, step)`, `flush()`, `close()`."""

    def __init__(self, calls: list[Any]) -> None:
        self._calls = calls

    def __call__(self, output: str) -> TensorBoardCalls:
        assert isinstance(output, str)
        self._calls.append(("writer", Path(output).name))
        return self

    def add_scalar(self, tag: str, data: float, step: int) -> None:
        self._calls.append((tag, data, step))

    def flush(self) -> None: ...

    def close(self) -> None:
        self._calls.append(("close",))


class MLflowCalls:
    """As documented: the calls of `MlflowClient` that are used."""

    def __init__(self, calls: list[Any], *, known: bool) -> None:
        self._calls, self._known = calls, known

    def __call__(self, tracking_uri: str) -> MLflowCalls:
        self._calls.append(("client", tracking_uri))
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        return types.SimpleNamespace(experiment_id="7") if self._known else None

    def create_experiment(self, name: str) -> str:
        self._calls.append(("experiment", name))
        return "7"

    def create_run(self, experiment_id: str, *, run_name: str) -> Any:
        assert experiment_id == "7"
        self._calls.append(("run", run_name))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r"))

    def log_metric(self, run_id: str, key: str, value: float, *, step: int) -> None:
        self._calls.append((key, value, step))

    def set_terminated(self, run_id: str) -> None:
        self._calls.append(("close",))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Everything that reaches a tracker's library."""
    told: list[Any] = []
    summary = types.SimpleNamespace(Writer=TensorBoardCalls(told))
    mlflow = types.SimpleNamespace(MlflowClient=MLflowCalls(told, known=False))
    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "tensorboard.summary", summary)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    return told


def live(observer: Observer, record: RoundRecord) -> None:
    """All that a run tells."""
    observer.run_started("00ff", first_round=1, rounds=1)
    observer.site_refused(PRIVATE, "failed", SECRET)
    for step in range(3):
        observer.site_training(1, PRIVATE, step, 2)
    observer.round_finished(record, {"site-1": 1.5, PRIVATE: 2.5}, 1234)


@pytest.mark.parametrize("place", ["tensorboard:runs", "mlflow:http://tracker.example"])
def test_only_what_may_leave_is_told(
    config: FederationConfig, calls: list[Any], place: str
) -> None:
    quiet = Quiet()
    with tracked(config, [place], quiet) as observer:
        live(observer, finished())
    assert quiet.refused == {PRIVATE: ("failed", SECRET)}, "people here are told everything"
    figures = [call for call in calls if len(call) == 3]
    assert {name for name, _, _ in figures} == PUBLIC | NUMBERS
    assert dict(call[:2] for call in figures) == {
        "public/accuracy": 0.5,
        "public/macro_f1": 0.25,
        "sites": 3.0,
        "upload_bytes": 1234.0,
        "epsilon": 2.5,
    }
    assert {step for *_, step in figures} == {1}
    assert SECRET not in repr(calls)
    assert PRIVATE not in repr(calls)
    assert calls[-1] == ("close",)


def test_answers_are_told_with_what_noise_leaves_of_them(asking: FederationConfig) -> None:
    released = tuple(range(answer_layout(asking).size))
    record = finished(metrics={}, answer=released)
    told = may_leave(asking, record, {"site-1": 1.0}, 10)
    answers = {name for name in told if name.startswith("answers/labels/")}
    assert set(told) - answers == NUMBERS
    assert {f"answers/labels/no{end}" for end in ("", "/low", "/high")} <= answers
    lost = msgspec.structs.replace(record, status="lost")
    assert set(may_leave(asking, lost, {}, 0)) == {"sites", "upload_bytes"}


def test_several_are_told_and_one_that_fails_ends_nothing(
    config: FederationConfig,
    calls: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("the tracker's disk is full")

    monkeypatch.setattr(TensorBoardCalls, "add_scalar", fails)
    with tracked(config, ["tensorboard:runs", "mlflow:runs"], Quiet()) as observer:
        live(observer, finished())
    assert "is told nothing more of this run: the tracker's disk is full" in caplog.text
    assert {call[0] for call in calls if len(call) == 3} == PUBLIC | NUMBERS


def test_names_that_mlflow_takes_none_of_stay_apart(
    config: FederationConfig, calls: list[Any]
) -> None:
    with tracked(config, ["mlflow:runs"], Quiet()) as observer:
        observer.run_started("00ff", first_round=1, rounds=1)
        names = {"a?": 1.0, "a!": 2.0, "a b-c./d_1": 3.0}
        observer.round_finished(finished(metrics=names), {}, 0)
    told = [call[0] for call in calls if len(call) == 3]
    assert told[:3] == ["public/a_x3f_", "public/a_x21_", "public/a b-c./d_1"]


@pytest.mark.parametrize("extra", ["tensorboard", "mlflow"])
def test_what_is_not_installed_is_named_with_its_extra(
    config: FederationConfig, monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (wanted,) = project["optional-dependencies"][extra]
    monkeypatch.setattr(
        "fmfl_secure.extras.importlib.metadata.requires",
        lambda _: [f'{wanted}; extra == "{extra}"'],
    )
    real = importlib.import_module

    def absent(name: str) -> types.ModuleType:
        if name.partition(".")[0] == extra:
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr("fmfl_secure.run.trackers.importlib.import_module", absent)
    with (
        pytest.raises(ConfigError, match=f"{extra} is not installed") as refused,
        tracked(config, [f"{extra}:runs"], Quiet()),
    ):
        pass
    assert refused.value.hint == f"pip install '{wanted}'"


@pytest.mark.parametrize("place", ["tensorboard", "tensorboard:", "wandb:x", ""])
def test_a_tracker_that_is_none_is_refused(config: FederationConfig, place: str) -> None:
    with (
        pytest.raises(ConfigError, match="expected tensorboard:FOLDER or mlflow:URI"),
        tracked(config, [place], Quiet()),
    ):
        pass


def test_a_tracker_that_refuses_its_place_is_no_bug(
    config: FederationConfig, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise RuntimeError("this store is no more")

    monkeypatch.setattr(MLflowCalls, "__call__", refuses)
    with (
        pytest.raises(ConfigError, match="'mlflow:runs' cannot be used: this store is no more"),
        tracked(config, ["mlflow:runs"], Quiet()),
    ):
        pass


def test_mlflow_is_told_to_report_nothing_of_its_own(
    config: FederationConfig, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    with tracked(config, ["mlflow:runs"], Quiet()):
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def test_the_real_tensorboard_reads_what_was_written(
    config: FederationConfig, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed (extra tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracked(config, [f"tensorboard:{tmp_path}"], Quiet()) as observer:
        live(observer, finished())
    (written,) = tmp_path.glob("*-00ff")
    read = EventAccumulator(str(written))
    read.Reload()
    assert set(read.Tags()["tensors"]) == PUBLIC | NUMBERS


def test_the_real_mlflow_keeps_what_was_told_and_nobody_s_name(
    config: FederationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed (extra mlflow)")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with tracked(config, [f"mlflow:{tmp_path}"], Quiet()) as observer:
        live(observer, finished())
    client = mlflow.MlflowClient(tracking_uri=str(tmp_path))
    experiment = client.get_experiment_by_name(config.federation.name)
    (run,) = client.search_runs([experiment.experiment_id])
    assert set(run.data.metrics) == PUBLIC | NUMBERS
    assert set(run.data.tags) == {"mlflow.runName"}
