"""One process at a time in a folder, and a kit that knows whose it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support import make_federation

from fmfl_secure.errors import InUse, ServiceError
from fmfl_secure.parties.workspace import AGGREGATOR, COORDINATOR, Workspace
from fmfl_secure.provisioning.certificates import ROLES
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.storage.in_use import LOCK, in_use

HOLDER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from fmfl_secure.storage.in_use import in_use

    with in_use(Path(sys.argv[1]), "site"):
        print("held", flush=True)
        time.sleep(600)
    """
)


def test_a_second_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with in_use(tmp_path, "server"):
        with pytest.raises(InUse) as refusal, in_use(tmp_path, "server"):
            pass
        for word in (str(tmp_path), str(os.getpid()), "as server", "since 20"):
            assert word in str(refusal.value)
    with in_use(tmp_path, "server"):
        pass


def test_the_refused_one_changes_nothing_of_who_has_it(tmp_path: Path) -> None:
    with in_use(tmp_path, "site"):
        before = (tmp_path / LOCK).read_bytes()
        with pytest.raises(InUse), in_use(tmp_path, "decryptor"):
            pass
        assert (tmp_path / LOCK).read_bytes() == before
    assert (tmp_path / LOCK).stat().st_mode & 0o077 == 0


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(InUse, match=f"process {process.pid} on .* as site"),
            in_use(tmp_path, "site"),
        ):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with in_use(tmp_path, "site"):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()


def test_a_lock_s_file_that_says_nothing_still_locks(tmp_path: Path) -> None:
    with in_use(tmp_path, "site"):
        (tmp_path / LOCK).write_bytes(b"\xff")
        with pytest.raises(InUse, match="does not say who"), in_use(tmp_path, "site"):
            pass


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Kit]:
    """The folders of `init`, which are those of a kit as far as roles go."""
    folder = tmp_path_factory.mktemp("kits")
    make_federation(folder, tiny_model, sites=3, aggregation='custodians = ["board"]')
    made = Workspace(folder)
    server = folder / "server"
    server.mkdir()
    for role in (COORDINATOR, AGGREGATOR):
        made.role(role).rename(server / role)
    return {
        "server": Kit(server),
        "site": Kit(made.site("site-1")),
        "decryptor": Kit(made.role("decryptor")),
        "custodian": Kit(made.custodian("board")),
    }


@pytest.mark.parametrize("role", ROLES)
def test_a_kit_knows_its_role(kits: dict[str, Kit], role: str) -> None:
    assert kits[role].role == role
    kits[role].require(role)
    for other in set(ROLES) - {role}:
        with pytest.raises(ServiceError, match=f"is a {role}'s kit, and a {other}'s") as refusal:
            kits[role].require(other)
        command = {"server": "serve", "site": "join"}.get(role, role)
        assert refusal.value.hint.endswith(f"fmfl-secure {command} {kits[role].folder}")


def test_a_folder_that_is_no_kit_is_said_to_be_none(kits: dict[str, Kit], tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="no party's kit"):
        Kit(tmp_path).require("site")
    site = kits["site"].folder
    file = site / "site.toml"
    file.rename(site / "away.toml")
    try:
        with pytest.raises(ServiceError, match=r"the kit of site-1 has none of site\.toml"):
            Kit(site).require("site")
    finally:
        (site / "away.toml").rename(file)
