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
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from aggregation.ckks.exact_product import ExactMultiplier
from aggregation.crypto import sealed_box
from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.crypto.masking import Stream
from aggregation.protocol import messages
from aggregation.testing import Attempt, Federation

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
    integers = np.zeros(size, dtype=np.int32)
    with counted(server):
        message = fed.coordinator.plan(fed.plan())
    with counted(site):
        attempts = [fed.site(name, message) for name in fed.names]
        readies = [each.ready() for each in attempts]
    with counted(decryptor):
        announcement = fed.decryptor.announce(message)
    with counted(server):
        cohort = fed.coordinator.cohort(message, announcement, readies, [])
    with counted(site):
        exchanges = [each.exchange(cohort) for each in attempts]
        uploads = [each.upload(cohort, integers, exchanges) for each in attempts]
    with counted(server):
        aggregator = fed.new_aggregator(Attempt(message, {}, cohort=cohort))
        for upload in uploads:
            aggregator.add(upload.manifest, upload.chunks)
        listed = aggregator.opening_list()
    with counted(decryptor):
        confirmed = fed.decryptor.confirm(cohort, listed, aggregator.sealed_secrets())
    with counted(site):
        openings = [each.open(confirmed) for each in attempts]
    with counted(server):
        for opening in openings:
            aggregator.add_opening(opening)
        total = aggregator.total()
    with counted(decryptor):
        release = fed.decryptor.release(cohort, confirmed, total.manifest, total.chunks)
    with counted(site):
        for each in attempts:
            each.verify(release)
    sent = (readies, exchanges, [u.manifest for u in uploads], openings)
    site["bytes sent"] = sum(len(m) for part in sent for m in part)
    site["bytes sent"] += sum(len(chunk) for upload in uploads for chunk in upload.chunks)
    exchanged = sum(map(len, exchanges))
    site["bytes received"] = sites * sum(map(len, (message, cohort, confirmed, release)))
    site["bytes received"] += sites * exchanged
    decryptor["bytes received"] = total.size_bytes + sum(map(len, aggregator.sealed_secrets()))
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
