"""A stream of random words has no end: what happens where one key's counter does."""

from __future__ import annotations

import hashlib
import os
import types

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from privacy.mechanism.keystream import KeyStream
from privacy.mechanism.noise import GaussianSource
from privacy.mechanism.rounding import RandomizedRounding
from privacy.mechanism.skellam import SkellamSource

LAST = 2**32 - 2  # two blocks, 16 words, before the end of a key


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every key that a stream takes from the operating system, in order: made up, and noted."""
    drawn: list[bytes] = []

    def urandom(size: int) -> bytes:
        drawn.append(hashlib.sha256(b"%d" % len(drawn)).digest()[:size])
        return drawn[-1]

    monkeypatch.setattr(
        "privacy.mechanism.keystream.os", types.SimpleNamespace(urandom=urandom, getpid=os.getpid)
    )
    return drawn


def cipher(key: bytes, block: int):
    start = block.to_bytes(4, "little") + bytes(12)
    return Cipher(algorithms.ChaCha20(key, start), mode=None).encryptor()


def near_the_end() -> KeyStream:
    stream = KeyStream()
    stream._rekey(first_block=LAST)
    return stream


def test_one_key_ends_there() -> None:
    """What the border is: the library refuses block 2^32, and so would noise on a large model."""
    raw = cipher(bytes(32), LAST)
    raw.update(bytes(128))
    with pytest.raises(ValueError, match="overflow"):
        raw.update(bytes(8))


@pytest.mark.parametrize("counts", [(16, 16), (5, 30), (40,), (1,) * 40, (0, 17, 0, 8)])
def test_across_the_border_a_new_key_takes_over(keys: list[bytes], counts: tuple[int, ...]) -> None:
    stream = near_the_end()
    drawn = np.concatenate([stream.words(count) for count in counts])
    assert len(drawn) == sum(counts)
    assert len(keys) == 3, "the construction's, the one near its end, and the one after it"
    expected = np.frombuffer(
        cipher(keys[1], LAST).update(bytes(128))
        + cipher(keys[2], 0).update(bytes(8 * (len(drawn) - 16))),
        dtype=np.uint64,
    )
    np.testing.assert_array_equal(drawn, expected)
    # Were the counter only set back, the old key's first words would come a second time.
    again = np.frombuffer(cipher(keys[1], 0).update(bytes(8 * len(drawn))), dtype=np.uint64)
    assert not np.isin(drawn, again).any()


def test_nothing_repeats_across_the_border_and_no_two_streams_meet() -> None:
    drawn = np.concatenate([near_the_end().words(4096) for _ in range(4)])
    assert len(np.unique(drawn)) == 4 * 4096
    # Bits lean neither way, before the border or after: 5 deviations of 2^14 words.
    ones = np.unpackbits(drawn.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(64 * len(drawn))


def test_words_are_read_only_on_either_side() -> None:
    stream = near_the_end()
    assert not stream.words(20).flags.writeable
    assert not stream.words(20).flags.writeable


@pytest.mark.parametrize(
    ("source", "draw"),
    [
        (GaussianSource(), lambda s: s.normal(64)),
        (SkellamSource(5000), lambda s: s.integers(64)),
        (
            RandomizedRounding(granularity=1.0, clamp=4),
            lambda s: s.integers(np.full(64, 0.5)),
        ),
    ],
    ids=["gaussian", "skellam", "rounding"],
)
def test_every_source_of_noise_goes_on(source, draw) -> None:
    source._words._rekey(first_block=LAST)
    before, after = draw(source), draw(source)
    assert source._words._left_bytes > 2**37, "the border was crossed"
    assert before.shape == after.shape == (64,)
    assert not np.array_equal(before, after)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_near_the_border_is_noticed_too() -> None:
    stream = near_the_end()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, stream.words(32).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = np.frombuffer(os.read(read, 256), dtype=np.uint64)
    os.close(read)
    os.close(write)
    assert len(theirs) == 32
    assert not np.isin(theirs, stream.words(32)).any()
