"""A private PostgreSQL cluster for tests: made by `initdb`, run by `pg_ctl`, gone afterwards.

Also if pytest is killed: a child that survives it sees to that.

As PostgreSQL refuses to run for root, a test run by root starts it as `postgres` (Debian's
package makes that user) or `nobody`. It listens on a socket in a temporary folder and nowhere
else, and keeps `fsync` on, since ledgers refuse a server without. `OWNER` has to give a password;
`SITE`, an ordinary role that may create schemas, is let in without, which saves most of a test's
time.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

PASSWORD = "p%w:d/7? " + secrets.token_hex(8)  # with all that a URL has to escape
OWNER, SITE = "owner", "site"


def binaries() -> Path | None:
    """The newest installed server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Cluster:
    """A running cluster with one database, `ledgers`."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Short: a socket's path has at most 107 bytes.
        beside = os.environ.get("PYTEST_DEBUG_TEMPROOT")  # as `conftest.py` chose
        self.folder = Path(tempfile.mkdtemp(prefix="fmfl-pg-", dir=beside))
        self._owner = None
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            self._owner = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            os.chown(self.folder, self._owner.pw_uid, self._owner.pw_gid)
        self._guard = self._start_guard()
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)  # in a folder that only its owner enters
        self._run(
            "initdb", f"--pgdata={self.folder}/data", f"--username={OWNER}", "--no-sync",
            "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C",
        )  # fmt: skip
        password.unlink()
        access = self.folder / "data/pg_hba.conf"
        access.write_text(f"local all {OWNER} scram-sha-256\nlocal all all trust\n")
        self.start()
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE ROLE {SITE} LOGIN")
            connection.execute(f"CREATE DATABASE ledgers OWNER {SITE}")

    def url(
        self,
        schema: str | None = None,
        *,
        user: str = SITE,
        database: str = "ledgers",
        **parameters: str,
    ) -> str:
        """Where a ledger is; with the password for the user who needs one."""
        query = {"host": str(self.folder), **parameters} | ({"schema": schema} if schema else {})
        shown = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        secret = f":{quote(PASSWORD, safe='')}" if user == OWNER else ""
        return f"postgresql://{user}{secret}@/{database}?{shown}"

    def connect(self, database: str = "ledgers", *, user: str = OWNER):
        """A connection past all of the product."""
        import psycopg

        return psycopg.connect(
            host=str(self.folder), user=user, password=PASSWORD, dbname=database, autocommit=True
        )

    def configure(self, name: str, value: str | None) -> None:
        """Change a setting that a reload is enough for; None takes it back."""
        with self.connect() as connection:
            change = f"SET {name} = '{value}'" if value else f"RESET {name}"
            before = connection.execute("SELECT pg_conf_load_time()").fetchone()
            connection.execute(f"ALTER SYSTEM {change}")
            connection.execute("SELECT pg_reload_conf()")
            # The server tells its processes one after the other; a new one has it from the start.
            while connection.execute("SELECT pg_conf_load_time()").fetchone() == before:
                pass

    def start(self) -> None:
        self._run(
            "pg_ctl", "start", "--wait", f"--pgdata={self.folder}/data",
            f"--log={self.folder}/log",
            f"--options=-c unix_socket_directories={self.folder} -c listen_addresses=",
        )  # fmt: skip

    def crash(self) -> None:
        """Stop without a checkpoint: the next start recovers from the log."""
        self._run("pg_ctl", "stop", "--mode=immediate", "--wait", f"--pgdata={self.folder}/data")

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def close(self) -> None:
        """Have the guard stop the server and remove the folder."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def _start_guard(self) -> subprocess.Popen[bytes]:
        """A child that ends the cluster once this process is gone, by whatever signal.

        It waits for the end of its standard input, which comes with this process's end.
        """
        script = 'cat >"$2/guarded"; "$1" stop --mode=immediate --pgdata="$2/data"; rm -rf "$2"'
        return subprocess.Popen(
            ["sh", "-c", script, "guard", str(self._programs / "pg_ctl"), str(self.folder)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what a terminal sends to all of pytest's processes spares it
            **self._dropped(),
        )

    def _dropped(self) -> dict[str, Any]:
        if self._owner is None:
            return {}
        return {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        # Not captured through a pipe: the server would keep it open.
        with (self.folder / "output").open("w+") as output:
            done = subprocess.run(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                **self._dropped(),
            )
            if done.returncode != 0:
                output.seek(0)
                raise RuntimeError(f"{program} failed: {output.read()}")
