"""The figures of norms that are checked: of rounds that are real, and exact in bytes."""

from __future__ import annotations

from fmfl_secure.bench.norms import measure


def test_what_is_sent_is_64_numbers_a_group_and_less_for_small_ones() -> None:
    found = measure([3072, 3072, 770], sites=3, bits=16, repeats=1)
    assert (found["parameters"], found["groups"]) == (6914, 3)
    numbers = 8 * (64 + 64 + 32)
    assert 0 < found["site_sent_bytes"] - numbers < 350  # signature, names of fields
    assert found["site_read_bytes"] == 3 * found["site_sent_bytes"]
    assert found["site_round_ms"] > 0
    assert found["server_round_ms"] > 0
