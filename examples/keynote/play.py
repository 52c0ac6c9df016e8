"""The keynote pilot, played: every party's commands, in folders and networks of their own.

    python examples/keynote/play.py --out build/keynote

Each line is printed before it is typed, with whose it is: `decryptor$ fmfl-secure decryptor ...`.
Where this machine lets it (root on Linux, with `ip`), each party is in a network namespace of its
own and reaches the server through one switch; elsewhere all share one network, which is said.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOSPITALS = tuple(f"hospital-{n}" for n in range(1, 5))
PARTIES = ("server", "decryptor", *HOSPITALS)
COMMAND = "fmfl-secure"
GRANT = (
    "--epsilon 5 --delta 1e-5 --population-size 300 "
    "--purpose 'two questions, training, and its answers'"
)
_WAIT_S = 3600.0


class Network:
    """A namespace for each party on one switch, or none where the machine has none to give."""

    def __init__(self, stack: ExitStack) -> None:
        self._tag = f"fs{os.getpid()}"
        self.apart = shutil.which("ip") is not None and os.geteuid() == 0 and self._make(stack)

    def _ip(self, *words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0

    def _make(self, stack: ExitStack) -> bool:
        switch = f"{self._tag}-switch"
        if not self._ip("netns", "add", switch):
            return False
        stack.callback(self._ip, "netns", "del", switch)
        made = self._ip("-n", switch, "link", "add", "br0", "type", "bridge")
        made = made and self._ip("-n", switch, "link", "set", "br0", "up")
        for number, party in enumerate(PARTIES, 1):
            space, plug = self._space(party), f"{self._tag}{number}"
            made = made and self._ip("netns", "add", space)
            stack.callback(self._ip, "netns", "del", space)
            made = made and all(
                self._ip(*words.split())
                for words in (
                    f"-n {switch} link add {plug} type veth peer name eth0 netns {space}",
                    f"-n {switch} link set {plug} master br0 up",
                    f"-n {space} addr add 10.97.0.{number}/24 dev eth0",
                    f"-n {space} link set eth0 up",
                    f"-n {space} link set lo up",
                )
            )
        return made

    def _space(self, party: str) -> str:
        return f"{self._tag}-{party}"

    @property
    def host(self) -> str:
        """The server's, as the others reach it."""
        return f"10.97.0.{PARTIES.index('server') + 1}" if self.apart else "localhost"

    def inside(self, party: str) -> list[str]:
        """What a party's command begins with."""
        return ["ip", "netns", "exec", self._space(party)] if self.apart else []


class Stage:
    """Types commands for the parties, prints them, and keeps what long ones say in `logs/`."""

    def __init__(self, out: Path, network: Network) -> None:
        self.out, self._network = out, network
        (out / "logs").mkdir(parents=True, exist_ok=True)
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "100",
            "OMP_NUM_THREADS": "1",
        }

    def scene(self, title: str) -> None:
        """Print a heading."""
        print(f"\n## {title}\n", flush=True)

    def type(
        self,
        party: str,
        line: str,
        *,
        answer: str = "",
        shown: bool = True,
        codes: Sequence[int] = (0,),
    ) -> str:
        """Type one command, show what it says, and return that.

        Raises:
            SystemExit: It ended with another exit code.
        """
        self._print(party, line)
        done = subprocess.run(
            self._words(party, line), cwd=self.out, env=self._environment, input=answer,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode not in codes:
            raise SystemExit(f"{done.stdout}\n{line}: exit code {done.returncode}")
        if shown:
            print(done.stdout, flush=True)
        return done.stdout

    def start(self, party: str, line: str) -> subprocess.Popen[bytes]:
        """Type one that goes on."""
        self._print(party, f"{line} &")
        with (self.out / "logs" / f"{party}.log").open("ab") as log:
            return subprocess.Popen(
                self._words(party, line), cwd=self.out, env=self._environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def _print(self, party: str, line: str) -> None:
        typed = line.replace(sys.executable, "python").replace(str(HERE.parent), "examples")
        typed = re.sub(r"(post/\S+\.json ?)+", "post/*.json", typed)
        print(f"{party}$ {typed}", flush=True)

    def _words(self, party: str, line: str) -> list[str]:
        inside = self._network.inside(party) if party in PARTIES else []
        return [*inside, *shlex.split(line)]


def keys(stage: Stage, host: str) -> None:
    """Every party draws its own, and their people compare them by voice."""
    out, toml = stage.out, "office/federation.toml"
    (out / "post").mkdir()
    for party in PARTIES:
        role = {
            "server": f"--role server --url https://{host}:8443",
            "decryptor": "--role decryptor",
        }
        more = role.get(party, f"--name {party}")
        stage.type(party, f"{COMMAND} request {party} --federation {toml} {more}", shown=False)
        shutil.copy(out / party / f"{party}.request", out / "post")
    stage.type("office", f"{COMMAND} provision {toml} --requests post --output office/answers")
    for party in PARTIES:
        answer = f"office/answers/{party}.answer"
        stage.type(party, f"{COMMAND} accept {party} {answer}", shown=False)
    read = {party: fingerprint(stage, party) for party in ("server", "hospital-1")}
    for party in PARTIES:
        reader, heard = (
            ("hospital-1", "hospital-1") if party == "server" else ("coordinator", "server")
        )
        line = f"{COMMAND} ceremony sign {party} --heard-from {reader}"
        stage.type(party, line, answer=f"{read[heard]}\n", shown=False)
        for record in (out / party / "ceremony").glob("*.json"):
            shutil.copy(record, out / "post")
    for party in PARTIES:
        signed = shlex.join(sorted(str(p.relative_to(out)) for p in out.glob("post/*.json")))
        stage.type(party, f"{COMMAND} ceremony collect {party} {signed}", shown=False)


def fingerprint(stage: Stage, party: str) -> str:
    """What a party's people read aloud."""
    said = stage.type(party, f"{COMMAND} ceremony show {party}", shown=party == "server")
    found = re.search(r"^  ([0-9a-f]{4}(?: [0-9a-f]{4}){15})$", said, flags=re.MULTILINE)
    if found is None:
        raise SystemExit(f"{party}: no fingerprint")
    return found[1]


def settle(stage: Stage) -> None:
    """What each hospital brings, allows and grants."""
    for number, hospital in enumerate(HOSPITALS, 1):
        kit = stage.out / hospital
        (kit / "data").mkdir(exist_ok=True)
        shutil.move(stage.out / f"data/site-{number}.csv", kit / "data/train.csv")
        own = kit / "site.toml"
        text = own.read_text(encoding="utf-8")
        own.write_text(
            text.replace("[policy]", '[policy]\nnorm_check = "accept"', 1), encoding="utf-8"
        )
    stage.type("hospital-1", f"{COMMAND} ledger grant hospital-1")
    for hospital in HOSPITALS:
        line = f"{COMMAND} ledger grant {hospital} {GRANT}"
        stage.type(hospital, line, shown=hospital == "hospital-1")


def take(stage: Stage, settings: str, start: str) -> None:
    """Everybody takes the settings of the next run, and the server what it starts from."""
    for party in PARTIES:
        shutil.copy(stage.out / settings, stage.out / party / "federation.toml")
    shutil.copy(stage.out / start, stage.out / "server/start.safetensors")


@contextmanager
def running(
    stage: Stage, output: str, **programs: str
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """All parties' processes of one run; by name, a program in place of a party's own."""
    line = {"server": f"{COMMAND} serve server --output {output}"}
    line |= {"decryptor": f"{COMMAND} decryptor decryptor --once"}
    line |= {hospital: f"{COMMAND} join {hospital} --once" for hospital in HOSPITALS}
    line |= {name.replace("_", "-"): typed for name, typed in programs.items()}
    started = {party: stage.start(party, line[party]) for party in PARTIES}
    try:
        yield started
        finish(started)
    finally:
        for process in started.values():
            process.kill()
            process.wait()


def finish(started: dict[str, subprocess.Popen[bytes]]) -> None:
    """Wait for the end of the run at everybody.

    Raises:
        SystemExit: A process ended with anything but 0.
    """
    for party, process in started.items():
        if process.wait(_WAIT_S):
            raise SystemExit(f"{party} ended with exit code {process.returncode}: see its log")


def train(stage: Stage) -> None:
    """A run in which one hospital loses power, and another's program scales what it sends.

    Each comes back as it should be once the round of its mishap is over.
    """
    mishap = f"{sys.executable} {HERE / 'mishap.py'}"
    programs = {
        "hospital_2": f"{mishap} dies hospital-2 --round 3",
        "hospital_4": f"{mishap} scales hospital-4 --round 8",
    }
    with running(stage, "run", **programs) as started:
        for party, at in (("hospital-2", 3), ("hospital-4", 8)):
            over = re.compile(rf'"message":"(released|round lost).*"round":{at}\b')
            log = stage.out / "logs/server.log"
            while started["server"].poll() is None and not over.search(log.read_text()):
                time.sleep(0.5)
            if started["server"].poll() is None:
                started[party].wait(_WAIT_S)
                started[party] = stage.start(party, f"{COMMAND} join {party} --once")


def play(out: Path, stage: Stage, host: str, *, stand_in: bool) -> None:
    """All scenes."""
    stage.scene("The model, and settings that everybody gets")
    make = f"python {HERE.parent / 'make.py'} keynote --out ."
    stage.type("office", f"{make} --stand-in" if stand_in else make)
    (out / "office").mkdir()
    shutil.copy(HERE / "federation.toml", out / "office")
    stage.scene("Keys, drawn by their owners")
    keys(stage, host)
    stage.scene("What each hospital grants")
    settle(stage)
    stage.scene("A question before anything: how many patients, how long are their comments?")
    ask = f"{COMMAND} ask office/federation.toml --what units,lengths --epsilon 0.3"
    stage.type("office", f"{ask} --settings office/question.toml")
    start = f"{COMMAND} start-file office/question.toml --output office/question.safetensors"
    stage.type("office", start)
    take(stage, "office/question.toml", "office/question.safetensors")
    with running(stage, "asked"):
        pass
    stage.scene("The plan, and its verdict")
    stage.type("office", f"{COMMAND} plan office/federation.toml")
    start = f"{COMMAND} start-file office/federation.toml --output office/start.safetensors"
    stage.type("office", start)
    stage.scene("Training: one hospital loses power, another's program scales its update")
    take(stage, "office/federation.toml", "office/start.safetensors")
    train(stage)
    stage.scene("Which round?")
    choose = f"{COMMAND} choose run --epsilon 0.5 --rounds 10,21"
    stage.type(
        "office", f"{choose} --federation office/federation.toml --settings office/choice.toml"
    )
    take(stage, "office/choice.toml", "office/choice.safetensors")
    with running(stage, "chosen"):
        pass
    stage.type("office", f"{COMMAND} choose run --answered chosen --output best")
    stage.scene("What an attacker finds, at one hospital")
    attack = f"{COMMAND} attack run --public-like data/new.csv --site hospital-1 --base model"
    stage.type("hospital-1", f"{attack} --references 2", codes=(0, 2))
    stage.scene("The adapter, opened with plain transformers")
    stage.type("office", f"{COMMAND} export run --output adapter --merged --base model")
    stage.type("office", f"python {HERE / 'open.py'} adapter data/new.csv")
    stage.scene("Checked years later")
    said = stage.type("office", f"{COMMAND} report bundle run --output keynote.report")
    coordinator = re.search(r"ed25519:[0-9a-f]+", said)  # as the officer was told it
    if coordinator is None:
        sys.exit("report bundle did not show the coordinator's key: nobody can verify the report")
    verify = f"{COMMAND} report verify keynote.report"
    stage.type("officer", f"{verify} --coordinator {coordinator[0]}")
    stage.type("hospital-1", f"{COMMAND} ledger show hospital-1/ledger.sqlite")


def picture(page: Path, output: Path) -> None:
    """Take a picture of a page, where a browser is installed."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None:
        print(f"no picture of {page.name}: chromium is not installed")
        return
    shot = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1000,1400"]
    subprocess.run(
        [browser, *shot, f"--screenshot={output}", page.as_uri()],
        check=True, capture_output=True,
    )  # fmt: skip
    print(f"picture: {output}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for everything")
    parser.add_argument(
        "--stand-in", action="store_true", help="a small model, whatever is installed"
    )
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that networks are taken down
    with ExitStack() as stack:
        network = Network(stack)
        stage = Stage(out, network)
        print(
            "each party in a network of its own" if network.apart else "all parties in one network"
        )
        play(out, stage, network.host, stand_in=arguments.stand_in)
    print(f"\nreport: {out / 'run/report.html'}")
    picture(out / "run/report.html", out / "report.png")


if __name__ == "__main__":
    main()
