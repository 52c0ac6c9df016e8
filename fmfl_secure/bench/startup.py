"""Measures how a federation's processes start, with a base model of 1.1 billion configured.

The base model is a configuration and no weights: a server and a decryptor never open it, and would
stop here if they did. The start file is declared with the shapes that a rank gives on such a model.
Other commands are started on a federation of MiniLM, those that look at data with made-up rows.

`fmfl-secure bench startup` (`cli.bench`) calls `measure_startup`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from fmfl_secure.bench._memory import peak_mib, resident_mib
from fmfl_secure.errors import RunError, ServiceError
from fmfl_secure.parties.workspace import initialise
from fmfl_secure.planning.plans import quantization
from fmfl_secure.provisioning.provision import provision
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.templates import federation_toml as template
from fmfl_secure.transports.https.health import ask
from fmfl_secure.transports.https.ports import free_port
from fmfl_secure.vectors.adapter import Adapter
from fmfl_secure.vectors.adapter_files import AdapterFiles, TensorFile, TensorSource
from fmfl_secure.vectors.layout import FlatLayout, TensorSlot
from fmfl_secure.vectors.start import RunStart
from fmfl_secure.vectors.start_file import START_FILE, write_start

# A Llama of 16 layers of width 2048, with an eighth of that for keys and values: as `bench large`.
_LAYERS: Final = 16
_WIDTH: Final = 2048
_OUTPUTS: Final = {"q_proj": 2048, "v_proj": 512}
_READY_S: Final = 120.0
_TICK_S: Final = 0.2
_LABELS: Final = ("negative", "positive")  # the template's
_COMMAND: Final = (sys.executable, "-m", "fmfl_secure")


def measure_startup(repeats: int, rank: int) -> dict[str, Any]:
    """Start server, decryptor and the short commands, and see what they took.

    Args:
        repeats: Starts of each; medians are shown.
        rank: Of the adapter.

    Returns:
        CPU seconds, children included, until a process was ready or a command had ended; memory in
        MiB at that time, and its peak until then; and what is wanted of both.
    """
    with tempfile.TemporaryDirectory(prefix="fmfl-startup-") as name:
        folder = Path(name)
        adapter_mib = _federation(folder, rank)
        starts = [_processes(folder, folder / f"run-{number}") for number in range(repeats)]
        commands = _commands(folder, repeats)
    wanted_mib = round(150 + 4 * adapter_mib, 1)
    return {
        "base_model": f"{_LAYERS} layers of width {_WIDTH}, 1.1 billion parameters, no weights",
        "adapter_mib": round(adapter_mib, 2),
        "wanted": {"cpu_s": 2.0, "peak_mib": wanted_mib},
        **{
            party: {
                "cpu_s": round(statistics.median(each[party][0] for each in starts), 2),
                "resident_mib": round(statistics.median(each[party][1] for each in starts), 1),
                "peak_mib": round(statistics.median(each[party][2] for each in starts), 1),
            }
            for party in ("serve", "decryptor")
        },
        "commands_cpu_s": commands,
    }


def federation_toml(rank: int) -> str:
    """Settings of a federation that fine-tunes the language model of `measure_startup`."""
    sites = "".join(f'\n[[sites]]\nname = "site-{n}"\npopulation = 500\n' for n in range(1, 5))
    return f"""
[federation]
name = "startup"
rounds = 10
[model]
base = "llama-1.1b"
[task]
kind = "causal-lm"
prompt_column = "prompt"
response_column = "response"
[adapter]
kind = "lora"
rank = {rank}
[privacy]
epsilon = 8.0
sample_rate = 0.05
{sites}"""


def _federation(folder: Path, rank: int) -> float:
    """Kits of a federation, and what its server starts from; returns the adapter's MiB."""
    path = folder / "federation.toml"
    path.write_text(federation_toml(rank), encoding="utf-8")
    port = free_port()
    provision(path, folder / "kits", url=f"https://localhost:{port}")
    for kit in (folder / "kits").iterdir():
        if (kit / "service.toml").exists():
            where = (
                f'[listen]\naddress = "127.0.0.1"\nport = {port}\n'
                if kit.name == "server"
                else f'[server]\nurl = "https://localhost:{port}"\n'
            )
            text = f"{where}[operations]\nport = {free_port()}\n"
            (kit / "service.toml").write_text(text, encoding="utf-8")
    for place in (folder / "kits/server", folder / "kits/decryptor"):
        _write_configuration(place / "llama-1.1b")
    start = declared_start(folder / "federation.toml")
    write_start(start, folder / "kits/server" / START_FILE)
    return len(start.adapter) / (1 << 20)


def _write_configuration(folder: Path) -> None:
    folder.mkdir()
    config = {"model_type": "llama", "hidden_size": _WIDTH, "num_hidden_layers": _LAYERS}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def declared_start(federation: Path) -> RunStart:
    """A start file's content by shapes alone."""
    config = load_federation(federation)
    rank = config.adapter.rank
    prefix = "encoder.base_model.model.model.layers"
    shapes = {
        f"{prefix}.{layer}.self_attn.{name}.lora_{half}.default.weight": shape
        for layer in range(_LAYERS)
        for name, outputs in _OUTPUTS.items()
        for half, shape in (("A", (rank, _WIDTH)), ("B", (outputs, rank)))
    }
    layout = FlatLayout(tuple(TensorSlot(name, shapes[name]) for name in sorted(shapes)))
    sources = {name.removeprefix("encoder."): TensorSource(name, shapes[name]) for name in shapes}
    return RunStart(
        settings_digest=config.digest,
        base_model="llama-1.1b",
        base_model_digest="sha256:" + "0" * 64,
        base_model_license="",
        layouts=(layout,),
        grids=(quantization(config, layout, layout.size),),
        adapter=Adapter({n: np.zeros(s, np.float32) for n, s in shapes.items()}, {}).encode(),
        files=AdapterFiles(
            {"task.json": "{}"},
            {"adapter_model.safetensors": TensorFile(sources, {"format": "pt"})},
        ),
    )


def _processes(folder: Path, run: Path) -> dict[str, tuple[float, float, float]]:
    kits = folder / "kits"
    with (
        _started("serve", kits / "server", "--output", run) as server,
        _started("decryptor", kits / "decryptor") as decryptor,
    ):
        return {"serve": server, "decryptor": decryptor}


@contextmanager
def _started(command: str, kit: Path, *rest: object) -> Iterator[tuple[float, float, float]]:
    """A process that has said it is ready: the CPU seconds and the MiB that it took until then."""
    process = subprocess.Popen(  # noqa: S603 - ours
        [*_COMMAND, command, str(kit), *map(str, rest)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(process, kit)
        yield _cpu_s(process.pid), resident_mib(process.pid), peak_mib(process.pid)
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], kit: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            ask(kit)
        except ServiceError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RunError(f"the process of {kit} did not become ready") from None
            time.sleep(_TICK_S)
        else:
            return


def _cpu_s(pid: int) -> float:
    # After the name, which may hold spaces: utime, stime, and those of children it waited for.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _commands(folder: Path, repeats: int) -> dict[str, float]:
    kit = folder / "kits/site-1"
    commands: dict[str, Sequence[object]] = {
        "--help": ("--help",),
        "ledger show": ("ledger", "show", kit / "ledger.sqlite"),
        "ledger verify": ("ledger", "verify", kit / "ledger.sqlite"),
        "doctor": ("doctor", kit),
    }
    found = {name: _median(_command, command, repeats) for name, command in commands.items()}
    found |= _commands_of_one_s_own(folder / "pilot", repeats)
    with _started("serve", folder / "kits/server", "--output", folder / "run-health"):
        found["health"] = _median(_command, ("health", folder / "kits/server"), repeats)
    return found


def _commands_of_one_s_own(pilot: Path, repeats: int) -> dict[str, float]:
    """Commands that look at a model and at data: the first time, and again."""
    _pilot(pilot)
    commands = {"plan": ("plan", pilot), "check": ("check", pilot, "site-1")}
    found = {}
    for name, command in commands.items():
        cache = pilot / f"cache-{name}"
        found[f"{name}, first"] = _median(lambda c, at=cache: _afresh(c, at), command, repeats)  # type: ignore[misc]
        found[f"{name}, again"] = _median(lambda c, at=cache: _command(c, at), command, repeats)  # type: ignore[misc]
    return found


def _afresh(command: Sequence[object], cache: Path) -> float:
    shutil.rmtree(cache, ignore_errors=True)
    return _command(command, cache)


def _pilot(folder: Path) -> None:
    """A federation of MiniLM, with 500 made-up rows at each site."""
    values = {"sites.population": 500, "privacy.epsilon": 3.0}
    folder.mkdir()
    settings = template("pilot", 4, values=values)
    (folder / "federation.toml").write_text(settings, encoding="utf-8")
    initialise(folder, epsilon=None, delta=None)
    (folder / "data").mkdir()
    for site in range(1, 5):
        rows = (f"word{n} word{n % 7} word{n % 11},{_LABELS[n % 2]}\n" for n in range(500))
        file = folder / f"data/site-{site}.csv"
        file.write_text("text,label\n" + "".join(rows), encoding="utf-8")


def _median(
    action: Callable[[Sequence[object]], float], argument: Sequence[object], repeats: int
) -> float:
    return round(statistics.median(action(argument) for _ in range(repeats)), 2)


def _command(arguments: Sequence[object], cache: Path | None = None) -> float:
    """CPU seconds of a command; what it keeps for the next time is in this folder."""
    process = subprocess.Popen(  # noqa: S603 - ours
        [*_COMMAND, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | ({} if cache is None else {"XDG_CACHE_HOME": str(cache)}),
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # A doctor that finds something says so by 1, and here the base model's weights are not there.
    if process.returncode not in {0, 1 if "doctor" in arguments else 0}:
        raise RunError(f"{arguments[0]} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime
