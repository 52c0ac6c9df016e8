"""What `bench startup` declares is what a server reads; how long that takes is measured by hand."""

from __future__ import annotations

from pathlib import Path

from fmfl_secure.bench.startup import declared_start, federation_toml
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.vectors.start_file import read_start, write_start


def test_the_declared_start_is_one_of_a_server(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(federation_toml(8), encoding="utf-8")
    start = declared_start(path)
    write_start(start, tmp_path / "start.safetensors")
    assert read_start(tmp_path / "start.safetensors", load_federation(path)) == start
    assert start.size == 16 * 8 * (2048 + 2048 + 2048 + 512)
