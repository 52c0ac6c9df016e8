"""What one round of secure aggregation does, counted: signatures, ciphers, digests, bytes.

    python benchmarks/count_operations.py benchmarks/results/operations.json

Counts are the same on every machine, so a test holds them to this file
(`tests/unit/test_operation_counts.py`), where a time could not be held to anything.
"""

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np

from aggregation import Aggregator, SiteAttempt, SumUpload
from aggregation.ckks.exact_product import ExactMultiplier
from aggregation.crypto import sealed_box
from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.crypto.masking import Stream
from aggregation.protocol import checks, messages
from aggregation.testing import Attempt, Federation

T = TypeVar("T")

ROUNDS = {
    "one value, 8 sites": (1, 8, 16),
    "100,000 values, 8 sites": (100_000, 8, 16),
    "100,000 values, 40 sites": (100_000, 40, 8),
}


@contextlib.contextmanager
def counted(counts: Counter[str]) -> Iterator[None]:
    """Count what the protocol's primitives do, while inside."""
    originals: list[tuple[Any, str, Callable[..., Any], Callable[..., int], str]] = [
        (Identity, "sign", Identity.sign, lambda *_: 1, "signatures made"),
        (PublicIdentity, "verify", PublicIdentity.verify, lambda *_: 1, "signatures verified"),
        (sealed_box, "agree", sealed_box.agree, lambda *_: 1, "X25519 agreements"),
        (sealed_box, "encapsulate", sealed_box.encapsulate, lambda *_: 1, "ML-KEM encapsulations"),
        (messages, "digest", messages.digest, len, "bytes digested"),
        (Stream, "_fill", Stream._fill, lambda s, _r, _f, n: 8 * n * s._count, "bytes of streams"),
        (ExactMultiplier, "times", ExactMultiplier.times, lambda _, p: len(p), "products"),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, original, amount, label in originals:

            def wrapper(
                *args: Any,
                original: Callable[..., Any] = original,
                amount: Callable[..., int] = amount,
                label: str = label,
            ) -> Any:
                counts[label] += amount(*args)
                return original(*args)

            stack.enter_context(mock.patch.object(owner, name, wrapper))
        yield


class Process:
    """A party's process: what it verified once it keeps, and what others verified it does not.

    Args:
        counts: Where what it does is counted.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._kept = {
            name: lru_cache(4)(getattr(checks, name).__wrapped__)
            for name in ("_read_plan", "_read_cohort")
        }

    def does(self, step: Callable[[], T]) -> T:
        """Do something in it, counted."""
        with counted(self._counts), mock.patch.multiple(checks, **self._kept):
            return step()


def count(size: int, sites: int, bits: int) -> dict[str, dict[str, int]]:
    """One round's counts by role; `site` is the mean over the sites.

    Args:
        size: Values of an update.
        sites: Cohort.
        bits: Of a value.
    """
    fed = Federation(
        sites, size=size, bits=bits, suite="ckks-collective", key_agreement="x25519-mlkem768"
    )
    roles: dict[str, Counter[str]] = {name: Counter() for name in ("site", "server", "decryptor")}
    site, server, decryptor = roles["site"], roles["server"], roles["decryptor"]
    processes = {name: Process(site) for name in fed.names}
    at_server, at_decryptor = Process(server), Process(decryptor)
    integers = np.zeros(size, dtype=np.int32)
    message = at_server.does(lambda: fed.coordinator.plan(fed.plan()))

    attempts = {name: at.does(partial(fed.site, name, message)) for name, at in processes.items()}

    def each(step: Callable[[str, SiteAttempt], Any]) -> dict[str, Any]:
        return {
            name: at.does(partial(step, name, attempts[name])) for name, at in processes.items()
        }

    readies = each(lambda _, site: site.ready())
    announcement = at_decryptor.does(lambda: fed.decryptor.announce(message))
    cohort = at_server.does(
        lambda: fed.coordinator.cohort(message, announcement, readies.values(), [])
    )
    exchanges = each(lambda _, site: site.exchange(cohort))
    attempt = Attempt(message, attempts, cohort=cohort, exchanges=tuple(exchanges.values()))
    handed = at_server.does(lambda: fed.handed(attempt))
    uploads = each(lambda name, site: site.upload(cohort, integers, handed[name]))

    def add() -> Aggregator:
        aggregator = fed.new_aggregator(attempt)
        for upload in uploads.values():
            aggregator.add(upload.manifest, upload.chunks)
        return aggregator

    aggregator = at_server.does(add)
    listed = at_server.does(aggregator.opening_list)
    secrets = aggregator.sealed_secrets()
    confirmed = at_decryptor.does(lambda: fed.decryptor.confirm(cohort, listed, secrets))
    openings = each(lambda _, site: site.open(confirmed))

    def total_of() -> SumUpload:
        for opening in openings.values():
            aggregator.add_opening(opening)
        return aggregator.total()

    total = at_server.does(total_of)
    release = at_decryptor.does(
        lambda: fed.decryptor.release(cohort, confirmed, total.manifest, total.chunks)
    )
    each(lambda _, site: site.verify(release))
    sent = (
        readies.values(), exchanges.values(), [u.manifest for u in uploads.values()],
        openings.values(), *(upload.chunks for upload in uploads.values()),
    )  # fmt: skip
    site["bytes sent"] = sum(len(m) for part in sent for m in part)
    site["bytes received"] = sites * sum(map(len, (message, cohort, confirmed, release)))
    site["bytes received"] += sum(len(m) for given in handed.values() for m in given)
    decryptor["bytes received"] = total.size_bytes + sum(map(len, secrets))
    return {
        role: {
            name: round(value / (sites if role == "site" else 1)) for name, value in each.items()
        }
        for role, each in roles.items()
    }


def main(path: Path) -> None:
    """Count every round and write it."""
    count(*next(iter(ROUNDS.values())))  # a process tests itself once, which is no round's work
    counts = {name: count(*shape) for name, shape in ROUNDS.items()}
    path.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
