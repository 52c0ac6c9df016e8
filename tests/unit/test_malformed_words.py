"""What another party wrote and is no text ends in a typed error, before or after its signature."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec
import pytest

import fmfl_secure
from aggregation import Identity
from fmfl_secure.errors import RunError
from fmfl_secure.outside import MALFORMED
from fmfl_secure.run import end
from fmfl_secure.run.history import decode_history
from fmfl_secure.run.stop import read_stop

ROOT = Path(fmfl_secure.__file__).parent
NO_TEXT = b'{"run":"\xff"}'
# Those that read data have words of their own for a file that is no UTF-8.
OWN_WORDS = ("data/",)


def test_a_stop_that_is_no_text_is_refused() -> None:
    with pytest.raises(RunError, match="malformed"):
        read_stop(bytes(64) + NO_TEXT, may_stop={})


def test_an_end_that_is_no_text_is_refused() -> None:
    coordinator = Identity.generate("coordinator")
    statement = coordinator.sign(end._DOMAIN + NO_TEXT) + NO_TEXT
    with pytest.raises(RunError, match="malformed"):
        end.read_end(statement, coordinator=coordinator.public, run="ab" * 8)


def test_what_is_said_of_earlier_rounds_and_is_no_text_is_refused() -> None:
    with pytest.raises(RunError, match="malformed"):
        decode_history(b"\x91\x81\xa2\xff\xfe\xa1a")


def test_whoever_reads_what_msgspec_may_refuse_expects_all_that_it_ends_by() -> None:
    """Of text that is no UTF-8 it says so by Python's own error, which is none of its own."""
    partly = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(OWN_WORDS):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                caught = ast.unparse(node.type)
                whole = "ValueError" in caught or "Unicode" in caught
                if ("DecodeError" in caught or "MsgspecError" in caught) and not whole:
                    partly.append(f"{name}:{node.lineno} {caught}")
    own = [line for line in partly if "msgspec." in line]
    assert own == [], "use outside.MALFORMED"
    with pytest.raises(MALFORMED):
        msgspec.json.decode(b'"\xff"', type=str)
