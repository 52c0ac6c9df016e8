"""No path that a person names, and nothing that a file system does, ends in a traceback."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from documented import command_tree
from support import settings
from test_cli import COMMANDS, find

from fmfl_secure.errors import Unavailable
from fmfl_secure.models.library_errors import writing
from fmfl_secure.parties.workspace import initialise

Main = Callable[..., tuple[int, str, str]]
BUG = 70
KINDS = {
    "absent": "nowhere/at/all",
    "file": "junk",
    "folder": "empty",
    "below-a-file": "junk/below",
    "loop": "loop",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the examples of help could be typed, but for a run; and what is odd."""
    folder = tmp_path_factory.mktemp("world")
    pilot = folder / "pilot"
    pilot.mkdir()
    (pilot / "federation.toml").write_text(settings(Path("no-model")))
    initialise(pilot, epsilon=None, delta=None, simulated=True)
    (folder / "notes.csv").write_text("text,label\n" + "a,b\nc,d\n" * 20)
    (folder / "junk").write_bytes(b"\xff\x00junk\xfe" * 50)
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to("loop")
    return folder


@pytest.fixture
def typed(main: Main, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Main:
    """Types a command line in a copy of that world, with a parser that is built once."""
    shutil.copytree(world, tmp_path / "world", symlinks=True)
    monkeypatch.chdir(tmp_path / "world")
    tree = command_tree()
    monkeypatch.setattr("typer.main.get_command", lambda _: tree)
    # A handler would outlive the test, and write to a stream that is closed by then.
    monkeypatch.setattr("fmfl_secure.transports.https.logs.configure", lambda *_, **__: None)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: True)
    monkeypatch.setattr("typer.prompt", lambda *_, **__: "typed")
    return main


def example_of(command: tuple[str, ...]) -> list[str]:
    """The words that its help has behind it."""
    if command == ("model", "import"):  # that of its help makes a whole model
        return ["nowhere.gguf", "--output", "made"]
    if command == ("demo", "federation"):  # and that of this one trains
        return ["--output", "pilot"]
    example = " ".join(find(command).help.partition("Example: ")[2].split("\n\n")[0].split())
    return shlex.split(example)[1 + len(command) :]


def is_place(parameter: Any) -> bool:
    """Whether it names a file or a folder."""
    kept = getattr(parameter, "type_descriptor", None)
    return "Path" in str(getattr(kept, "annotation", parameter)) or parameter.name == "ledger"


def lines(command: tuple[str, ...], odd: str) -> Iterator[list[str]]:
    """The example of a command, with each of its places in turn an odd one."""
    found = find(command)
    words = example_of(command)
    arguments = [one for one in found.params if one.param_type_name == "argument"]
    at = [n for n, word in enumerate(words) if is_argument(found, words, n)]
    for number, one in enumerate(arguments):
        if is_place(one) and number < len(at):
            yield [*command, *words[: at[number]], odd, *words[at[number] + 1 :]]
    for one in found.params:
        if one.param_type_name != "option" or not is_place(one):
            continue
        name = one.opts[0]
        if name in words:
            place = words.index(name) + 1
            yield [*command, *words[:place], odd, *words[place + 1 :]]
        else:
            yield [*command, *words, name, odd]


def is_argument(found: Any, words: list[str], number: int) -> bool:
    """Whether a word is no option, nor an option's value."""
    if words[number].startswith("--"):
        return False
    before = words[number - 1] if number else ""
    flags = {name for one in found.params for name in one.opts if getattr(one, "is_flag", False)}
    return not (before.startswith("--") and before not in flags)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_odd_path_is_refused_in_a_line(typed: Main, command: tuple[str, ...]) -> None:
    if command[0] == "demo":
        pytest.skip("makes whatever folder it is given, and runs for long")
    found = {
        shlex.join(line): errors
        for odd in KINDS.values()
        for line in lines(command, odd)
        for code, _, errors in [typed(*line)]
        if code == BUG or "Traceback" in errors
    }
    assert found == {}, "\n".join(f"{line}\n{errors}" for line, errors in found.items())


class ReadOnly:
    """A disk on which nothing is written any more, as far as this process can tell."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self._number = number
        for name in ("mkdir", "rename", "replace", "link", "symlink", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, self._refuse)
        opened, plain = os.open, open

        def low(path: Any, flags: int, *more: Any, **named: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._refuse(path)
            return opened(path, flags, *more, **named)

        def high(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
            if not isinstance(file, int) and set(mode) & set("wax+"):
                self._refuse(file)
            return plain(file, mode, *more, **named)

        monkeypatch.setattr(os, "open", low)
        monkeypatch.setattr("builtins.open", high)
        monkeypatch.setattr("io.open", high)

    def _refuse(self, path: Any, *_: Any, **__: Any) -> Any:
        raise OSError(self._number, os.strerror(self._number), str(path))


@pytest.mark.parametrize(
    "name",
    ["EROFS", *(pytest.param(one, marks=pytest.mark.slow) for one in ("EACCES", "ENOSPC"))],
)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_disk_that_takes_nothing_is_told_in_a_line(
    typed: Main, command: tuple[str, ...], name: str
) -> None:
    if command[0] in {"bench", "demo"}:
        pytest.skip("measures, or trains, for long before it writes")
    with pytest.MonkeyPatch.context() as patch:
        ReadOnly(patch, getattr(errno, name))
        code, _, errors = typed(*command, *example_of(command))
    assert code != BUG, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("how", ["gone", "empty", "junk", "folder"])
@pytest.mark.parametrize(
    ("command", "file"),
    [
        (("acts", "show", "pilot/sites/site-1"), "acts.sqlite"),
        (("acts", "show", "pilot/sites/site-1"), "acts.sqlite.made"),
        (("acts", "show", "pilot/sites/site-1"), "identity.pem"),
        (("acts", "verify", "pilot/sites/site-1"), "acts.sqlite.made"),
        (("ledger", "show", "pilot/sites/site-1/ledger.sqlite"), "ledger.sqlite"),
    ],
)
def test_another_thing_in_a_file_s_place_is_told_with_what_to_do_and_not_waited_for(
    typed: Main, command: tuple[str, ...], file: str, how: str
) -> None:
    if file.startswith("acts"):  # there is a log of acts once somebody acted
        words = ("--grant", "1", "--reason", "over")
        assert typed("ledger", "close", "pilot/sites/site-1/ledger.sqlite", *words)[0] == 0
    path = Path("pilot/sites/site-1") / file
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes(b"" if how == "empty" else b"\xff\x00" * 100)
        path.chmod(0o600)
    code, out, _ = typed(*command, "--json")
    if code == 0:
        assert (file, how) == ("acts.sqlite.made", "gone"), "it is made again"
        return
    told = json.loads(out)["error"]
    assert (code, told["nature"]) in {(1, "decided"), (3, "damage")}
    assert told["hint"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_name_in_another_encoding_is_told_in_a_line_and_in_one_document(
    typed: Main, command: tuple[str, ...]
) -> None:
    if command[0] == "demo":
        pytest.skip("makes whatever folder it is given, and runs for long")
    odd = os.fsdecode(b"lat\xefn")
    Path(odd).mkdir()
    answers = "--json" in {name for one in find(command).params for name in one.opts}
    for line in lines(command, f"{odd}/x"):
        code, out, errors = typed(*line, *(["--json"] if answers else []))
        assert code != BUG, (line, errors)
        assert "Traceback" not in errors
        if answers:
            assert json.loads(out), line


FULL = {  # how a library tells of a disk without room
    "rust": safetensors.SafetensorError("I/O error: No space left on device (os error 28)"),
    "a copy": shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a' -> 'b'")]),
    "system": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
}


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
def test_a_disk_that_is_full_is_told_whichever_library_finds_it(
    tmp_path: Path, error: Exception
) -> None:
    told = "what is exported cannot be written to .*: No space left on device"
    with pytest.raises(Unavailable, match=told) as refused, writing("what is exported", tmp_path):
        raise error
    assert refused.value.hint


def test_a_traceback_would_be_seen(typed: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path, **_: object) -> bytes:
        raise UnicodeDecodeError("utf-8", b"", 0, 1, str(path))

    monkeypatch.setattr("fmfl_secure.outside.read_regular", fails)
    line = next(line for line in lines(("stop",), "junk") if "--take" in line)
    code, _, errors = typed("stop", "pilot", *line[-2:])
    assert (code, "Traceback" in errors) == (BUG, True)


def test_every_place_of_every_command_is_tried() -> None:
    tried = [line for command in COMMANDS for line in lines(command, "odd")]
    assert len(tried) > 80
    assert all("odd" in line for line in tried)
