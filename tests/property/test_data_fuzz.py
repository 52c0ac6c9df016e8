"""No spoiled file of any form crashes a reader or a decoder, or takes much memory (`data_fuzz`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import data_fuzz
import pytest

from fmfl_secure.data.formats import FORMATS
from fmfl_secure.data.pictures import PICTURES

PROGRAM = Path(data_fuzz.__file__)
# What a file of a few kilobytes may add: pictures of up to 64 million pixels are decoded.
MOST_MIB = 2048


def outcomes(count: int, seed: int) -> dict[str, int]:
    """How each form's inputs ended, in a process whose end is looked at, too."""
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), str(count), str(seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-2000:]
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["failed"] == 0
    assert told["peak_mib"] < MOST_MIB
    return told["outcomes"]


@pytest.mark.parametrize(("count", "seed"), [(800, 1)])
def test_spoiled_files_are_read_or_refused(count: int, seed: int) -> None:
    found = outcomes(count, seed)
    assert sum(found.values()) == count
    of_pictures = {name for name in found if name.split(":")[0] in data_fuzz.PICTURES}
    assert {f"{name}: refused" for name in data_fuzz.PICTURES} <= of_pictures
    assert sum(found[name] for name in of_pictures if name.endswith("read")) > count / 20
    assert {f"{name}: refused" for name in data_fuzz.TABLES} < set(found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_spoiled_files_of_each_seed_are_read_or_refused(seed: int) -> None:
    outcomes(10_000, 1000 + seed)


def test_every_form_has_a_seed() -> None:
    names = {Path(name.removesuffix(".gz")).suffix for name in data_fuzz.TABLES}
    assert {suffix for kind in FORMATS for suffix in kind.suffixes} == names
    heads = [data[:512] for data in data_fuzz.PICTURES.values()]
    assert all(any(form.begins(head) for head in heads) for form in PICTURES)


def test_a_crash_would_be_noticed(tmp_path: Path) -> None:
    """With a reader that fails otherwise than by a refusal, the same inputs fail."""
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import sys; import data_fuzz\n"
        "def fail(*_): raise KeyError('somebody')\n"
        "data_fuzz.try_table = fail\n"
        "sys.exit(data_fuzz.main(50, 1))\n"
    )
    ended = subprocess.run(
        [sys.executable, str(broken)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join([str(PROGRAM.parent), *sys.path])},
    )
    assert ended.returncode == 1
    assert "KeyError" in ended.stdout
