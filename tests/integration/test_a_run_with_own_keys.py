"""Processes of parties that drew their own keys, from requests to a released round."""

from __future__ import annotations

from pathlib import Path

import pytest
from key_owners import SITES, typed, whole_ceremony
from processes import Federation
from support import write_rows

from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.run.record import decode_record
from fmfl_secure.transports.https.ports import free_port


@pytest.mark.slow
def test_parties_that_drew_their_own_keys_release_a_round(tmp_path: Path, tiny_model: Path) -> None:
    port = free_port()
    owners = whole_ceremony(tmp_path, tiny_model, url=f"https://localhost:{port}")
    for number, name in enumerate(SITES, 1):
        write_rows(owners.at(name) / "data/train.csv", 40, seed=number)
        typed("ledger", "grant", owners.at(name), "--accept")
    clients = ["decryptor", "board", *SITES]
    (owners.at("server") / "service.toml").write_text(
        f'[listen]\naddress = "127.0.0.1"\nport = {port}\n[operations]\nport = 0\n'
    )
    for name in clients:
        (owners.at(name) / "service.toml").write_text(
            f'[server]\nurl = "https://localhost:{port}"\nretry_s = 0.5\n[operations]\nport = 0\n'
        )
    federation = Federation(tmp_path)
    try:
        for name in ("server", *clients):
            federation.start(name)
        federation.wait()
    finally:
        federation.close()
    assert {p.exitcode for p in federation.processes.values()} == {0}, federation.state()
    record = decode_record((tmp_path / "run/report.json").read_bytes())
    assert [each.cohort for each in record.rounds] == [SITES]
    assert record.keys.compared
    assert not record.keys.missing
    page = (tmp_path / "run/report.html").read_text()
    assert "signed to have drawn their own keys" in page
    assert "A simulation" not in page
    # The first list came from the server, and is of whom each site pinned before.
    lists = MembershipFolder(owners.at("server")).lists()
    assert MembershipFolder(owners.at("site-1")).lists() == lists
