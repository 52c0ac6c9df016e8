"""What short commands load: their time is that of their imports, and imports can be counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import make_federation
from test_cli import COMMANDS

from fmfl_secure.errors import ServiceError
from fmfl_secure.settings.service import Operations
from fmfl_secure.transports.https.health import ask
from fmfl_secure.transports.https.metrics import ClientMetrics
from fmfl_secure.transports.https.processes.operations import OperationsApp, OperationsPort

MODELS = {"torch", "transformers", "peft", "opacus", "scipy", "matplotlib", "dp_accounting"}
SERVICE = {"fastapi", "starlette", "uvicorn", "httpx", "jinja2", "prometheus_client"}
FILES = {"pyarrow", "PIL", "safetensors"}
ARITHMETIC = {"numpy", "tenseal", "aggregation", "privacy"}
EVERYTHING = MODELS | SERVICE | FILES | ARITHMETIC
TOKEN = "a-token-of-this-kit"

# Each command line in turn, as a user types it; then what all of them loaded.
RUN = """
import contextlib, io, sys
from fmfl_secure.cli import main
for line in sys.stdin.read().splitlines():
    sys.argv = ["fmfl-secure", *line.split()]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main()
print(*{name.partition(".")[0] for name in sys.modules})
"""


def loaded_by(*lines: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input="\n".join(lines),
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return set(done.stdout.split())


def write_kit(folder: Path) -> Path:
    folder.mkdir()
    (folder / "service.toml").write_text("[operations]\nport = 1\n")  # where nobody listens
    (folder / "operations.token").write_text(TOKEN)
    (folder / "operations.token").chmod(0o600)
    return folder


def test_help_loads_nothing_that_computes() -> None:
    lines = [" ".join([*command, "--help"]) for command in COMMANDS]
    assert loaded_by("--help", *lines) & EVERYTHING == set()


def test_health_loads_nothing_that_computes_and_no_service(tmp_path: Path) -> None:
    assert loaded_by(f"health {write_kit(tmp_path / 'kit')}") & EVERYTHING == set()


def test_a_ledger_is_shown_without_machine_learning(tmp_path: Path, tiny_model: Path) -> None:
    make_federation(tmp_path, tiny_model)
    ledger = tmp_path / "sites/site-1/ledger.sqlite"
    found = loaded_by(f"ledger show {ledger}", f"ledger verify {ledger}")
    assert "privacy" in found, "it was shown"
    assert found & (MODELS | SERVICE | FILES) == set()


def test_a_kit_is_unsealed_and_a_member_shown_without_machine_learning(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("a passphrase for a test")
    (tmp_path / "a.kit").write_bytes(b"no kit")
    opened = f"unseal {tmp_path / 'a.kit'} --output {tmp_path / 'a'}"
    found = loaded_by(
        f"{opened} --passphrase-file {tmp_path / 'passphrase'}", f"members show {tmp_path}"
    )
    assert found & (MODELS | SERVICE | FILES) == set()


@pytest.mark.slow  # loads PyTorch, to see that it works
def test_a_doctor_loads_what_it_looks_at_and_no_more(tmp_path: Path) -> None:
    found = loaded_by(f"doctor {tmp_path}")
    assert {"torch", "opacus", "tenseal"} <= found
    assert found & ({"transformers", "peft", "matplotlib"} | SERVICE) == set()


def test_health_asks_the_process(tmp_path: Path) -> None:
    kit, trouble = write_kit(tmp_path / "kit"), [""]
    app = OperationsApp(
        token=TOKEN,
        template="decryptor.html",
        page=dict,
        ready=lambda: trouble[0],
        registry=ClientMetrics().registry,
        certificate=kit / "tls/certificate.pem",
    )
    with OperationsPort(app, Operations(port=0)) as port:
        assert ask(kit, port=port.port) == "ready"
        trouble[0] = "the server does not answer"
        with pytest.raises(ServiceError, match="not ready: the server does not answer"):
            ask(kit, port=port.port)
        (kit / "operations.token").write_text("another-token-than-that")
        with pytest.raises(ServiceError, match=r"not ready: the kit's operations\.token"):
            ask(kit, port=port.port)
    with pytest.raises(ServiceError, match="nothing healthy answers on port 1"):
        ask(kit)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        pytest.param(None, "is no party's kit", id="missing"),
        pytest.param("[operations", "is no party's kit", id="no TOML"),
        pytest.param("[operations]\nport = 70000\n", r"\[operations\]", id="no port"),
        pytest.param("operations = 1\n", r"\[operations\]", id="no section"),
    ],
)
def test_health_of_what_is_no_kit_is_refused(tmp_path: Path, text: str | None, what: str) -> None:
    kit = write_kit(tmp_path / "kit")
    (kit / "service.toml").unlink()
    if text is not None:
        (kit / "service.toml").write_text(text)
    with pytest.raises(ServiceError, match=what):
        ask(kit)
