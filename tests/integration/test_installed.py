"""The product in environments of its own: by the lock, as the container has it, and the oldest.

They take minutes and a package index or a folder of wheels.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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


def test_a_wheel_is_the_same_bytes_wherever_it_is_built(tmp_path: Path) -> None:
    found = []
    for name, mask in (("one", "022"), ("two", "000")):
        clone = committed(tmp_path / name)
        run("sh", "-c", f"umask {mask}; make wheel TOOLS={tmp_path}/tools", cwd=clone)
        (wheel,) = (clone / "build/wheel").glob("*.whl")
        found.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert found[0] == found[1]


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
