"""The commands of a federation across machines: provision, serve, join, and more.

`cli` registers its commands. `provision` comes first and may answer requests instead; `serve`,
`decryptor`, `custodian` and `join` are processes, each beside the port that `OperationsPort`
opens.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import log_level, say
from fmfl_secure.cli.acting import AUTHORITY, READS, Act, end_now
from fmfl_secure.cli.answers.parties import KitUnsealed, Provisioned, Ready
from fmfl_secure.cli.arguments import FederationFile, Track
from fmfl_secure.cli.members import KitFolder, needs_server_extra
from fmfl_secure.outside import MOST_DOCUMENT, read_regular

if TYPE_CHECKING:
    from fmfl_secure.provisioning.kit import Kit
    from fmfl_secure.run.observer import Observer
    from fmfl_secure.transports.https.processes.run_party import PartyProcess

app = typer.Typer()


def _be(
    process: PartyProcess, kit: Path, *, template: str, page: Callable[[], Mapping[str, object]]
) -> None:
    from fmfl_secure.provisioning.kit import Kit
    from fmfl_secure.transports.https.processes.run_party import run_party

    _say_simulation(kit)
    run_party(
        process,
        Kit(kit),
        template=template,
        page=page,
        started=lambda port: _say_page(kit, port),
        leaving=end_now,
    )


def _say_simulation(kit: Path) -> None:
    from fmfl_secure.provisioning.simulated import WARNING, is_simulation

    if is_simulation(kit):
        say(f"A SIMULATION: {WARNING}")


def _say_page(kit: Path, port: int) -> None:
    if port:
        say(f"page     http://localhost:{port}/ (token: {kit / 'operations.token'})")
    else:
        say("no page: nothing can listen on [operations] address and port of service.toml; taken?")


@command(app, answers=Provisioned, acts=AUTHORITY)
def provision(
    federation: FederationFile,
    output: Annotated[Path, typer.Option(help="Folder for the authority and the answers or kits.")],
    requests: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the parties' requests: no key is drawn here but the "
            "authority's. Without it this is a simulation."
        ),
    ] = None,
    replace: Annotated[
        list[str] | None,
        typer.Option(help="With --requests: a site whose old key is lost; may be repeated."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            help="Where parties reach the server; default: https://localhost:8443. With "
            "--requests, the server says."
        ),
    ] = None,
    seal: Annotated[
        bool, typer.Option("--seal", help="Seal each kit under a passphrase of its own.")
    ] = False,
    epsilon: Annotated[
        float | None, typer.Option(help="First grant of each ledger; default: the settings'.")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="The same for delta.")] = None,
    delta_reason: Annotated[
        str,
        typer.Option(help="Why delta may be above 1 / (10 x population); every ledger keeps it."),
    ] = "",
    data: Annotated[
        str | None,
        typer.Option(
            help="A site's training file from its kit; {site} is its name; default: data/train.csv."
        ),
    ] = None,
) -> Provisioned:
    """Answer parties' requests with certificates and the list of parties; no key leaves its owner.

    Without --requests every party's keys are drawn here, for simulations: a kit each.
    What exists is left alone, but for the server's start file when the settings have changed.
    Example: fmfl-secure provision federation.toml --requests requests --output answers
    """
    from fmfl_secure.errors import ConfigError

    if requests is not None:
        theirs = {
            "--server": server,
            "--seal": seal,
            "--epsilon": epsilon,
            "--delta": delta,
            "--delta-reason": delta_reason,
            "--data": data,
        }
        if passed_over := [
            name for name, given in theirs.items() if given not in {None, False, ""}
        ]:
            raise ConfigError(
                f"{', '.join(passed_over)} do not go with --requests: each party draws its own "
                "keys, and says for itself what its kit holds",
                hint="Leave them out.",
            )
        return _answer(federation, requests, output, replace or [])
    if replace:
        raise ConfigError(
            "--replace goes with --requests: without them every key is drawn here",
            hint="Leave it out, or name the folder with the parties' requests.",
        )
    from fmfl_secure.provisioning.provision import DEFAULT_DATA, DEFAULT_URL
    from fmfl_secure.provisioning.provision import provision as make
    from fmfl_secure.provisioning.simulated import WARNING

    made = make(
        federation,
        output,
        url=DEFAULT_URL if server is None else server,
        epsilon=epsilon,
        delta=delta,
        delta_reason=delta_reason,
        data=DEFAULT_DATA if data is None else data,
    )
    for line in made:
        say(f"made {line}")
    say(f"A SIMULATION: {WARNING}")
    start, missing = _provide_start(federation, output / "server")
    sealed = _seal(output) if seal else ()
    return Provisioned(
        made=tuple(made),
        simulation=True,
        start_file=start,
        start_file_missing=missing,
        sealed=sealed,
        passphrases=str(output / "passphrases") if seal else "",
    )


def _seal(output: Path) -> tuple[str, ...]:
    from fmfl_secure.provisioning.kit import write_private
    from fmfl_secure.provisioning.provision import seal_kits

    drawn: dict[str, str] = {}
    sealed = []
    for path in seal_kits(
        output, passphrase=lambda name: drawn.setdefault(name, secrets.token_urlsafe(18))
    ):
        say(f"sealed {path}")
        sealed.append(str(path))
    for name, passphrase in drawn.items():
        told = output / "passphrases" / f"{name}.txt"
        told.unlink(missing_ok=True)
        write_private(told, passphrase.encode() + b"\n")
    say(f"passphrases are in {output / 'passphrases'}: tell each party its own, another way")
    return tuple(sealed)


def _answer(federation: Path, requests: Path, output: Path, replace: list[str]) -> Provisioned:
    from fmfl_secure.provisioning.certify import certify_requests

    made = certify_requests(federation, requests, output, replace=replace)
    for line in made:
        say(line)
    say("send each party its answer: fmfl-secure accept FOLDER ANSWER puts it beside its keys")
    start, missing = _provide_start(federation, output)
    where = start or output / "start.safetensors"
    say(f"bring {where} to the server, into its folder: its run starts from that")
    return Provisioned(
        made=tuple(made),
        simulation=False,
        start_file=start,
        start_file_missing=missing,
        sealed=(),
        passphrases="",
    )


def _provide_start(federation: Path, folder: Path) -> tuple[str, str]:
    """Writes a server's start file, where the base model is at hand; else says why not."""
    from fmfl_secure.errors import KNOWN_ERRORS
    from fmfl_secure.settings.federation import load_federation
    from fmfl_secure.vectors.start_file import START_FILE, is_for

    path = folder / START_FILE
    if not folder.is_dir():
        return "", f"{folder} is no folder"
    if is_for(path, load_federation(federation)):
        return str(path), ""
    from fmfl_secure.planning.task import make_start_file

    try:
        make_start_file(federation, path)
        say(f"made {path}")
    except KNOWN_ERRORS as error:
        say(f"no {path}: {error}")
        say(f"whoever has the base model: fmfl-secure start-file {federation} --output {path}")
        return "", str(error)
    return str(path), ""


@command(app, answers=KitUnsealed, acts=Act("unseal", "output", keeps=("sealed",)))
def unseal(
    sealed: Annotated[Path, typer.Argument(help="A sealed kit.")],
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    passphrase_file: Annotated[
        Path | None, typer.Option(help="File with the passphrase; asked for otherwise.")
    ] = None,
) -> KitUnsealed:
    """Open a sealed kit into a folder that only its owner can read.

    Example: fmfl-secure unseal site-1.kit --output site-1
    """
    from fmfl_secure.errors import ServiceError
    from fmfl_secure.provisioning.kit import open_kit

    if passphrase_file is not None:
        told = read_regular(passphrase_file, most_bytes=MOST_DOCUMENT)
        try:
            passphrase = told.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise ServiceError(
                f"{passphrase_file} is no text in UTF-8, and holds no passphrase",
                hint="Name the file that was sent with the kit: a line of text.",
            ) from error
    else:
        try:
            passphrase = typer.prompt("passphrase", hide_input=True, err=True)
        except typer.Abort:
            raise ServiceError(
                "there is no passphrase to open the kit with",
                hint="Type it on a terminal, or name its file with --passphrase-file.",
            ) from None
    files = open_kit(read_regular(sealed, most_bytes=MOST_DOCUMENT), passphrase, output)
    say(f"{len(files)} files in {output}")
    return KitUnsealed(folder=str(output), files=len(files))


@command(app, acts=Act("serve", "kit", keeps=("output",)))
def serve(
    kit: KitFolder,
    output: Annotated[Path, typer.Option(help="The run's folder; a run that is there goes on.")],
    track: Track = None,
) -> None:
    """Serve a run: coordinator and aggregator. Ends when the run has; not with 0 if that failed.

    Example: fmfl-secure serve pilot/kits/server --output pilot/run
    """
    needs_server_extra()
    from fmfl_secure.provisioning.kit import Kit
    from fmfl_secure.transports.https import logs
    from fmfl_secure.transports.https.processes.operations import OperationsApp, OperationsPort
    from fmfl_secure.transports.https.processes.server_metrics import follow
    from fmfl_secure.transports.https.processes.server_page import server_page
    from fmfl_secure.transports.https.server import Service

    _say_simulation(kit)
    logs.configure("server", level=log_level(logging.INFO))
    with ExitStack() as stack:
        observer = stack.enter_context(_tracked(Kit(kit), track)) if track else None
        service = Service(Kit(kit), output, observer=observer)
        follow(service)
        operations = OperationsApp(
            token=Kit(kit).operations_token(),
            template="server.html",
            page=lambda: server_page(service),
            ready=service.not_ready,
            registry=service.metrics.registry,
            certificate=Kit(kit).certificate,
        )
        port = stack.enter_context(OperationsPort(operations, service.settings.operations))
        _say_page(kit, port.port)
        service.serve(started=lambda https: say(f"serving on port {https}"))
    say(f"report   {output / 'report.html'}")
    service.require_finished()
    if service.config.evaluation.file:
        say(
            "figures  not here, without the base model; where it is: "
            f"fmfl-secure evaluate {output} --rounds due"
        )


def _tracked(kit: Kit, places: list[str]) -> AbstractContextManager[Observer]:
    from fmfl_secure.run.observer import Silent
    from fmfl_secure.run.trackers import tracked
    from fmfl_secure.settings.federation import load_federation

    return tracked(load_federation(kit.federation_file), places, Silent())


@command(app, acts=Act("decryptor", "kit"))
def decryptor(
    kit: KitFolder,
    once: Annotated[bool, typer.Option("--once", help="End after one run.")] = False,
) -> None:
    """Be the decryptor. Connects out to the server; nobody connects to it.

    Example: fmfl-secure decryptor pilot/kits/decryptor
    """
    needs_server_extra()
    from fmfl_secure.provisioning.kit import Kit
    from fmfl_secure.transports.https import logs
    from fmfl_secure.transports.https.processes.decryptor import DecryptorProcess
    from fmfl_secure.transports.https.processes.decryptor_page import decryptor_page

    logs.configure("decryptor", level=log_level(logging.INFO))
    process = DecryptorProcess(Kit(kit), once=once)
    _be(process, kit, template="decryptor.html", page=lambda: decryptor_page(process))


@command(app, acts=Act("custodian", "kit"))
def custodian(
    kit: KitFolder,
    once: Annotated[bool, typer.Option("--once", help="End after one run.")] = False,
) -> None:
    """Be a custodian: without your word no sum opens. Connects out to the server only.

    Example: fmfl-secure custodian pilot/kits/board
    """
    needs_server_extra()
    from fmfl_secure.provisioning.kit import Kit
    from fmfl_secure.transports.https import logs
    from fmfl_secure.transports.https.processes.custodian import CustodianProcess
    from fmfl_secure.transports.https.processes.custodian_page import custodian_page

    process = CustodianProcess(Kit(kit), once=once)
    logs.configure(process.name, level=log_level(logging.INFO))
    _be(process, kit, template="custodian.html", page=lambda: custodian_page(process))


@command(app, acts=Act("join", "kit"))
def join(
    kit: KitFolder,
    once: Annotated[bool, typer.Option("--once", help="End after one run.")] = False,
) -> None:
    """Be a site: take part in run after run. Connects out to the server; nobody connects to it.

    Example: fmfl-secure join pilot/kits/site-1
    """
    needs_server_extra()
    from fmfl_secure.provisioning.kit import Kit
    from fmfl_secure.transports.https import logs
    from fmfl_secure.transports.https.processes.site import SiteProcess
    from fmfl_secure.transports.https.processes.site_page import site_page

    process = SiteProcess(Kit(kit), once=once)
    logs.configure(process.name, level=log_level(logging.INFO))
    _be(process, kit, template="site.html", page=lambda: site_page(process))


@command(app, answers=Ready, acts=READS)
def health(
    kit: KitFolder,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Operations port; default: the kit's."),
    ] = None,
) -> Ready:
    """Ask the process of a kit on this machine whether it is ready; for containers and monitors.

    Example: fmfl-secure health pilot/kits/site-1
    """
    from fmfl_secure.transports.https.health import ask

    said = ask(kit, port=port)
    say(said)
    return Ready(said=said)
