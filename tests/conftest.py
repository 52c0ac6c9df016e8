"""Shared by all tests: one thread, and what a whole federation needs, tiny and made on the spot."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # tests share `support`, and are no package
# Before NumPy and PyTorch are loaded, and for processes that tests start: the workers share the
# cores already, and threads of arithmetic wait for each other at full speed.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How busy a machine is decides no test.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

_MEMORY, _ROOM = "/dev/shm", 4 << 30  # bytes; a run takes a part of them


def _use_memory() -> None:
    """Has pytest's temporary folders in memory where that has room, and programs may be run there.

    Ledgers, journals and stores wait for the disk whenever they write, which was more than half of
    a federated test. They call `fsync` here as well; what it does for a machine without power no
    test can see.
    """
    with suppress(OSError):
        found = os.statvfs(_MEMORY)
        if found.f_bavail * found.f_frsize >= _ROOM and not found.f_flag & os.ST_NOEXEC:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _MEMORY)


_use_memory()

if TYPE_CHECKING:
    from postgres import Cluster
    from stores import Places


@pytest.hookimpl(optionalhook=True)  # the environment of the Flower tests has no xdist
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`, one more than there are cores: many tests wait for the disk or a process."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """No memory is held by files of a run that went well. Of others, the last three stay."""
    is_worker = hasattr(session.config, "workerinput")
    if not is_worker and exitstatus == 0 and os.environ.get("PYTEST_DEBUG_TEMPROOT") == _MEMORY:
        shutil.rmtree(session.config._tmp_path_factory.getbasetemp(), ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collecting imports stays: the collector of garbage goes through it at no time.

    It would, in every worker, over more than half a million objects of libraries.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_kept_measurements(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this machine measured before decides no test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_lines_by_the_clock() -> Iterator[None]:
    """A command that takes long on a busy machine says no more than on a quiet one."""
    from fmfl_secure.cli._heartbeat import Heartbeat

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Heartbeat, "_keep_telling", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """A command that a test runs sets the level of this process's log, as it should."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out most of a tiny run's time: plots and the admission gate have tests of their own.

    A process that a test starts and kills does the same for itself (`killer.py`).
    """
    monkeypatch.setattr("fmfl_secure.report.results.write_report", lambda *_: None)
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)


@pytest.fixture
def quick_worlds(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where a scenario is played over each transport (`contract_worlds`)."""
    monkeypatch.setattr("fmfl_secure.transports.flower.server._NODES_S", 0.05)


@pytest.fixture(
    params=[
        "local",
        pytest.param("https", marks=pytest.mark.slow),
        pytest.param("flower", marks=pytest.mark.slow),
    ]
)
def transport(request: pytest.FixtureRequest) -> str:
    """Name of a world of `contract_worlds`."""
    return str(request.param)


@pytest.fixture
def checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the admission gate of embedded runs, which has tests of its own."""
    monkeypatch.setattr(
        "fmfl_secure.transports.local.engine.check_admission", lambda *_, **__: None
    )


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A federation of four sites and two rounds of a step each, for modules that need no other."""
    from support import make_federation

    folder = tmp_path_factory.mktemp("four") / "federation"
    make_federation(folder, tiny_model, sites=4, rounds=2, steps=1, evaluation=False)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A copy of a module's `template`, for one test to use up."""
    return Path(shutil.copytree(template, tmp_path / "federation"))


@pytest.fixture
def main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the entry point as a shell would; returns exit code, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        from fmfl_secure import cli

        monkeypatch.setattr(sys, "argv", ["fmfl-secure", *(str(a) for a in arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a two-layer BERT of width 16 and a small word-piece tokenizer."""
    from support import write_tiny_bert

    return write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A private PostgreSQL cluster; skips, and says so, where the server is not installed."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed (psycopg)")
    from postgres import Cluster, binaries

    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    cluster = Cluster(programs)
    yield cluster
    cluster.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Places:
    """Where ledgers may be made: every test that asks for it runs with both stores."""
    from stores import PostgresPlaces, SqlitePlaces

    if request.param == "sqlite":
        return SqlitePlaces(tmp_path)
    return PostgresPlaces(request.getfixturevalue("postgres"))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory):
    """Finds the folder of a tiny model of any architecture, made when first asked for."""
    from tiny_models import write_tiny

    folder = tmp_path_factory.mktemp("models")

    def find(model_type: str) -> Path:
        path = folder / model_type
        return path if path.exists() else write_tiny(path, model_type)

    return find
