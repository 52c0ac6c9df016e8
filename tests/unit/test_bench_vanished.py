"""The figures of sites that may vanish: of rounds that are real, and exact in bytes."""

from __future__ import annotations

from fmfl_secure.bench.vanished import measure


def test_what_is_added_is_boxes_shares_and_commitments() -> None:
    found = measure(4, 1, repeats=1)
    assert (found["sites"], found["vanished"], found["colluding_sites"]) == (4, 1, 1)
    box_key, boxes, commitments, opened = 1216, 3 * 1233, 4 * 32, 4 * 65
    core = box_key + boxes + commitments + opened
    # Beside them names of fields; and the MAC key's three boxes, which came with the upload, less.
    assert abs(found["site_added_sent_bytes"] - core + 3 * 48) < 250
    # Of each other's boxes a site is handed its own.
    assert abs(found["site_added_read_bytes"] - (4 * box_key + boxes) + 3 * 48) < 250
    assert found["site_sent_bytes"] > found["site_added_sent_bytes"]
