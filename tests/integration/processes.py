"""A federation of real processes on loopback: one server, one decryptor, sites; each killable.

They are forked from a server that imported torch once, so starting one is cheap. A process can be
armed with a point of `killer.py`, where it kills itself with SIGKILL.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import forked
import numpy as np
from invented import inventing
from killer import arm
from support import Quiet

from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.report.results import write_results
from fmfl_secure.runtime.run_driver import RunDriver
from fmfl_secure.runtime.task_board import Step
from fmfl_secure.transports.local.engine import LocalEngine

INTERRUPTED = 75  # docs/exit-codes.md: to be started again


def _prepare(folder: Path, name: str, point: str) -> None:
    import torch

    torch.set_num_threads(1)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    log = folder / f"{name}.log"
    logging.basicConfig(
        filename=log,
        level=logging.INFO,
        force=True,
        format="%(asctime)s %(name)s %(message)s %(threadName)s",
    )
    logging.captureWarnings(True)
    for each in filter(None, point.split("+")):
        if each.startswith("seeded:"):
            seeded(Path(each.removeprefix("seeded:")))
        elif each.startswith("hands:"):
            handing(Path(each.removeprefix("hands:")))
        elif each.startswith("signs:"):
            signing(int(each.removeprefix("signs:")))
        elif each.startswith("faulty:"):
            faulty(int(each.removeprefix("faulty:")))
        elif each in _LIARS:
            _LIARS[each]()
        else:
            arm(each)


class _Stream:
    """Stands for `os` and `secrets` where randomness is drawn, and repeats itself."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, seed: object) -> None:
        digest = hashlib.sha256(repr(seed).encode()).digest()
        self._generator = np.random.default_rng(list(digest))

    def urandom(self, size: int) -> bytes:
        return self._generator.bytes(size)

    def getpid(self) -> int:
        return os.getpid()

    def randbits(self, bits: int) -> int:
        return int.from_bytes(self._generator.bytes(bits // 8), "little")


def seeded(record: Path) -> None:
    """Have sampling, noise and rounding of (site, round) repeat, and sums written down.

    For tests alone: the product has no way to seed any of them.
    """
    import aggregation.ckks.quantization
    import privacy.mechanism.keystream
    import privacy.mechanism.sampling
    from fmfl_secure.parties.coordinator import Coordinator
    from fmfl_secure.parties.site import Site

    stream = _Stream()
    privacy.mechanism.keystream.os = privacy.mechanism.sampling.os = stream
    aggregation.ckks.quantization.secrets = stream
    train, following = Site.train, Coordinator.following

    def repeated(self, plan, *rest, **named):
        stream.restart((self.name, plan.round))
        return train(self, plan, *rest, **named)

    def recorded(self, plan, total, *rest, **named):
        record.mkdir(exist_ok=True)
        np.save(record / f"{plan.round}.npy", total)
        return following(self, plan, total, *rest, **named)

    Site.train, Coordinator.following = repeated, recorded


def faulty(seed: int) -> None:
    """Have this process's files fail now and then, for up to a second and a half."""
    import pytest
    from faults import Faults

    faults = Faults(clock=time.monotonic)
    faults.ask = faults.at_random(seed, one_in=150, longest_s=1.0)
    patch = pytest.MonkeyPatch()
    patch.setattr("fmfl_secure.runtime.patience._LONGEST_S", 1.0)
    faults.install(patch)


def signing(min_cohort: int) -> None:
    """Have the coordinator sign plans for so small a cohort, whatever the settings say."""
    import msgspec

    from aggregation import Coordinator

    sign = Coordinator.plan

    def lying(self, plan):
        return sign(self, msgspec.structs.replace(plan, min_cohort=min_cohort))

    Coordinator.plan = lying


def handing(earlier: Path) -> None:
    """Have the server hand each site of round 2 another adapter than the last sum gave.

    Site 1 and 5 a made-up one, site 2 the one of round 1, site 3 one that the plan does not name,
    and site 4 that of an earlier run, with what sites signed of it.
    """
    import msgspec

    from fmfl_secure.run.history import ReleaseHistory, encode_history
    from fmfl_secure.runtime.attempt_driver import AttemptDriver
    from fmfl_secure.runtime.task_board import Document
    from fmfl_secure.runtime.waiting import Waiter
    from fmfl_secure.storage.run_store import RunStore
    from fmfl_secure.vectors.adapter import Adapter, adapter_digest

    hand = AttemptDriver._hand

    def lying(self, attempt, parties, step, documents, **more):
        if step != Step.READY or attempt.plan.round != 2:
            hand(self, attempt, parties, step, documents, **more)
            return
        coordinator = self._coordinator
        known = Adapter.read(coordinator.adapter)
        moved = {**known.tensors, "head.bias": known.tensors["head.bias"] + 1.0}
        made_up = Adapter(moved, known.moments).encode()
        before = coordinator.store.public().initial_adapter
        old = RunStore(earlier)
        other = old.adapter_after(1)
        kept = old.verdicts_since(0, 0)
        history = encode_history(
            [ReleaseHistory(k.plan, k.cohort, tuple(k.verdicts.values())) for k in kept]
        )

        def signed(adapter: bytes) -> bytes:
            plan = msgspec.structs.replace(attempt.plan, adapter_digest=adapter_digest(adapter))
            return coordinator._protocol.plan(plan)

        lies = {
            "site-1": {"plan": signed(made_up), "adapter": made_up},
            "site-2": {"plan": signed(before), "adapter": before},
            "site-3": {"plan": attempt.message, "adapter": made_up},
            "site-4": {"plan": signed(other), "adapter": other, "history": history},
            "site-5": {"plan": signed(made_up), "adapter": made_up},
        }
        for name in parties:
            told = {what: Document([data]) for what, data in lies[name].items()}
            hand(self, attempt, [name], step, told, **more)

    missing = Waiter.missing

    def patient(self, *given, needed=0, **more):
        """However many refuse: each is to hear its own lie."""
        return missing(self, *given, **more)

    Waiter.missing = patient
    AttemptDriver._hand = lying


def forgetful() -> None:
    """Have a site remember no adapter, as 0.1.0's after a restart.

    Its word about a plan that was made for it alone is refused, and it stays where it is.
    """
    import fmfl_secure.parties.expected_adapter as module
    from fmfl_secure.errors import Rejected
    from fmfl_secure.runtime.agents.site import SiteAgent

    ready = SiteAgent._ready

    def stubborn(self, work):
        with suppress(Rejected):
            ready(self, work)

    SiteAgent._ready = stubborn

    module.said_of = lambda *_: None
    module.ExpectedAdapter.begin = module.ExpectedAdapter._note = lambda *_: None


def careless() -> None:
    """Have the decryptor hold plans to nothing of its own: it is in league with the coordinator."""
    import fmfl_secure.parties.decryptor

    fmfl_secure.parties.decryptor.objection = lambda *_: lambda _: None


def invents() -> None:
    """Have the server name a run that nobody called, to be joined and then to be trained in."""
    RunDriver._call = inventing([Step.JOIN, Step.READY])


def credulous() -> None:
    """Have a site reserve for whatever run it hears of, as 0.1.0's did."""
    import fmfl_secure.parties.site

    fmfl_secure.parties.site.require_call = lambda *_, **__: None


def spoils() -> None:
    """Seal residues that are no secret for the decryptor, and sign that."""
    from sealed_falsely import at_random

    from aggregation.roles.site_secrets import SiteSecrets

    SiteSecrets._seal = lambda self, cohort, _: at_random(b"", self, cohort)


_LIARS = {
    "careless": careless,
    "forgetful": forgetful,
    "invents": invents,
    "credulous": credulous,
    "spoils": spoils,
}


def serve(kit: Path, output: Path, logs: Path, point: str = "") -> None:
    """The server's process."""
    import fmfl_secure.runtime.server
    from fmfl_secure.transports.https.server import Service

    _prepare(logs, "server", point)
    # Here, where what it takes is loaded: the process for it has tests of its own.
    fmfl_secure.runtime.server.write_results_apart = lambda store, **_: write_results(store)
    fmfl_secure.runtime.server.begin_results_apart = lambda store, **_: write_results(store)
    service = Service(Kit(kit), output)

    def started(port: int) -> None:
        beside = logs / "port.new"
        beside.write_text(str(port))
        beside.replace(logs / "port")

    service.serve(started=started)


def decrypt(kit: Path, logs: Path, point: str = "") -> None:
    """The decryptor's process."""
    from fmfl_secure.transports.https.processes.decryptor import DecryptorProcess

    _prepare(logs, "decryptor", point)
    process = DecryptorProcess(Kit(kit), once=True)
    signal.signal(signal.SIGTERM, lambda *_: process.stop())
    process.run()


def hold(kit: Path, logs: Path, point: str = "") -> None:
    """A custodian's process."""
    from fmfl_secure.transports.https.processes.custodian import CustodianProcess

    _prepare(logs, kit.name, point)
    process = CustodianProcess(Kit(kit), once=True)
    signal.signal(signal.SIGTERM, lambda *_: process.stop())
    process.run()


def run_embedded(federation: Path, output: Path, sums: Path) -> None:
    """The same by the embedded engine, with the same randomness, in a process of its own."""
    process = forked.start(_embedded, federation, output, sums)
    process.join()
    assert process.exitcode == 0


def _embedded(federation: Path, output: Path, sums: Path) -> None:
    import torch

    torch.set_num_threads(1)
    seeded(sums)
    LocalEngine(federation, output, resume=False, observer=Quiet()).run()


def join(kit: Path, logs: Path, point: str = "") -> None:
    """A site's process."""
    from fmfl_secure.transports.https.processes.site import SiteProcess

    _prepare(logs, kit.name, point)
    process = SiteProcess(Kit(kit), once=True)
    signal.signal(signal.SIGTERM, lambda *_: process.stop())
    process.run()


def _ended(target: Callable[..., None], arguments: tuple[object, ...]) -> None:
    """End as a command does that an error ends."""
    from fmfl_secure.cli.exit_codes import ExitCode, exit_code

    try:
        target(*arguments)
    except Exception as error:
        if exit_code(error) != ExitCode.INTERRUPTED:
            raise
        logging.getLogger("processes").warning("interrupted: %s", error)
        sys.exit(ExitCode.INTERRUPTED)


class Federation:
    """Starts, kills and starts again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(exist_ok=True)
        self.output = folder / "run"
        self.processes: dict[str, BaseProcess] = {}

    def start(self, name: str, point: str = "") -> None:
        kit = self.folder / "kits" / name
        target, arguments = join, (kit, self.logs, point)
        if name == "server":
            target, arguments = serve, (kit, self.output, self.logs, point)
        elif name == "decryptor":
            target = decrypt
        elif (kit / "custodian.toml").exists():
            target = hold
        self.processes[name] = forked.start(_ended, target, arguments, name=name)

    def kill(self, name: str) -> None:
        process = self.processes[name]
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()

    def wait(self, timeout_s: float = 900.0, *, restart: bool = False) -> dict[str, int]:
        """Wait for all to end; those that were killed are started again, if asked."""
        deadline = time.monotonic() + timeout_s
        killed: dict[str, int] = {}
        while any(p.exitcode is None for p in self.processes.values()):
            if time.monotonic() > deadline:
                raise TimeoutError(self.state())
            for name, process in list(self.processes.items()):
                if restart and process.exitcode == INTERRUPTED:
                    self.start(name)
                elif process.exitcode not in {None, 0, -signal.SIGKILL}:
                    raise RuntimeError(self.state())
                if restart and process.exitcode == -signal.SIGKILL:
                    killed[name] = killed.get(name, 0) + 1
                    self.start(name)
            time.sleep(0.05)
        return killed

    def state(self) -> str:
        logs = "\n".join(
            f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.logs.glob("*.log")
        )
        codes = {name: process.exitcode for name, process in self.processes.items()}
        return f"{codes}\n{logs}"

    def close(self) -> None:
        for process in self.processes.values():
            if process.exitcode is None:
                process.kill()
            process.join()
