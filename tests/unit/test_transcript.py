"""The transcript of a run: who saw what, and nothing secret."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from fmfl_secure.run.transcript import Transcript


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_transcript_line_tells_who_saw_what(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "t.jsonl")
    transcript.saw("site a", "plan", b"the plan", round_number=2, attempt=3)
    transcript.saw(
        "aggregator", "upload", b"m", round_number=2, attempt=3, sender="a", upload_bytes=9
    )
    first, second = lines(tmp_path / "t.jsonl")
    assert (first["role"], first["saw"], first["round"], first["attempt"]) == (
        "site a", "plan", 2, 3
    )  # fmt: skip
    assert first["size_bytes"] == 8
    assert first["sha256"] == hashlib.sha256(b"the plan").hexdigest()
    assert base64.b64decode(first["message"]) == b"the plan"
    assert (second["sender"], second["upload_bytes"]) == ("a", 9)


def test_a_transcript_line_can_be_read_before_it_is_synced(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "t.jsonl")
    transcript.saw("x", "sum", b"", round_number=1, attempt=1)
    assert len(lines(tmp_path / "t.jsonl")) == 1
    transcript.sync()
    assert len(lines(tmp_path / "t.jsonl")) == 1


def test_a_transcript_goes_on_after_a_restart(tmp_path: Path) -> None:
    for number in (1, 2):
        Transcript(tmp_path / "t.jsonl").saw("x", "sum", b"", round_number=number, attempt=1)
    assert [line["round"] for line in lines(tmp_path / "t.jsonl")] == [1, 2]


def test_openings_and_large_messages_stand_there_by_digest(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    transcript = Transcript(path)
    seed = bytes(range(100))
    transcript.saw("aggregator", "opening", seed, round_number=1, attempt=1)
    transcript.saw("coordinator", "cohort", b"\x07" * 20_000, round_number=1, attempt=1)
    opening, cohort = lines(path)
    assert "message" not in opening
    assert "message" not in cohort
    assert opening["sha256"] == hashlib.sha256(seed).hexdigest()
    assert cohort["size_bytes"] == 20_000
    text = path.read_text()
    for form in (seed.hex(), base64.b64encode(seed).decode()):
        assert form not in text
