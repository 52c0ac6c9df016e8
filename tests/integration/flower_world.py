"""A SuperLink with TLS and SuperNodes with keys, all on loopback; each can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fmfl_secure.transports.flower.deployment import OFFLINE
from fmfl_secure.transports.https.ports import free_port

_BIN = Path(sys.executable).parent


class FlowerWorld:
    """Flower's processes around provisioned kits."""

    def __init__(self, folder: Path, kits: Path) -> None:
        self.folder, self.kits = folder, kits
        self.port = free_port()
        self.home = folder / "home"
        self.home.mkdir()
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "localhost:{self.port}"\n'
            f'root-certificates = "{kits / "server/tls/ca.pem"}"\n'
        )
        self.env = os.environ | OFFLINE | {
            "FLWR_HOME": str(self.home),
            "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.closing = threading.Event()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_superlink(self) -> None:
        tls = self.kits / "server/tls"
        self._start(
            "superlink",
            "flower-superlink",
            *("--ssl-ca-certfile", tls / "ca.pem", "--ssl-certfile", tls / "certificate.pem"),
            *("--ssl-keyfile", tls / "key.pem", "--host", "127.0.0.1", "--port", self.port),
            *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
            *("--database", self.folder / "superlink.db"),
        )

    def register(self, name: str) -> None:
        """Make a SuperNode's key and have the SuperLink know it."""
        key = ec.generate_private_key(ec.SECP384R1())
        private = self.folder / f"{name}.key"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            )
        )
        private.chmod(0o600)
        public = self.folder / f"{name}.pub"
        public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
            )
        )
        deadline = time.monotonic() + 180
        while True:
            done = self.flwr("supernode", "register", str(public), "here")
            if done.returncode == 0:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(done.stdout + done.stderr)
            time.sleep(1)

    def start_supernode(self, name: str, config: str) -> None:
        self._start(
            name,
            "flower-supernode",
            *("--superlink", f"localhost:{self.port}", "--port", free_port()),
            *("--root-certificates", self.kits / "server/tls/ca.pem"),
            *("--auth-supernode-private-key", self.folder / f"{name}.key"),
            *("--node-config", config),
        )

    def restart_when_killed(self, name: str, config: str) -> None:
        """Start a SuperNode again once it was killed and the SuperLink has seen it go."""

        def restart() -> None:
            self.processes[name].wait()
            if self.closing.is_set():
                return
            while "offline" not in self.flwr("supernode", "list", "here").stdout.lower():
                if self.closing.wait(2.0):
                    return
            self.start_supernode(name, config)

        threading.Thread(target=restart, daemon=True).start()

    def flwr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_BIN / "flwr", *arguments], env=self.env, capture_output=True, text=True, check=False
        )

    def _start(self, name: str, command: str, *arguments: object) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [_BIN / command, *map(str, arguments)],
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that what it started can be ended with it
            )

    def kill(self, name: str) -> None:
        """SIGKILL a process, and nothing that it started."""
        self.processes[name].kill()
        self.processes[name].wait()

    def close(self) -> None:
        self.closing.set()
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

        for lock in self.kits.glob("*/*.sock.lock"):
            with suppress(ProcessLookupError):
                os.kill(int(lock.read_text()), signal.SIGTERM)

    def logs(self) -> str:
        texts = [f"--- {p.name}\n{p.read_text()[-4000:]}" for p in self.folder.glob("*.log")]
        return "\n".join(texts)
