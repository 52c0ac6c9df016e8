"""What grows with the number of sites: bytes of a round's messages, and operations of a site.

    python benchmarks/count_scale.py benchmarks/results/scale.json

Messages are made by the real classes, for so many sites, and measured; `formulas` says the same on
paper, for numbers of sites that nobody can run. `tests/unit/test_scale.py` holds the two together,
and both to this file; `docs/scale.md` draws the conclusions.
"""

import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from count_operations import Process

from aggregation import PublicIdentity, SiteAttempt, SqliteJournal, sign_journal_head
from aggregation.crypto import graph, mac
from aggregation.crypto.sealed_box import KEM_CIPHERTEXT_SIZE, KEM_PUBLIC_SIZE, OVERHEAD
from aggregation.protocol import messages, read_exchange, verify_and_hand_out
from aggregation.protocol.exchange import hand_out
from aggregation.protocol.messages import (
    HEAD_SIZE,
    Confirmation,
    Opening,
    OpeningList,
    Release,
    UploadManifest,
)
from aggregation.testing import Federation
from fmfl_secure.runtime.anchor_registry import AnchorsForSite

VALUES, BITS = 100_000, 16
SITES = (50, 200, 1000)
SUITE, AGREEMENT = "ckks-collective", "x25519-mlkem768"
ANCHOR = 420  # bytes of a ledger's head as a line, about: it has the population's name


class _Everybody:
    """Keeps one head of everybody's journal, as every site does of those it met."""

    def __init__(self, fed: Federation, journal: SqliteJournal) -> None:
        self._fed, self._journal = fed, journal

    def journals(self, of: PublicIdentity) -> Sequence[str]:
        """One head, signed by its owner."""
        return [sign_journal_head(self._journal, self._fed.identities[of.name]) or ""]

    def keep_journals(self, given: Iterable[tuple[PublicIdentity, str]]) -> None:
        """It keeps what it has."""


def measure(sites: int, values: int = VALUES) -> dict[str, dict[str, int]]:
    """Bytes of what one site is sent and sends in a round, by message, made for so many sites."""
    fed = Federation(sites, size=values, bits=BITS, suite=SUITE, key_agreement=AGREEMENT)
    plan = fed.coordinator.plan(fed.plan())
    with tempfile.TemporaryDirectory() as folder:
        journal = SqliteJournal(Path(folder) / "journal.sqlite")
        first = fed.names[0]
        fed.journals[first] = journal
        sender = SiteAttempt(
            fed.identities[first], plan, coordinator=fed.public["coordinator"],
            pinned=fed.public, journal=journal, witness=_Everybody(fed, journal),
        )  # fmt: skip
        readies = [sender.ready(), *(fed.site(name, plan).ready() for name in fed.names[1:])]
        cohort = fed.coordinator.cohort(plan, fed.decryptor.announce(plan), readies)
        said = sender.exchange(cohort)
        line = sign_journal_head(journal, fed.identities[first]) or ""
    round_ = sender._round
    fixed = sender._cohort
    assert fixed is not None
    handed = hand_out(fixed, {said: tuple(read_exchange(fixed, said).parts)})
    parts = [len(part) for given in handed.values() for part in given]
    manifest = messages.seal(
        fed.identities[first],
        UploadManifest(
            fixed.transcript, bytes(32 * round_.upload_items), bytes(32),
            bytes(mac.BOX_SIZE * (sites - 1)),
        ),
    )  # fmt: skip
    listed = messages.seal(
        fed.identities["aggregator"],
        OpeningList(fixed.transcript, (bytes(32),) * sites, manifest),
    )
    tags = bytes(mac.TAG_BYTES)
    opening = Opening(fixed.transcript, bytes(32), bytes(32), tags)
    integers = bytes(values * fixed.integer_dtype.itemsize)
    heads = AnchorsForSite(
        own=["x" * ANCHOR],
        others=dict.fromkeys(fed.names[1:], "x" * ANCHOR),
        known={},
        journals=[line],
        other_journals={name: [line] for name in fed.names[1:]},
    )
    return {
        "is sent": {
            "plan": len(plan),
            "cohort": len(cohort),
            "exchange parts": round(float(np.mean(parts)) * handed_messages(sites)),
            "confirmed list": len(messages.seal(fed.identities["decryptor"], Confirmation(listed))),
            "release": len(
                messages.seal(
                    fed.identities["decryptor"],
                    Release(fixed.transcript, bytes(32), integers, tags),
                )
            ),
            "heads, once": len(msgspec.json.encode(heads)),
        },
        "sends": {
            "ready": len(readies[0]),
            "exchange": len(said),
            "manifest": len(manifest),
            "chunks": round_.packing.chunks * round_.chunk_size,
            "sealed secret": OVERHEAD + round_.polynomial_size,
            "opening": len(messages.seal(fed.identities[first], opening)),
        },
    }


def handed_messages(sites: int) -> int:
    """How many others' messages a site has a part of; above all pairs, on average."""
    return sites - 1 if sites <= graph.ALL_PAIRS_UP_TO else graph.choices(sites)


def formulas(sites: int, values: int = VALUES) -> dict[str, dict[str, float]]:
    """The same on paper: per message what it has for each site, and besides."""
    readers = handed_messages(sites)
    chosen = sites > graph.ALL_PAIRS_UP_TO
    # Of all pairs a ciphertext goes one way, to half of the others; who chooses has one for each.
    ciphertext = KEM_CIPHERTEXT_SIZE * (1 if chosen else 0.5)
    part = ciphertext + HEAD_SIZE + 20
    proof = 34 * math.log2(readers)
    index = 334 + (10 + 2 * readers if chosen else 0)
    chunks, packed = _packing(sites, values)
    width = 2 if sites * (2 ** (BITS - 1) - 1) < 2**15 else 4
    item = 32 * (chunks + 1)
    return {
        "is sent": {
            "plan": 1_000 + 79 * sites,
            "cohort": 1_600 + (KEM_PUBLIC_SIZE + 210) * sites,
            "exchange parts": readers * (index + part + proof + 28),
            "confirmed list": 800 + item + (34 + mac.BOX_SIZE) * sites,
            "release": 300 + width * values,
            "heads, once": (ANCHOR + 330) * sites,
        },
        "sends": {
            "ready": 1_388,
            "exchange": index + readers * (part + 3) + 40,
            "manifest": 300 + item + mac.BOX_SIZE * (sites - 1),
            "chunks": packed * chunks,
            "sealed secret": OVERHEAD + packed,
            "opening": 275,
        },
    }


def _packing(sites: int, values: int) -> tuple[int, int]:
    """Chunks of an update, and bytes of one: 4,096 coefficients of 60 bits."""
    per_coefficient = 2 if (2 * sites * (2 ** (BITS - 1) - 1) + 1) ** 2 < 2**50 else 1
    return math.ceil(values / (4096 * per_coefficient)), 4096 * 60 // 8


def operations(sites: int) -> dict[str, int]:
    """What a site does from the plan to its upload, of an update of one chunk, counted.

    The mean over three sites, since how many chose one of them is chance; none of them is the
    first, which seals the MAC key for all.
    """
    fed = Federation(sites, size=1, bits=BITS, suite=SUITE, key_agreement=AGREEMENT)
    message = fed.coordinator.plan(fed.plan())
    counts: Counter[str] = Counter()
    counted = {name: Process(counts) for name in fed.names[1:4]}
    own = lambda name, step: counted[name].does(step) if name in counted else step()  # noqa: E731
    attempts = {n: own(n, lambda n=n: fed.site(n, message)) for n in fed.names}
    readies = [own(n, each.ready) for n, each in attempts.items()]
    cohort = fed.coordinator.cohort(message, fed.decryptor.announce(message), readies)
    said = [own(n, lambda each=each: each.exchange(cohort)) for n, each in attempts.items()]
    fixed = attempts[fed.names[-1]]._cohort
    assert fixed is not None
    handed = verify_and_hand_out(fixed, said)
    nothing = np.zeros(1, dtype=np.int32)
    for name in counted:
        own(name, lambda n=name: attempts[n].upload(cohort, nothing, handed[n]))
    return {name: round(value / len(counted)) for name, value in counts.items()}


def operation_formulas(sites: int) -> dict[str, float]:
    """The same on paper; of all pairs, without heads."""
    mean, others = graph.mean_neighbours(sites), sites - 1
    chosen, size = sites > graph.ALL_PAIRS_UP_TO, formulas(sites, 1)
    of_its_own = ("chunks", "sealed secret", "manifest")
    heard = graph.choices(sites) if chosen else others / 2  # of whom it reads a message
    return {
        "signatures verified": 3 + sites + heard,  # plan, cohort and announcement
        "X25519 agreements": 1 + mean,
        "ML-KEM encapsulations": 1 + heard,
        "signatures made": 4,  # ready, exchange, sealed secret, manifest
        "products": 1,
        # Besides what is signed and sent: the plan once, and the cohort at each step.
        "bytes digested": sum(size["sends"][name] for name in of_its_own)
        + size["is sent"]["plan"]
        + 3 * size["is sent"]["cohort"],
        # On c0 and on the secret, a stream each of 8 bytes a residue, and a little for rejections.
        "bytes of streams": 2 * 8 * 4096 * (mean + 2),
    }


def main(path: Path) -> None:
    """Measure and count, and write it."""
    found = {
        str(sites): {"bytes": measure(sites), "operations": operations(sites)} for sites in SITES
    }
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
