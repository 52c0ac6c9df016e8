"""Parties in folders of their own that draw their keys and compare them, by typed commands."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from support import settings
from typer.testing import CliRunner

from fmfl_secure.cli import app

URL = "https://localhost:8443"
SITES = ("site-1", "site-2", "site-3")


def typed(*words: object, answer: str = "") -> str:
    """What a command says; it must succeed."""
    done = CliRunner().invoke(app, [str(word) for word in words], input=answer)
    assert done.exit_code == 0, f"{words}: {done.output} {done.exception!r}"
    return done.output


class Owners:
    """A federation whose parties each have a folder; `post` is all that travels between them.

    Attributes:
        folder: Of everything.
        post: Requests, answers and signed comparisons.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.post = folder / "post"

    def at(self, name: str) -> Path:
        """A party's own folder."""
        return self.folder / "kits" / name

    @property
    def settings(self) -> Path:
        return self.folder / "federation.toml"

    @property
    def answers(self) -> Path:
        return self.folder / "office"

    def begin(self, text: str) -> None:
        """Everybody has the settings."""
        self.post.mkdir(parents=True, exist_ok=True)
        self.settings.write_text(text, encoding="utf-8")

    def request(self, name: str, *more: str, role: str = "site") -> str:
        said = typed(
            "request", self.at(name), "--federation", self.settings, "--role", role,
            "--name", name, *more,
        )  # fmt: skip
        shutil.copy(self.at(name) / f"{name}.request", self.post)
        return said

    def renew(self, name: str, *more: str) -> None:
        typed("request", self.at(name), "--renew", *more)
        shutil.copy(self.at(name) / "renewal" / f"{name}.request", self.post)

    def provision(self, *more: str) -> str:
        return typed(
            "provision", self.settings, "--requests", self.post, "--output", self.answers, *more
        )

    def accept(self, name: str, answer: str = "") -> str:
        return typed("accept", self.at(name), self.answers / f"{name}.answer", answer=answer)

    def fingerprint(self, name: str) -> str:
        """What a party's people read aloud."""
        said = typed("ceremony", "show", self.at(name))
        found = re.search(r"^  ([0-9a-f]{4}(?: [0-9a-f]{4}){15})$", said, flags=re.MULTILINE)
        assert found is not None
        return found[1]

    def compare(self, parties: Sequence[str]) -> None:
        """One call: the server's people read, a site's read to them."""
        read = self.fingerprint("server")
        for name in parties:
            reader = "coordinator" if name != "server" else "site-1"
            heard = read if name != "server" else self.fingerprint("site-1")
            typed(
                "ceremony", "sign", self.at(name), "--heard-from", reader,
                answer=f"{heard.upper()}\n",
            )  # fmt: skip
            for record in (self.at(name) / "ceremony").glob("*.json"):
                shutil.copy(record, self.post)
        for name in parties:
            typed("ceremony", "collect", self.at(name), *sorted(self.post.glob("*.json")))


def whole_ceremony(folder: Path, model: Path, *, url: str = URL) -> Owners:
    """Everything from the settings to kits that are compared."""
    owners = Owners(folder)
    owners.begin(
        settings(model, sites=3, rounds=1, evaluation=False, aggregation='custodians = ["board"]')
    )
    owners.request("server", "--url", url, role="server")
    owners.request("decryptor", role="decryptor")
    for name in SITES:
        owners.request(name)
    owners.request("board", role="custodian")
    owners.provision()
    parties = ["server", "decryptor", *SITES, "board"]
    for name in parties:
        owners.accept(name)
    owners.compare(parties)
    return owners
