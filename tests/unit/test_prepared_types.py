"""Types that several threads decode for the first time at once."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from aggregation.protocol import prepared

# Many types, so that the threads meet at the first decoding of some; switched as often as can be.
AT_ONCE = """
import sys, threading
from typing import Annotated
import msgspec
from aggregation.protocol import prepared
sys.setswitchinterval(1e-6)

def made(n):
    box = Annotated[bytes, msgspec.Meta(max_length=1000 + n)]
    inner = msgspec.defstruct(f"Inner{n}", [("box", box), ("name", str)], frozen=True)
    return msgspec.defstruct(f"Outer{n}", [("a", box), ("b", tuple[inner, ...])], frozen=True)

kinds = [made(n) for n in range(120)]
raw = msgspec.msgpack.encode({"a": b"x", "b": [{"box": b"y", "name": "n"}]})
together = threading.Barrier(4)
done = []

def decode():
    for kind in kinds:
        together.wait()
        done.append(msgspec.msgpack.decode(raw, type=prepared(kind)).a)

threads = [threading.Thread(target=decode) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
print(len(done))
"""


def test_threads_may_all_be_the_first_to_decode_a_type() -> None:
    """Without `prepared` this process ends with a memory fault, of msgspec 0.22."""
    ended = subprocess.run(
        [sys.executable, "-c", AT_ONCE], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "480"), ended.stderr


def test_a_prepared_type_is_the_type_itself() -> None:
    class Kind(msgspec.Struct):
        value: int

    assert prepared(Kind) is Kind
    assert msgspec.json.decode(b'{"value": 1}', type=prepared(Kind)) == Kind(1)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"value": "1"}', type=prepared(Kind))
