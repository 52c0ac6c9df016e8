"""What one hostile site can add to a sum: as much as a cohort's range today, little with the rule.

Real roles, eight sites. A hostile one packs what no honest site's code would, and signs whatever
projections it likes. Each attack works where norms are not checked, and is found where they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from aggregation import NormError, RefusedError, ReplayError, StateError
from aggregation.ckks.packing import Packing
from aggregation.crypto.projections import ROWS
from aggregation.protocol import (
    NormCheck,
    NormGroup,
    Projections,
    messages,
    read_cohort,
    read_plan,
)
from aggregation.protocol.norms import limit_of
from aggregation.testing import Federation

SITES, LIMIT = 8, 32_767
ADAPTER, HEAD = 9216, 1920  # values of some LoRA matrices, and of a head of five labels, on MiniLM
GROUPS = tuple(NormGroup(size, round(LIMIT * size**0.5)) for size in (ADAPTER, HEAD))
TOGETHER = (NormGroup(ADAPTER + HEAD, round(LIMIT * (ADAPTER + HEAD) ** 0.5)),)
EVE, MAL = "site-3", "site-5"
MOST = 10**6  # bytes of a message


class _Loose(Packing):
    """Packs whatever it is given."""

    def _check_limit(self, values: np.ndarray) -> None:
        pass


class Round:
    """A round up to its release, in which some sites upload what they like."""

    def __init__(
        self, hostile: Mapping[str, np.ndarray], norms: tuple[NormGroup, ...] | None = GROUPS
    ) -> None:
        self.fed = Federation(
            SITES,
            size=ADAPTER + HEAD,
            suite="ckks-collective",
            key_agreement="x25519-mlkem768",
            norms=norms,
        )
        rng = np.random.default_rng(8)
        self.integers = {
            name: rng.integers(-LIMIT // 4, LIMIT // 4, self.fed.size, dtype=np.int32)
            for name in self.fed.names
        }
        self.honest = sum(each.astype(np.int64) for each in self.integers.values())
        self.integers.update({name: each.astype(np.int32) for name, each in hostile.items()})
        self.attempt = self.fed.start()
        self.release = self._release(hostile)
        round_ = read_plan(self.attempt.plan_message, self.fed.public["coordinator"])
        self.cohort = read_cohort(round_, self.attempt.cohort)
        self.released = self.fed.coordinator.read_release(self.attempt.cohort, self.release)
        self.check = NormCheck(self.cohort, self.released.mark) if norms else None

    def _release(self, hostile: Mapping[str, np.ndarray]) -> bytes:
        fed, attempt = self.fed, self.attempt
        aggregator, handed = fed.new_aggregator(attempt), fed.handed(attempt)
        for name, site in attempt.sites.items():
            if name in hostile:
                strict = site._round.packing
                loose = _Loose(strict.size, strict.degree, strict.encoding)
                site._round = dataclasses.replace(site._round, packing=loose)
            upload = site.upload(attempt.cohort, self.integers[name], handed[name])
            aggregator.add(upload.manifest, upload.chunks)
        attempt.opening_list = fed.decryptor.confirm(
            attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
        )
        for site in attempt.sites.values():
            aggregator.add_opening(site.open(attempt.opening_list))
        total = aggregator.total()
        return fed.decryptor.release(
            attempt.cohort, attempt.opening_list, total.manifest, total.chunks
        )

    def projections(self) -> dict[str, bytes]:
        """What every site sends by the rule."""
        return {name: site.project(self.release) for name, site in self.attempt.sites.items()}

    def verify(self, sent: Mapping[str, bytes]) -> np.ndarray:
        """What an honest site makes of it."""
        return self.attempt.sites["site-0"].verify(self.release, sent.values())

    def signed(self, name: str, values: np.ndarray) -> bytes:
        """Projections of a site's own making."""
        mark = self.released.mark
        body = Projections(self.cohort.transcript, mark, values.astype("<i8").tobytes())
        return messages.seal(self.fed.identities[name], body)

    def read(self, message: bytes) -> np.ndarray:
        """Of a message, whoever's."""
        signer = self.fed.public[messages.sender(message, MOST)]
        return np.frombuffer(messages.unseal(message, Projections, signer, MOST).values, "<i8")


def everywhere(times: float) -> np.ndarray:
    """So many times the range in every value."""
    return np.full(ADAPTER + HEAD, round(times * LIMIT))


def on_head(times: float) -> np.ndarray:
    """The same in the head alone; in the adapter an honest update."""
    made = np.random.default_rng(1).integers(-LIMIT // 4, LIMIT // 4, ADAPTER + HEAD)
    made[ADAPTER:] = round(times * LIMIT)
    return made


UPLOADS: dict[str, Callable[[], np.ndarray]] = {
    "six times the range": lambda: everywhere(6.0),
    "turned round and scaled": lambda: everywhere(-6.0),
    "a head moved by 0.4 of the range": lambda: on_head(0.4 * SITES),
}


@pytest.mark.parametrize("upload", UPLOADS)
def test_where_norms_are_not_checked_it_is_in_the_sum(upload: str) -> None:
    made = UPLOADS[upload]()
    run = Round({EVE: made}, norms=None)
    with pytest.raises(StateError):
        run.attempt.sites["site-0"].project(run.release)
    total = run.verify({})
    moved = np.abs(total - run.honest)[ADAPTER:].mean() / SITES / LIMIT
    assert moved > 0.3  # of the range, in the mean: three times what its own range allows


@pytest.mark.parametrize("upload", UPLOADS)
def test_a_larger_update_than_an_honest_one_names_its_site(upload: str) -> None:
    run = Round({EVE: UPLOADS[upload]()})
    sent = run.projections()
    with pytest.raises(NormError, match=f"the update of {EVE} is larger"):
        run.verify(sent)
    for name, message in sent.items():
        if name != EVE:
            run.check.read(message)


@pytest.mark.parametrize("upload", UPLOADS)
def test_whoever_keeps_silent_with_it_stops_it_too(upload: str) -> None:
    run = Round({EVE: UPLOADS[upload]()})
    sent = run.projections()
    del sent[EVE]
    with pytest.raises(NormError, match="added to the sum without saying"):
        run.verify(sent)


def test_with_one_group_for_all_the_head_moves_and_nothing_is_found() -> None:
    run = Round({EVE: on_head(0.4 * SITES)}, norms=TOGETHER)
    total = run.verify(run.projections())
    assert np.abs(total - run.honest)[ADAPTER:].mean() / SITES / LIMIT > 0.3


def test_an_honest_round_verifies_with_all_with_one_silent_and_not_with_two() -> None:
    run = Round({})
    sent = run.projections()
    assert np.array_equal(run.verify(sent), run.honest)
    del sent[EVE]
    assert np.array_equal(run.verify(sent), run.honest)
    del sent[MAL]
    with pytest.raises(NormError, match="too many"):
        run.verify(sent)


def test_projections_made_to_fit_the_sum_are_themselves_too_long() -> None:
    """Sent last, knowing all others': what makes the sum come out is the truth's projection."""
    run = Round({EVE: everywhere(6.0)})
    sent = run.projections()
    others = sum(run.read(message) for name, message in sent.items() if name != EVE)
    fitting = run.check.signs.project(run.released.integers, SITES * LIMIT) - others
    sent[EVE] = run.signed(EVE, fitting)
    with pytest.raises(NormError, match=f"the update of {EVE} is larger"):
        run.verify(sent)


def test_short_projections_that_are_not_of_the_upload_do_not_add_up() -> None:
    run = Round({EVE: everywhere(6.0)})
    sent = run.projections()
    sent[EVE] = run.signed(EVE, np.zeros(2 * ROWS))
    with pytest.raises(NormError, match="not those of the sum"):
        run.verify(sent)


def test_colluders_who_take_from_each_other_gain_no_more_than_each_has() -> None:
    """Two that cancel add nothing; two that share one attack are held to twice the limit."""
    run = Round({EVE: everywhere(-12.0), MAL: everywhere(12.0)})
    sent = run.projections()
    rng = np.random.default_rng(5)
    small = {name: run.signed(name, rng.integers(-9, 9, 2 * ROWS)) for name in (EVE, MAL)}
    with pytest.raises(NormError):
        run.verify(sent)
    with pytest.raises(NormError, match="not those of the sum"):
        run.verify({**sent, **small})
    # What they could say truly is what is in the sum: nothing of these.
    zeros = {name: run.signed(name, np.zeros(2 * ROWS)) for name in (EVE, MAL)}
    total = run.verify({**sent, **zeros})
    assert np.abs(total - run.honest).max() <= 2 * LIMIT // 4

    run = Round({EVE: everywhere(5.0), MAL: everywhere(1.0)})
    sent = run.projections()
    half = sum(run.read(sent[name]) for name in (EVE, MAL)) // 2
    rest = sum(run.read(sent[name]) for name in (EVE, MAL)) - half
    sent |= {EVE: run.signed(EVE, half), MAL: run.signed(MAL, rest)}
    with pytest.raises(NormError, match="is larger than an honest one"):
        run.verify(sent)


def test_whoever_knows_the_signs_before_the_sum_is_fixed_adds_what_nobody_sees() -> None:
    """Why the challenge is of the release: an earlier one would let an aggregator in league add to
    the sum, with the MAC key of a site, what the signs do not show."""
    run = Round({})
    signs = run.check.signs
    shown = signs._signs[:HEAD].T.astype(float)  # P, for the head
    wanted = np.full(HEAD, 6.0 * LIMIT)
    seen = np.linalg.solve(shown @ shown.T, shown @ wanted)
    unseen = np.zeros(ADAPTER + HEAD, dtype=np.int64)
    unseen[ADAPTER:] = np.round(wanted - shown.T @ seen)
    moved = np.linalg.norm(unseen[ADAPTER:])
    assert moved > 1.4 * limit_of(GROUPS[1], 1.0)
    sent = {name: run.check.read(message)[1] for name, message in run.projections().items()}
    sent[EVE] = sent[EVE] + signs.project(unseen, SITES * LIMIT)
    # By the old challenge it would pass; a sum with it is another release, and has other signs.
    run.check.read(run.signed(EVE, sent[EVE]))
    run.check.check_sum(run.honest + unseen, sent)
    other = NormCheck(run.cohort, bytes(32))
    with pytest.raises(NormError):
        other.check_sum(run.honest + unseen, sent)
    there = np.linalg.norm(other.signs.project(unseen, SITES * LIMIT)[-ROWS:]) / ROWS**0.5
    assert there > limit_of(GROUPS[1], 1.0)


def test_a_server_that_swaps_projections_is_refused() -> None:
    run, other = Round({}), Round({})
    sent = run.projections()
    # Another round's, another site's under this name, one of them twice, and none.
    swapped = {**sent, EVE: other.projections()[EVE]}
    with pytest.raises(RefusedError):
        run.verify(swapped)
    with pytest.raises(NormError, match="not those of the sum"):
        run.verify({**sent, EVE: run.signed(EVE, run.read(sent[MAL]))})
    with pytest.raises(NormError, match="too many"):
        run.verify({"site-0": sent["site-0"], EVE: sent[EVE], MAL: sent[EVE]})
    with pytest.raises(RefusedError):
        run.verify({**sent, EVE: sent[EVE][:-1]})


def test_of_a_round_a_site_sends_projections_of_one_release_only() -> None:
    """Nobody is told more than 64 numbers of a group, and nobody tries twice."""
    run = Round({})
    site = run.attempt.sites[EVE]
    assert site.project(run.release) == site.project(run.release)
    # As if the decryptor had signed another, and the site's MAC had verified that.
    site._released = b"another", run.released._replace(mark=bytes(32))
    with pytest.raises(ReplayError):
        site.project(b"another")


def test_what_a_site_sends_is_for_its_own_weight_and_form() -> None:
    run = Round({})
    for values in (np.zeros(2 * ROWS - 1), np.zeros(2 * ROWS + 1)):
        with pytest.raises(RefusedError, match="another number of projections"):
            run.check.read(run.signed(EVE, values))
    for extreme in (2**63 - 1, -(2**63)):
        values = np.zeros(2 * ROWS, dtype=np.int64)
        values[-1] = extreme
        with pytest.raises(NormError):
            run.check.read(run.signed(EVE, values))
    assert limit_of(GROUPS[0], 0.25) < 0.26 * limit_of(GROUPS[0], 1.0)
