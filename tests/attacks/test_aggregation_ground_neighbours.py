"""A coordinator and colluding sites try ready messages until a victim stands among them alone.

0.1.0 took all pairs of up to 32 sites only. From 33 on it put the sites on a ring, in an order
hashed from the transcript, and whoever sends the last `ready` message knows the transcript of
every key it might send. With aggregator and decryptor in league too, a victim whose neighbours all
collude has no mask left that they do not know.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from residue_spread import spread

from aggregation import parameter_set
from aggregation.ckks import residues
from aggregation.crypto.graph import choose
from aggregation.crypto.pairwise import EphemeralKey
from aggregation.errors import StateError
from aggregation.protocol import messages
from aggregation.protocol.messages import Ready
from aggregation.roles.site_secrets import SiteSecrets
from aggregation.testing import Federation
from fmfl_secure.demonstration import collusion

SITES, COLLUDING = 33, 27
VICTIM = 0
Q = parameter_set("ckks-collective-4096-60-aes").modulus


def log2_choose(n: int, k: int) -> float:
    return math.log2(math.comb(n, k)) if 0 <= k <= n else -math.inf


def ring_of_0_1_0(sites: int, transcript: bytes) -> list[int]:
    domain = b"fmfl-secure/aggregation/v1/graph"

    def place(index: int) -> bytes:
        return hashlib.sha256(domain + transcript + index.to_bytes(4, "big")).digest()

    return sorted(range(sites), key=place)


def degree_of_0_1_0(sites: int) -> int:
    for even in range(2, sites - 1, 2):
        colluding = sites // 2
        if colluding < even:
            return even
        runs = log2_choose(sites, 2) + log2_choose(sites - even, colluding - even)
        if runs - log2_choose(sites, colluding) <= -80:
            return even
    return sites - 1


def neighbours_of_0_1_0(sites: int, index: int, transcript: bytes) -> list[int]:
    ring, half = ring_of_0_1_0(sites, transcript), degree_of_0_1_0(sites) // 2
    own = ring.index(index)
    return [ring[(own + sign * step) % sites] for step in range(1, half + 1) for sign in (1, -1)]


class Ground:
    """Thirty-three sites; 27 of them, coordinator, aggregator and decryptor in one hand."""

    def __init__(self) -> None:
        self.fed = Federation(SITES, size=4, suite="ckks-collective")
        self.colluders = set(range(SITES - COLLUDING, SITES))
        plan = self.fed.plan()
        self.plan = self.fed.coordinator.plan(plan)
        self.sites = {name: self.fed.site(name, self.plan) for name in self.fed.names}
        self.announcement = self.fed.decryptor.announce(self.plan)
        honest_first = [site.ready() for site in self.sites.values()]
        self.tried = 0
        last = self.sites[self.fed.names[-1]]
        while True:
            readies = tuple(honest_first)
            transcript = messages.transcript_hash(self.plan, self.announcement, readies)
            near = neighbours_of_0_1_0(SITES, VICTIM, transcript)
            if set(near) <= self.colluders:
                break
            self.tried += 1
            assert self.tried < 20_000
            key = EphemeralKey()
            body = Ready(last._round.digest, key.public, b"")
            honest_first[-1] = messages.seal(self.fed.identities[self.fed.names[-1]], body)
            last._secrets._key, last._ready = key, honest_first[-1]
        self.cohort = self.fed.coordinator.cohort(self.plan, self.announcement, readies)

    def open_victim(self) -> tuple[collusion.Opened, np.ndarray]:
        """What the league reads of the victim's upload."""
        aggregator = self.fed.new_aggregator(self)  # type: ignore[arg-type]
        integers = {}
        for name, site in self.sites.items():
            integers[name] = self.fed.random_integers()
            upload = site.upload(self.cohort, integers[name])
            aggregator.add(upload.manifest, upload.chunks)
        victim = self.sites[self.fed.names[VICTIM]]
        transcript, name = aggregator.transcript, self.fed.names[VICTIM]
        key = next(iter(self.fed.decryptor._attempts.values())).key
        sealed = aggregator.sealed_secrets()[VICTIM]
        box = messages.unseal(sealed, messages.Sigma, self.fed.public[name], 1 << 20).box
        upload = victim.upload(self.cohort, integers[name])
        packing = aggregator.round.packing
        opened = collusion.open_upload(
            collusion.Target(
                name=name,
                transcript=transcript,
                parameters=parameter_set("ckks-collective-4096-60-aes"),
                c0=aggregator.round.unpack_chunks(upload.chunks[:-1])[:, 0],
                sigma=residues.unpack(key.open_box(box, transcript + name.encode()), 4096, Q),
                seed=victim._secrets.seed,
            ),
            collusion.pairs_known_to(
                [self.fed.names[i] for i in self.colluders], victim._secrets._pairs
            ),
            packing,
        )
        return opened, packing.pack(integers[name])

    @property
    def plan_message(self) -> bytes:
        return self.plan


def test_by_the_rule_of_0_1_0_a_ground_ready_message_opens_the_victim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ring(self: SiteSecrets, cohort) -> list[int]:
        return neighbours_of_0_1_0(
            len(cohort.members), cohort.position(self._name), cohort.transcript
        )

    monkeypatch.setattr(SiteSecrets, "_neighbours", ring)
    opened, packed = Ground().open_victim()
    assert np.array_equal(opened.coefficients, packed)


def test_grinding_gains_nothing_where_all_are_neighbours() -> None:
    """The same league finds the same ready message, and the victim shares masks with five more."""
    ground = Ground()
    opened, packed = ground.open_victim()
    assert spread(opened.secret, Q) > 2**57
    assert all(spread(chunk, Q) > 2**57 for chunk in opened.c0)
    assert np.mean(opened.coefficients == packed) < 0.01


def test_above_128_there_is_nothing_to_grind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is whose neighbour is drawn after all keys are fixed, by the victim itself, each time."""
    monkeypatch.setattr("aggregation.crypto.graph.ALL_PAIRS_UP_TO", 8)
    fed = Federation(12, size=4, suite="ckks-collective")
    monkeypatch.setattr("aggregation.crypto.graph.choices", lambda _: 4)
    attempt = fed.start(exchange=False)
    victim = attempt.sites["site-0"]
    assert victim._secrets._chosen == (), "nobody can know before the cohort is fixed"
    sent = victim.exchange(attempt.cohort)
    chosen = victim._secrets._chosen
    assert victim.exchange(attempt.cohort) == sent, "and it is said once"
    # Another cohort, ground for the choice that was seen, comes too late for this attempt.
    readies = [site.ready() for site in attempt.sites.values()][:-1]
    other = messages.seal(
        fed.identities["coordinator"],
        messages.Cohort(victim._round.digest, attempt.announcement, tuple(readies)),
    )
    with pytest.raises(StateError, match="another cohort"):
        victim.exchange(other)
    # And in the next attempt the very same messages would not give the same choice.
    drawn = {choose(12, 0) for _ in range(40)}
    assert len(drawn) > 20
    assert len(chosen) == 4
