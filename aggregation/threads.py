"""Work on batches of chunks in threads, results in order.

Ciphers, digests and NumPy's arithmetic let go of the interpreter's lock, so threads use every core
that the process may use. A few results wait at a time, however long the update is. Ciphers, digests
and transforms so take half the time on two cores; NumPy's short steps wait for the lock as long as
they take, and gain little (docs/benchmarks.md).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

S = TypeVar("S")
T = TypeVar("T")

BATCH: Final = 8  # chunks of one piece of work: its arrays stay in a core's cache
_SHARED: Final = 32  # with several threads: each of NumPy's steps may end in a wait for the lock
_WORTH_IT: Final = 4  # pieces a thread; fewer are done before threads have begun
_MOST: Final = 8  # threads; beyond, memory is what is waited for


def in_order(work: Callable[[S], T], pieces: Iterable[S], count: int) -> Iterator[T]:
    """Call `work` on pieces, in several threads at once where there are enough of them.

    Args:
        work: What is done to a piece; it changes nothing that another piece needs.
        pieces: Taken one by one, a few ahead of what was yielded.
        count: About how many there are.

    Yields:
        What it returned, in the order of the pieces; what it raises, in its place.
    """
    threads = _threads(count)
    if threads == 1:
        yield from map(work, pieces)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="chunks")
    waiting: deque[Future[T]] = deque()
    try:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def batches(count: int, size: int = BATCH) -> list[range]:
    """The ranges of `size` that make up an update of `count` chunks."""
    return [range(low, min(low + size, count)) for low in range(0, count, size)]


def each_batch(work: Callable[[range], T], count: int) -> Iterator[T]:
    """`in_order` on the ranges that make up an update of `count` chunks."""
    pieces = count // _SHARED
    return in_order(work, batches(count, BATCH if _threads(pieces) == 1 else _SHARED), pieces)


def _threads(pieces: int) -> int:
    """How many threads so many pieces of work are worth; with one, the caller does it itself."""
    return max(1, min(len(os.sched_getaffinity(0)), _MOST, pieces // _WORTH_IT))
