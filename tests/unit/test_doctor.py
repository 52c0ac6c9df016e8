"""`doctor` finds nothing on a machine that works, and each fault where one is made."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import fmfl_secure.doctor.machine
from fmfl_secure.cli import app
from fmfl_secure.doctor.machine import Finding, examine
from fmfl_secure.extras import how_to_install


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what takes seconds."""
    for name in ("_encrypt_and_decrypt", "_clip"):
        monkeypatch.setattr(fmfl_secure.doctor.machine, name, lambda: None)


def found(folder: Path, what: str) -> Finding:
    (finding,) = [each for each in examine(folder) if each.what == what]
    return finding


def test_a_machine_that_passes_these_tests_is_ready(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", str(tmp_path / "not" / "there" / "yet")])
    assert done.exit_code == 0, done.output
    assert "this machine is ready" in done.output
    assert not (tmp_path / "not").exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("quick")
def test_a_library_that_is_missing_is_a_fault_and_an_extra_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in {"opacus", "fastapi"}:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert found(tmp_path, "opacus").state == "fault"
    server = found(tmp_path, "a federation across machines")
    assert (server.state, server.advice) == ("missing", how_to_install("server"))
    done = CliRunner().invoke(app, ["doctor", str(tmp_path)])
    assert done.exit_code == 1
    assert "ready" not in done.output
    assert "what to do: Install this package again" in done.output


@pytest.mark.usefixtures("quick")
def test_a_full_disk_and_little_memory_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=2**30)
    monkeypatch.setattr("fmfl_secure.doctor.machine.shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr("fmfl_secure.doctor.machine.os.sysconf", lambda _: 2**15)
    assert found(tmp_path, "disk").state == "fault"
    assert found(tmp_path, "memory").state == "missing"


@pytest.mark.usefixtures("quick")
def test_a_place_whose_files_others_read_or_that_is_not_durable_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = "private and durable files"
    assert found(tmp_path, what).state == "ok"
    with monkeypatch.context() as patch:
        patch.setattr("fmfl_secure.doctor.machine._mode", lambda _: 0o100644)
        assert "others may read" in found(tmp_path, what).found

    def refuse(_: int) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr("fmfl_secure.doctor.machine.os.fsync", refuse)
    assert found(tmp_path, what).state == "fault"


def test_libraries_that_compute_wrongly_are_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregation.testing.works", lambda: False)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("gradients leak")

    monkeypatch.setattr("privacy.training.check_admission", broken)
    assert "came out wrong" in found(tmp_path, "encryption").found
    training = found(tmp_path, "private training")
    assert (training.state, training.found) == ("fault", "RuntimeError: gradients leak")
