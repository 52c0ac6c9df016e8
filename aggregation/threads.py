"""Work on batches of chunks in threads, results in order.

Ciphers, digests and NumPy's arithmetic let go of the interpreter's lock, so threads use every core
that the process may use. A few results wait at a time, however long the update is.
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
    threads = min(len(os.sched_getaffinity(0)), _MOST, count // _WORTH_IT)
    if threads < 2:
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


def each_batch(work: Callable[[range], T], count: int) -> Iterator[T]:
    """`in_order` on the ranges of `BATCH` that make up an update of `count` chunks."""
    ranges = [range(low, min(low + BATCH, count)) for low in range(0, count, BATCH)]
    return in_order(work, ranges, len(ranges))
