"""Evidence of a rehearsal in the hands of somebody who alters it: it is refused, or says the same.

Whoever keeps it can leave out what was never sent to anybody's knowledge; then a site is named for
its silence, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest

from aggregation import (
    AggregationError,
    Evidence,
    Identity,
    Judgement,
    SiteAttempt,
    judge,
    read_evidence,
)
from aggregation.protocol import Reveal, Vanishing, messages
from aggregation.testing import Federation

SITES = ("site-0", "site-1", "site-2", "site-3")


def wrong_integers(site: SiteAttempt) -> None:
    encrypt = site._secrets.encrypt
    changed: Callable[..., Any] = lambda cohort, packed: encrypt(cohort, packed + 1)  # noqa: E731
    site._secrets.encrypt = changed  # type: ignore[method-assign]


@dataclass
class Kept:
    """A federation, and what was kept of its rehearsal."""

    fed: Federation
    evidence: Evidence

    def judged(self, evidence: Evidence | None = None, **pinned: Identity) -> Judgement:
        """As anybody judges it: read from bytes, with keys from elsewhere."""
        raw = msgspec.msgpack.encode(evidence or self.evidence)
        known = {**self.fed.public, **{name: key.public for name, key in pinned.items()}}
        cohort, kept = read_evidence(raw, known["coordinator"], known)
        return judge(cohort, kept)


def keep(vanishing: Vanishing | None = None, *, spoiled: bool = True) -> Kept:
    """A rehearsal, in which site-1 uploads other integers than the public ones."""
    fed = Federation(
        4, size=9_000, suite="ckks-collective", key_agreement="x25519-mlkem768", vanishing=vanishing
    )
    attempt = fed.start(fed.rehearsal())
    if spoiled:
        wrong_integers(attempt.sites["site-1"])
    return Kept(fed, fed.rehearse(attempt))


@pytest.fixture(scope="module")
def kept() -> Kept:
    return keep()


def test_what_was_kept_names_the_site_at_anybody_s(kept: Kept) -> None:
    assert kept.judged().named == {"site-1": "upload"}


def test_kept_of_honest_sites_it_names_nobody() -> None:
    assert keep(spoiled=False).judged() == Judgement({}, holds=True)


def bytes_of(evidence: Evidence) -> list[tuple[str, str | None, int | None]]:
    """Every byte string in it: its field, its party, its place."""
    places: list[tuple[str, str | None, int | None]] = []
    for field in evidence.__struct_fields__:
        value = getattr(evidence, field)
        if isinstance(value, bytes):
            places += [(field, None, None)] if value else []
            continue
        for name, one in value.items():
            count = len(one) if isinstance(one, tuple) else 0
            places += [(field, name, place) for place in range(count)] or [(field, name, None)]
    return places


def altered(evidence: Evidence, place: tuple[str, str | None, int | None], at: float) -> Evidence:
    """With one bit the other way round."""
    field, name, index = place
    value = getattr(evidence, field)
    old = value if name is None else value[name] if index is None else value[name][index]
    flipped = bytearray(old)
    flipped[int(at * (len(flipped) - 1))] ^= 1
    new: Any = bytes(flipped)
    if name is not None:
        one = value[name]
        if index is not None:
            new = (*one[:index], new, *one[index + 1 :])
        new = {**value, name: new}
    return msgspec.structs.replace(evidence, **{field: new})


@pytest.mark.parametrize("vanishing", [None, Vanishing(1, 3)], ids=["all-open", "one-vanishes"])
def test_no_byte_can_be_another(vanishing: Vanishing | None) -> None:
    kept = keep(vanishing)
    places = bytes_of(kept.evidence)
    assert {place[0] for place in places} >= {"plan", "cohort", "exchanges", "chunks", "reveals"}
    for at, place in zip(np.random.default_rng(1).random(len(places)), places, strict=True):
        with pytest.raises(AggregationError):
            kept.judged(altered(kept.evidence, place, float(at)))


@pytest.mark.parametrize("field", ["exchanges", "manifests", "chunks", "openings", "reveals"])
def test_what_is_left_out_names_nobody_for_more_than_silence(kept: Kept, field: str) -> None:
    for name in SITES:
        rest = {k: v for k, v in getattr(kept.evidence, field).items() if k != name}
        try:
            named = kept.judged(msgspec.structs.replace(kept.evidence, **{field: rest})).named
        except AggregationError:
            continue
        assert {n: w for n, w in named.items() if w != "unrevealed"}.keys() <= {"site-1"}
        assert {n for n, w in named.items() if w == "unrevealed"} <= {name}


@pytest.mark.parametrize("field", ["exchanges", "manifests", "openings", "reveals"])
def test_one_site_s_message_does_not_stand_in_for_another_s(kept: Kept, field: str) -> None:
    found = dict(getattr(kept.evidence, field))
    found["site-2"] = found["site-1"]
    with pytest.raises(AggregationError):
        kept.judged(msgspec.structs.replace(kept.evidence, **{field: found}))


def test_a_message_under_a_made_up_key_names_nobody(kept: Kept) -> None:
    stranger = Identity.generate("site-2")
    body = messages.unseal(kept.evidence.reveals["site-2"], Reveal, kept.fed.public["site-2"])
    forged = {**kept.evidence.reveals, "site-2": messages.seal(stranger, body)}
    with pytest.raises(AggregationError, match="not signed by site-2"):
        kept.judged(msgspec.structs.replace(kept.evidence, reveals=forged))


def test_a_whole_rehearsal_with_made_up_sites_is_none(kept: Kept) -> None:
    """The coordinator can make up sites that spoil; not with the keys that sites have."""
    with pytest.raises(AggregationError, match="site-2 took part with the key"):
        kept.judged(**{"site-2": Identity.generate("site-2")})


def test_another_coordinator_s_rehearsal_is_none(kept: Kept) -> None:
    with pytest.raises(AggregationError, match="not signed by coordinator"):
        kept.judged(coordinator=Identity.generate("coordinator"))


def test_an_attempt_at_a_round_is_no_evidence(kept: Kept) -> None:
    attempt = kept.fed.start(kept.fed.plan(round_=7))
    other = msgspec.structs.replace(kept.evidence, plan=attempt.plan_message, cohort=attempt.cohort)
    with pytest.raises(AggregationError, match="nobody judges"):
        kept.judged(other)


def test_absurd_bytes_are_no_evidence(kept: Kept) -> None:
    known = kept.fed.public
    for raw in (b"", b"\x80", b"\xff" * 100, msgspec.msgpack.encode({"plan": 1})):
        with pytest.raises(AggregationError):
            read_evidence(raw, known["coordinator"], known)
