"""Batches of chunks in threads: in order, a few ahead, and the same round as with one."""

import os
import threading

import numpy as np
import pytest

from aggregation import UploadError, threads
from aggregation.protocol.uploads import Chunks
from aggregation.testing import Federation
from aggregation.threads import BATCH, each_batch, in_order

SIZE = 70 * 4096 * 3 - 5  # of three sites' 16 bits three values fit a coefficient: 70 chunks


@pytest.fixture(params=[1, 2, 3])
def cores(request, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(request.param)))
    monkeypatch.setattr(threads, "_SHARED", BATCH)  # a small update is worth them too
    return request.param


def test_results_come_in_order_and_pieces_are_taken_a_few_ahead(cores):
    taken, seen, names = [], [], set()

    def pieces():
        for k in range(100):
            taken.append(k)
            yield k

    def work(piece):
        names.add(threading.current_thread().name)
        return piece * 2

    for result in in_order(work, pieces(), 100):
        seen.append(result)
        assert len(taken) - len(seen) <= 2 * cores
    assert seen == [2 * k for k in range(100)]
    assert (names == {threading.current_thread().name}) == (cores == 1)


def test_what_fails_is_raised_in_its_place_and_the_rest_is_left(cores):
    done = []

    def work(part):
        if part.start == 5 * BATCH:
            raise UploadError("no")
        done.append(part.start)
        return part.start

    got, results = [], each_batch(work, 1000)
    with pytest.raises(UploadError, match="no"):
        got.extend(results)
    assert got == [0, BATCH, 2 * BATCH, 3 * BATCH, 4 * BATCH]
    assert max(done) <= (5 + 2 * cores + 1) * BATCH


def test_a_round_in_threads_is_exact(cores):
    del cores
    fed = Federation(3, size=SIZE, suite="ckks-collective")
    attempt = fed.start()
    assert fed.new_aggregator(attempt).round.packing.chunks == 70
    released = attempt.sites["site-0"].verify(fed.release(attempt))
    exact = sum(values.astype(np.int64) for values in attempt.integers.values())
    np.testing.assert_array_equal(released, exact)


def test_in_threads_too_a_spoiled_chunk_is_not_in_the_sum_and_the_upload_goes_on(cores):
    """The chunks before it are; those after it, which threads had begun with, are not."""
    del cores
    fed = Federation(3, size=SIZE, suite="ckks-collective")
    attempt = fed.start()
    aggregator, exact = fed.new_aggregator(attempt), np.zeros(SIZE, dtype=np.int64)
    for name, site in attempt.sites.items():
        attempt.integers[name] = fed.random_integers()
        exact += attempt.integers[name]
        upload = site.upload(attempt.cohort, attempt.integers[name])
        spoiled = list(upload.chunks)
        spoiled[41] = bytes(len(spoiled[41]))
        with pytest.raises(UploadError, match="chunk 41 is not what"):
            aggregator.add(upload.manifest, spoiled)
        assert name in aggregator.missing
        aggregator.add(upload.manifest, upload.chunks)
    listed = fed.decryptor.confirm(
        attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
    )
    for site in attempt.sites.values():
        aggregator.add_opening(site.open(listed))
    total = aggregator.total()
    release = fed.decryptor.release(attempt.cohort, listed, total.manifest, total.chunks)
    released = attempt.sites["site-1"].verify(release)
    np.testing.assert_array_equal(released, exact)


def test_chunks_are_a_sequence_of_bytes():
    chunks = Chunks(3, 4)
    chunks.part(range(3))[:] = np.arange(12, dtype=np.uint8).reshape(3, 4)
    chunks.end_with(b"last")
    assert list(chunks) == [bytes(range(k, k + 4)) for k in (0, 4, 8)] + [b"last"]
    assert chunks[-1] == chunks[3] == b"last"
    assert chunks[1:] == list(chunks)[1:]
    assert chunks[:-1] == list(chunks)[:-1]
    assert len(chunks) == 4
    with pytest.raises(IndexError):
        chunks[4]
