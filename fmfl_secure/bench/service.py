"""Load: simulated sites over real HTTPS, with real keys and ciphertexts, beside no network at all.

Server and decryptor are the product's processes, started from provisioned kits; sites are real
agents with simulated participants, many in a process. Only training is left out.

`fmfl-secure bench service` (`cli.bench`) calls `measure`: it provisions kits, starts the
processes, collects what they measured, and then runs rounds of the same work by calls alone.
"""

from __future__ import annotations

import json
import multiprocessing
import queue
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from msgspec.structs import fields

from aggregation import (
    Aggregator,
    Decryptor,
    Identity,
    MemoryJournal,
    RoundPlan,
    SiteAttempt,
    SqliteJournal,
)
from aggregation import Coordinator as ProtocolCoordinator
from aggregation.protocol import exchange_form, verify_and_hand_out
from aggregation.protocol.checks import read_cohort, read_plan
from aggregation.protocol.plan import Member, mask_graph
from fmfl_secure.bench._memory import peak_mib
from fmfl_secure.errors import RunError
from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.provisioning.provision import provision
from fmfl_secure.runtime.agents.simulated import SimulatedSite
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.service import Time
from fmfl_secure.transports.https.ports import free_port
from fmfl_secure.vectors.start_file import START_FILE

_WORKERS = 2  # processes that the sites are spread over
_JOIN_S = 4 * 3600.0
_PATIENCE_S = 3600  # of everybody: they wait for two cores, and not for each other
_LOOK_S = 5.0  # how often a process that failed is looked for
# Every thread that waits for the interpreter wakes after so long to ask for it. At CPython's 5 ms
# hundreds of sites in one process, which are a process each elsewhere, spend more on that than on
# their work.
_SWITCH_S = 0.2


def federation_toml(sites: int, rounds: int, base: str) -> str:
    """Settings of the load: the adapter of rank 8 on every layer, without privacy or training."""
    entries = "".join(
        f'\n[[sites]]\nname = "site-{number}"\npopulation = 500\n' for number in range(1, sites + 1)
    )
    return f"""
[federation]
name = "load"
rounds = {rounds}
[model]
base = {json.dumps(base)}
[task]
kind = "text-classification"
text_columns = ["text"]
label_column = "label"
labels = ["no", "yes"]
[adapter]
kind = "lora"
rank = 8
target_modules = ["query", "value"]
[privacy]
noise = "none"
{entries}"""


class _TimedSite(SimulatedSite):
    """Notes when each round began for it."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.begun: list[float] = []
        self.plans: list[bytes] = []
        self.cpu_s = 0.0

    def admit(
        self, plan_message: bytes, adapter: bytes, history: Callable[[], bytes] = bytes
    ) -> SiteAttempt:
        self.begun.append(time.monotonic())
        self.cpu_s = self.cpu_s or time.process_time()
        self.plans[:] = [plan_message]
        return super().admit(plan_message, adapter, history)

    def finish(self, evidence: str) -> None:
        super().finish(evidence)
        self.begun.append(time.monotonic())


def measure(sites: int, rounds: int, *, base: str = "minilm") -> dict[str, Any]:
    """Run the load.

    Args:
        sites: Simulated sites.
        rounds: RoundDriver.
        base: Base model whose adapter's size is taken.

    Returns:
        Seconds a round over HTTPS and in one process, bytes, and each process's peak memory.

    Raises:
        RunError: A process failed, or a round was not released.
    """
    context = multiprocessing.get_context("spawn")
    # Not above: the processes that are measured import this module, and need no PyTorch.
    from fmfl_secure.planning.task import make_start_file  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="fmfl-load-") as name:
        folder = Path(name)
        path = folder / "federation.toml"
        path.write_text(federation_toml(sites, rounds, base), encoding="utf-8")
        port = free_port()
        kits = folder / "kits"
        provision(path, kits, url=f"https://localhost:{port}")
        make_start_file(path, kits / "server" / START_FILE)
        _configure(kits, port, sites)
        results: Queue[dict[str, Any]] = context.Queue()
        names = [f"site-{number}" for number in range(1, sites + 1)]
        processes = [
            context.Process(target=_serve, args=(kits / "server", folder / "run", results)),
            context.Process(target=_decrypt, args=(kits / "decryptor", results)),
        ]
        processes += [
            context.Process(target=_sites, args=(kits, names[n::_WORKERS], results))
            for n in range(_WORKERS)
        ]
        for process in processes:
            process.start()
        found = _collect(results, processes)
        by_kind = {kind: [f for f in found if f["kind"] == kind] for kind in _KINDS}
        (server,) = by_kind["server"]
        if server["released"] != rounds or server["attempts"] != rounds:
            raise RunError(f"{server['released']} of {rounds} rounds were released")
        begun = next(f["begun"] for f in by_kind["sites"] if "site-1" in f["names"])
        seconds = [later - earlier for earlier, later in pairwise(begun)]
        plan_message = next(f["plan"] for f in by_kind["sites"])
        alone = _in_process(kits, names, plan_message, min(rounds, 5))
    return {
        "sites": sites,
        "rounds": rounds,
        "parameters": server["parameters"],
        "upload_bytes": server["upload_bytes"],
        "errors": 0,
        "seconds_a_round": {
            "https": _summary(seconds),
            "in_process": _summary([wall for wall, _ in alone]),
            "overhead": round(
                statistics.median(seconds) - statistics.median(wall for wall, _ in alone), 3
            ),
        },
        "cpu_seconds_a_round": {
            "server": round(server["cpu_s"] / rounds, 3),
            "decryptor": round(by_kind["decryptor"][0]["cpu_s"] / rounds, 3),
            "sites": round(sum(f["cpu_s"] for f in by_kind["sites"]) / rounds, 3),
            "in_process": round(statistics.median(cpu for _, cpu in alone), 3),
        },
        "peak_mib": {
            "server": server["peak_mib"],
            "server_before_the_run": server["idle_mib"],
            "decryptor": by_kind["decryptor"][0]["peak_mib"],
            f"{-(-sites // _WORKERS)} sites": max(f["peak_mib"] for f in by_kind["sites"]),
        },
    }


_KINDS = ("server", "decryptor", "sites")


def _collect(
    results: Queue[dict[str, Any]], processes: Sequence[BaseProcess]
) -> list[dict[str, Any]]:
    """Waits for the result of every process."""
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + _JOIN_S
    while len(found) < len(processes) and time.monotonic() < deadline:
        with suppress(queue.Empty):
            found.append(results.get(timeout=_LOOK_S))
        if any(process.exitcode for process in processes):
            break
    if len(found) == len(processes):
        for process in processes:
            process.join(_JOIN_S)
    codes = [process.exitcode for process in processes]  # server, decryptor, then sites
    if any(code != 0 for code in codes):
        for process in processes:
            process.terminate()
        raise RunError(f"a process of the load failed; they ended with {codes}")
    return found


def _summary(seconds: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(seconds), 3),
        "max": round(max(seconds), 3),
        "min": round(min(seconds), 3),
    }


def _configure(kits: Path, port: int, sites: int) -> None:
    (kits / "server/service.toml").write_text(
        f'[listen]\naddress = "127.0.0.1"\nport = {port}\n[operations]\nport = 0\n'
        # All come from one address, and begin at once.
        f"[limits]\nconnections = {4 * sites + 16}\n"
        f"handshakes = {2 * sites + 16}\nhandshakes_from_address = {2 * sites + 16}\n"
        f"header_s = {_PATIENCE_S}\nbody_s = {_PATIENCE_S}\n"
        "[time]\n"
        + "".join(
            f"{step.name} = {max(step.default, _PATIENCE_S)}\n"
            for step in fields(Time)
            if step.name.endswith("_s")
        ),
        encoding="utf-8",
    )
    for kit in kits.iterdir():
        if (kit / "service.toml").exists() and kit.name != "server":
            text = f'[server]\nurl = "https://localhost:{port}"\nretry_s = 1.0\n'
            text += f"timeout_s = {_PATIENCE_S}\n"
            (kit / "service.toml").write_text(text, encoding="utf-8")


def _serve(kit: Path, output: Path, results: Queue[dict[str, Any]]) -> None:
    from fmfl_secure.transports.https.server import Service  # noqa: PLC0415

    service = Service(Kit(kit), output)
    idle, before = round(peak_mib()), time.process_time()
    service.serve()
    cpu_s = time.process_time() - before
    records = service.coordinator.rounds
    results.put(
        {
            "kind": "server",
            "peak_mib": round(peak_mib()),
            "idle_mib": idle,
            "cpu_s": cpu_s,
            "released": sum(record.status == "released" for record in records),
            "attempts": sum(record.attempts for record in records),
            "parameters": service.parameters,
            "upload_bytes": service.coordinator.store.state.upload_bytes,
        }
    )


def _decrypt(kit: Path, results: Queue[dict[str, Any]]) -> None:
    from fmfl_secure.transports.https.processes.decryptor import DecryptorProcess  # noqa: PLC0415

    process = DecryptorProcess(Kit(kit), once=True)
    before = time.process_time()
    process.run()
    cpu_s = time.process_time() - before
    results.put({"kind": "decryptor", "peak_mib": round(peak_mib()), "cpu_s": cpu_s})


def _sites(kits: Path, names: list[str], results: Queue[dict[str, Any]]) -> None:
    from fmfl_secure.runtime.agents.site import SiteAgent  # noqa: PLC0415
    from fmfl_secure.settings.service import ClientSettings, load_settings  # noqa: PLC0415
    from fmfl_secure.transports.https.client import HttpsTransport  # noqa: PLC0415
    from fmfl_secure.transports.https.metrics import ClientMetrics  # noqa: PLC0415

    sys.setswitchinterval(_SWITCH_S)
    simulated: dict[str, _TimedSite] = {}
    threads = []
    config = load_federation(Kit(kits / names[0]).federation_file)  # the same in every kit
    for name in names:
        kit = Kit(kits / name)
        members = kit.membership.members()
        identity = Identity.load(kit.folder / "identity.pem", name)
        journal = SqliteJournal(kit.folder / "journal.sqlite")
        simulated[name] = site = _TimedSite(
            identity,
            members=members,
            journal=journal,
            membership=kit.membership.last(),
            config=config,
        )
        stopping, metrics = threading.Event(), ClientMetrics()
        upstream = load_settings(kit.service_file, ClientSettings).server
        open_transport = partial(
            HttpsTransport, upstream, kit.tls, metrics=metrics, stopping=stopping
        )
        agent = SiteAgent(
            lambda _, site=site: site,  # type: ignore[misc]
            members=kit.membership.members,
            transport=open_transport(),
            open_transport=open_transport,
            stopping=stopping,
            once=True,
        )
        threads.append(threading.Thread(target=agent.run, name=name))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = simulated[names[0]]
    results.put(
        {
            "kind": "sites",
            "names": names,
            "begun": first.begun,
            "plan": first.plans[0],
            "peak_mib": round(peak_mib()),
            "cpu_s": time.process_time() - min(site.cpu_s for site in simulated.values()),
        }
    )


def _in_process(
    kits: Path, names: list[str], plan_message: bytes, rounds: int
) -> list[tuple[float, float]]:
    """Seconds, and CPU seconds, of rounds of the same work by calls alone."""
    members = MembershipFolder(kits / "server").members()
    load = Identity.load
    coordinator = ProtocolCoordinator(load(kits / "server/coordinator/identity.pem", "coordinator"))
    aggregator = load(kits / "server/aggregator/identity.pem", "aggregator")
    decryptor = Decryptor(
        load(kits / "decryptor/identity.pem", "decryptor"),
        MemoryJournal(),
        coordinator=members.coordinator,
        pinned=members.pinned,
    )
    sites = [
        SimulatedSite(
            load(kits / name / "identity.pem", name), members=members, journal=MemoryJournal()
        )
        for name in names
    ]
    over_https = read_plan(plan_message, members.coordinator).plan
    seconds = []
    for number in range(1, rounds + 1):
        fields = {f: getattr(over_https, f) for f in over_https.__struct_fields__}
        fields |= {"round": number, "attempt": 1, "run": "00" * 8, "membership_digest": ""}
        fields["members"] = tuple(Member(members.sites[name]) for name in names)
        fields["mask_graph"] = mask_graph(len(names))
        fields["exchange"] = exchange_form(len(names), fields["key_agreement"], vanishing=False)
        seconds.append(_one_round(RoundPlan(**fields), coordinator, aggregator, decryptor, sites))
    return seconds


def _one_round(
    plan: RoundPlan,
    coordinator: ProtocolCoordinator,
    identity: Identity,
    decryptor: Decryptor,
    sites: list[SimulatedSite],
) -> tuple[float, float]:
    updates = [site.train(plan, b"") for site in sites]
    began, cpu = time.monotonic(), time.process_time()
    message = coordinator.plan(plan)
    attempts = [site.admit(message, b"") for site in sites]
    readies = [attempt.ready() for attempt in attempts]
    cohort = coordinator.cohort(message, decryptor.announce(message), readies)
    aggregator = Aggregator(identity, message, cohort, coordinator=plan.coordinator)
    fixed = read_cohort(read_plan(message, plan.coordinator), cohort)
    exchanges = [attempt.exchange(cohort) for attempt in attempts]
    handed = verify_and_hand_out(fixed, exchanges).values()
    for attempt, update, given in zip(attempts, updates, handed, strict=True):
        upload = attempt.upload(cohort, update, given)
        aggregator.add(upload.manifest, upload.chunks)
    listed = decryptor.confirm(cohort, aggregator.opening_list(), aggregator.sealed_secrets())
    for attempt in attempts:
        aggregator.add_opening(attempt.open(listed))
    total = aggregator.total()
    release = decryptor.release(cohort, listed, total.manifest, total.chunks)
    for attempt in attempts:
        attempt.verify(release)
    coordinator.verify(cohort, release)
    return time.monotonic() - began, time.process_time() - cpu
