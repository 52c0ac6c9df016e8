"""The tests' own PostgreSQL cluster leaves nothing behind, even of a test run that was killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from postgres import Cluster


def _start(programs: Path, told: Connection) -> None:
    cluster = Cluster(programs)
    postmaster = (cluster.folder / "data/postmaster.pid").read_text().splitlines()[0]
    told.send((str(cluster.folder), int(postmaster)))
    signal.pause()


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_test_run_leaves_no_cluster_behind(postgres: Cluster) -> None:
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_start, args=(postgres._programs, theirs))
    process.start()
    theirs.close()
    folder, postmaster = ours.recv()
    assert Path(folder).exists()
    assert _is_running(postmaster)
    process.kill()
    process.join()
    deadline = time.monotonic() + 60
    while Path(folder).exists() or _is_running(postmaster):
        if time.monotonic() > deadline:
            pytest.fail("the cluster outlived its test run")
        time.sleep(0.05)
    assert _is_running(int((postgres.folder / "data/postmaster.pid").read_text().split()[0]))
