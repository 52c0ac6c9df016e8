"""Sites that spoil a rehearsal are named, nobody else is, and nothing of a round is revealed."""

from __future__ import annotations

import math
import secrets as random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest

from aggregation import (
    DEVIATIONS,
    AggregationError,
    Aggregator,
    CohortError,
    Evidence,
    Identity,
    InputError,
    Judgement,
    OpeningError,
    PlanError,
    ReplayError,
    RoundPlan,
    SiteAttempt,
    StateError,
    judge,
)
from aggregation.ckks import residues
from aggregation.ckks.collective import draw_ternary
from aggregation.crypto import graph, mac, sealed_box, shamir
from aggregation.crypto.pairwise import EphemeralKey
from aggregation.protocol import (
    OF_NOTHING,
    REHEARSED,
    VERIFIED,
    FixedCohort,
    NormGroup,
    Projections,
    Reveal,
    Vanishing,
    messages,
    read_cohort,
    read_plan,
    read_reveal,
    rehearsal_grid,
)
from aggregation.protocol.exchange import Part
from aggregation.roles.site_secrets import Drawn
from aggregation.testing import Attempt, Federation

ALL_OPEN, ONE_VANISHES = None, Vanishing(1, 3)


def federation(vanishing: Vanishing | None = ALL_OPEN, sites: int = 4) -> Federation:
    return Federation(
        sites,
        size=20_000,
        suite="ckks-collective",
        key_agreement="x25519-mlkem768",
        vanishing=vanishing,
    )


def rehearsal(fed: Federation, number: int = 1, *, norms: bool = False) -> RoundPlan:
    grid = rehearsal_grid(fed.bits, fed.size)
    longest = NormGroup(10_000, math.ceil(100 * grid.limit))
    return msgspec.structs.replace(
        fed.plan(round_=number),
        quantization=grid,
        norms=(longest, longest) if norms else msgspec.UNSET,
        adapter_digest=OF_NOTHING,
        layout_digest=OF_NOTHING,
        base_model_digest=OF_NOTHING,
        rehearsal=REHEARSED,
    )


@dataclass
class Rehearsal:
    """One, as far as it gets, and what is kept of it."""

    fed: Federation
    attempt: Attempt
    release: bytes = b""
    manifests: dict[str, bytes] = field(default_factory=dict)
    chunks: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    openings: dict[str, bytes] = field(default_factory=dict)
    projections: dict[str, bytes] = field(default_factory=dict)
    reveals: dict[str, bytes] = field(default_factory=dict)

    @property
    def cohort(self) -> FixedCohort:
        round_ = read_plan(self.attempt.plan_message, self.fed.public["coordinator"])
        return read_cohort(round_, self.attempt.cohort)

    def go_on(self) -> None:
        """Upload, open and release, until something does not go."""
        attempt, decryptor = self.attempt, self.fed.decryptor
        aggregator = self.fed.new_aggregator(attempt)
        for message in attempt.exchanges if self.fed.vanishing else ():
            aggregator.add_exchange(message)
        handed = self.fed.handed(attempt)
        for name, site in attempt.sites.items():
            upload = site.upload(attempt.cohort, site.public_integers, handed[name])
            self.manifests[name], self.chunks[name] = upload.manifest, tuple(upload.chunks)
            aggregator.add(upload.manifest, upload.chunks)
        listed = decryptor.confirm(
            attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
        )
        for name, site in attempt.sites.items():
            self.openings[name] = site.open(listed)
            aggregator.add_opening(self.openings[name])
        total = aggregator.total()
        self.release = decryptor.release(attempt.cohort, listed, total.manifest, total.chunks)

    def reveal(self) -> None:
        attempt = self.attempt
        for name, site in attempt.sites.items():
            self.reveals[name] = site.reveal(self.release)
        self.reveals["decryptor"] = self.fed.decryptor.reveal(attempt.plan_message, attempt.cohort)

    @property
    def evidence(self) -> Evidence:
        names = list(self.attempt.exchanges)
        return Evidence(
            plan=self.attempt.plan_message,
            cohort=self.attempt.cohort,
            exchanges=dict(zip(self.attempt.sites, names, strict=True)),
            manifests=self.manifests,
            chunks=self.chunks,
            openings=self.openings,
            release=self.release,
            projections=self.projections,
            reveals=self.reveals,
        )

    def judged(self) -> Judgement:
        return judge(self.cohort, self.evidence)


def rehearse(
    spoil: Callable[[dict[str, SiteAttempt]], None] = lambda _: None,
    vanishing: Vanishing | None = ALL_OPEN,
    sites: int = 4,
) -> Rehearsal:
    """A rehearsal; `spoil` is given the sites before they exchange anything."""
    fed = federation(vanishing, sites)
    attempt = fed.start(rehearsal(fed), exchange=False)
    spoil(attempt.sites)
    attempt.exchanges = tuple(site.exchange(attempt.cohort) for site in attempt.sites.values())
    made = Rehearsal(fed, attempt)
    try:
        made.go_on()
    except AggregationError:
        made.release = b""
    made.reveal()
    return made


# What a saboteur does to its own side of the attempt. All of it is well formed and signed.


def another_sigma(site: SiteAttempt) -> None:
    secrets = site._secrets
    masks = secrets.sigma_masks

    def seal(cohort: FixedCohort, encryptor: object) -> bytes:
        modulus, degree = cohort.round.parameters.modulus, cohort.round.packing.degree
        drawn = np.random.default_rng(1).integers(0, modulus, (1, degree), dtype=np.uint64)
        masks(cohort).apply(drawn, 0)
        content = residues.pack(drawn, modulus)
        return sealed_box.seal_box(cohort.material, content, cohort.transcript + b"site-1")

    secrets._seal = seal  # type: ignore[method-assign]


def another_ternary_secret(site: SiteAttempt) -> None:
    secrets = site._secrets
    masks = secrets.sigma_masks

    def seal(cohort: FixedCohort, encryptor: object) -> bytes:
        modulus, degree = cohort.round.parameters.modulus, cohort.round.packing.degree
        drawn = residues.from_signed(draw_ternary(degree), modulus)[np.newaxis]
        masks(cohort).apply(drawn, 0)
        content = residues.pack(drawn, modulus)
        return sealed_box.seal_box(cohort.material, content, cohort.transcript + b"site-1")

    secrets._seal = seal  # type: ignore[method-assign]


def another_kem_secret(site: SiteAttempt) -> None:
    secrets = site._secrets
    encapsulate = secrets.encapsulate

    def changed(cohort: FixedCohort, parts: Mapping[int, Part]) -> Drawn:
        sent = encapsulate(cohort, parts)
        for place, (_, ciphertext) in secrets._kem.items():
            secrets._kem[place] = (random.token_bytes(32), ciphertext)
        return sent

    secrets.encapsulate = changed  # type: ignore[method-assign]


def other_integers(site: SiteAttempt) -> None:
    secrets = site._secrets
    encrypt = secrets.encrypt
    secrets.encrypt = lambda cohort, packed: encrypt(cohort, packed + 1)  # type: ignore[method-assign]


def other_tags(site: SiteAttempt) -> None:
    secrets = site._secrets
    mask = secrets.mask_tags

    def changed(cohort: FixedCohort, tags: np.ndarray, prime: int) -> None:
        tags += np.uint64(1)
        mask(cohort, tags, prime)

    secrets.mask_tags = changed  # type: ignore[method-assign]


def another_commitment(site: SiteAttempt) -> None:
    site._secrets.commitment = lambda _: random.token_bytes(32)  # type: ignore[method-assign]


def shares_of_another_seed(site: SiteAttempt) -> None:
    shares = site._secrets.shares
    assert shares is not None
    deal = shares.deal
    shares.deal = lambda cohort, _: deal(cohort, random.token_bytes(32))  # type: ignore[method-assign]


def keys_that_were_not_announced(site: SiteAttempt) -> None:
    site._secrets._to_reveal = (EphemeralKey(hybrid=True).reveal_all(), msgspec.UNSET)


def a_lie_about_the_sum(site: SiteAttempt) -> None:
    def refuse(release: bytes) -> np.ndarray:
        raise OpeningError("a lie")

    site._verified = refuse  # type: ignore[method-assign]


@pytest.mark.parametrize("vanishing", [ALL_OPEN, ONE_VANISHES], ids=["all-open", "one-vanishes"])
def test_of_honest_sites_nobody_is_named(vanishing: Vanishing | None) -> None:
    made = rehearse(vanishing=vanishing)
    assert made.judged() == Judgement({}, holds=True)
    total = sum(site.public_integers.astype(np.int64) for site in made.attempt.sites.values())
    assert np.array_equal(made.attempt.sites["site-0"].verify(made.release), total)


@pytest.mark.parametrize("vanishing", [ALL_OPEN, ONE_VANISHES], ids=["all-open", "one-vanishes"])
@pytest.mark.parametrize(
    ("does", "word"),
    [
        (another_sigma, "secret"),
        (another_ternary_secret, "upload"),
        (another_kem_secret, "secret"),
        (other_integers, "upload"),
        (other_tags, "tags"),
        (another_commitment, "seed"),
        (keys_that_were_not_announced, "keys"),
        (a_lie_about_the_sum, "verdict"),
    ],
    ids=lambda given: getattr(given, "__name__", given),
)
def test_whoever_deviates_is_named_and_nobody_else(
    does: Callable[[SiteAttempt], None], word: str, vanishing: Vanishing | None
) -> None:
    made = rehearse(lambda sites: does(sites["site-1"]), vanishing)
    assert made.judged().named == {"site-1": word}
    assert word in DEVIATIONS


def test_shares_of_another_seed_name_their_dealer() -> None:
    made = rehearse(lambda sites: shares_of_another_seed(sites["site-2"]), ONE_VANISHES)
    assert made.judged().named == {"site-2": "shares"}


def test_shares_that_lie_on_no_one_polynomial_name_their_dealer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = shamir.share

    def one_wrong(secret: bytes, threshold: int, count: int) -> list[bytes]:
        parts = right(secret, threshold, count)
        parts[-1] = right(secret, threshold, count)[-1]  # of another polynomial with the same seed
        return parts

    def spoil(sites: dict[str, SiteAttempt]) -> None:
        shares = sites["site-0"]._secrets.shares
        assert shares is not None
        deal = shares.deal

        def changed(cohort: FixedCohort, seed: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
            with monkeypatch.context() as patch:
                patch.setattr(shamir, "share", one_wrong)
                return deal(cohort, seed)

        shares.deal = changed  # type: ignore[method-assign]

    # Three shares give a seed and four others have one, so there are two windows: one does not fit.
    assert rehearse(spoil, Vanishing(2, 3), sites=5).judged().named == {"site-0": "shares"}


def test_different_mac_keys_for_different_sites_name_the_first() -> None:
    fed = federation()
    attempt = fed.start(rehearsal(fed))
    made = Rehearsal(fed, attempt)
    seal = mac.seal_key

    def another(key: bytes, shared: bytes, transcript: bytes, leader: str, name: str) -> bytes:
        return seal(mac.new_key() if name == "site-2" else key, shared, transcript, leader, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mac, "seal_key", another)
        made.go_on()
    made.reveal()
    assert made.judged().named == {"site-0": "mac-key"}


def test_who_reveals_nothing_is_named_and_none_that_depends_on_it() -> None:
    made = rehearse()
    del made.reveals["site-3"]
    assert made.judged().named == {"site-3": "unrevealed"}


def test_projections_that_are_not_of_the_upload_name_their_sender() -> None:
    """In a round they cost it and name nobody, since nobody may look at an update."""
    fed = federation()
    attempt = fed.start(rehearsal(fed, norms=True))
    made = Rehearsal(fed, attempt)
    made.go_on()
    for name, site in attempt.sites.items():
        made.projections[name] = site.project(made.release)
    body = messages.unseal(made.projections["site-2"], Projections, fed.public["site-2"], 1 << 20)
    altered = msgspec.structs.replace(body, values=bytes(8) + body.values[8:])
    made.reveal()
    assert made.judged() == Judgement({}, holds=True)
    made.projections["site-2"] = messages.seal(fed.identities["site-2"], altered)
    assert made.judged().named == {"site-2": "projections"}


def test_several_are_all_named() -> None:
    def spoil(sites: dict[str, SiteAttempt]) -> None:
        another_sigma(sites["site-1"])
        other_tags(sites["site-3"])

    assert rehearse(spoil).judged().named == {"site-1": "secret", "site-3": "tags"}


def test_what_another_site_signed_is_not_held_against_a_victim() -> None:
    """Evidence in which the server put one site's chunks in another's place names nobody falsely.

    The manifest is signed over its chunks, and the aggregator compares them: evidence whose chunks
    are not the signed ones is no evidence.
    """
    made = rehearse()
    made.chunks["site-1"] = made.chunks["site-2"]
    with pytest.raises(CohortError, match="chunks"):
        made.judged()


# Nothing of a round: neither its integers nor its keys.


def test_no_key_of_a_round_is_ever_revealed() -> None:
    fed = federation()
    attempt = fed.start()
    fed.open(attempt)
    site = attempt.sites["site-0"]
    for call in (site.reveal, lambda: site.public_integers):
        with pytest.raises(StateError):
            call()
    with pytest.raises(StateError):
        fed.decryptor.reveal(attempt.plan_message, attempt.cohort)
    body = Reveal(read_cohort_of(fed, attempt).transcript, EphemeralKey(hybrid=True).reveal_all())
    with pytest.raises(CohortError, match="no rehearsal"):
        read_reveal(read_cohort_of(fed, attempt), messages.seal(fed.identities["site-0"], body))


def read_cohort_of(fed: Federation, attempt: Attempt) -> FixedCohort:
    return read_cohort(read_plan(attempt.plan_message, fed.public["coordinator"]), attempt.cohort)


def test_a_rehearsal_takes_no_site_s_update() -> None:
    fed = federation()
    attempt = fed.start(rehearsal(fed))
    site = attempt.sites["site-0"]
    for update in (np.zeros(20_000, np.int32), site.public_integers[::-1].copy()):
        with pytest.raises(InputError, match="public integers"):
            site.upload(attempt.cohort, update, fed.handed(attempt)["site-0"])


def test_after_its_reveal_a_party_gives_no_other_word() -> None:
    fed = federation()
    attempt = fed.start(rehearsal(fed))
    site = attempt.sites["site-0"]
    said = site.reveal()
    assert site.reveal() == said
    with pytest.raises(StateError, match="revealed"):
        site.upload(attempt.cohort, site.public_integers, fed.handed(attempt)["site-0"])
    with pytest.raises(StateError, match="revealed"):
        site.exchange(attempt.cohort)
    fed.decryptor.reveal(attempt.plan_message, attempt.cohort)
    with pytest.raises(StateError):
        fed.decryptor.confirm(attempt.cohort, b"", ())


def test_a_rehearsal_moves_no_adapter_and_spends_no_round() -> None:
    made = rehearse()
    for site in made.attempt.sites.values():
        with pytest.raises(StateError):
            site.verdict(VERIFIED, OF_NOTHING)
    fed, round_one = made.fed, made.fed.start()  # the same number, and the same run
    fed.open(round_one)
    aggregator = round_one.aggregator
    assert aggregator is not None
    total = aggregator.total()
    release = fed.decryptor.release(
        round_one.cohort, round_one.opening_list, total.manifest, total.chunks
    )
    assert round_one.sites["site-1"].verify(release) is not None


def test_a_rehearsal_is_held_once() -> None:
    made = rehearse()
    with pytest.raises(ReplayError):
        made.fed.site("site-0", made.attempt.plan_message)
    assert made.fed.site("site-0", made.fed.coordinator.plan(rehearsal(made.fed, 2)))


@pytest.mark.parametrize(
    "changed",
    [
        {"adapter_digest": "sha256:" + "0" * 64},
        {"layout_digest": "sha256:" + "0" * 64},
        {"base_model_digest": "sha256:" + "0" * 64},
        {"rehearsal": msgspec.UNSET},
        {"rehearsal": "private-integers"},
        {"attempt": 2},
        {"round": 1025},
        {"suite": "ckks-pk", "parameter_set": "ckks-pk-4096-60-20"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_plan_is_a_round_s_or_a_rehearsal_s_and_nothing_between(
    changed: dict[str, object],
) -> None:
    plan = rehearsal(federation())
    with pytest.raises(PlanError):
        msgspec.structs.replace(plan, **changed)


def test_messages_of_a_rehearsal_fit_no_round() -> None:
    made = rehearse()
    fed, attempt = made.fed, made.fed.start()
    aggregator = fed.new_aggregator(attempt)
    site = attempt.sites["site-0"]
    with pytest.raises(AggregationError):
        aggregator.add(made.manifests["site-0"], made.chunks["site-0"])
    with pytest.raises(AggregationError):
        site.upload(attempt.cohort, fed.random_integers(), fed.handed(made.attempt)["site-0"])
    with pytest.raises(AggregationError):
        site.upload(made.attempt.cohort, fed.random_integers(), fed.handed(attempt)["site-0"])


def test_a_decryptor_that_changes_tags_or_integers_blames_no_site() -> None:
    made = rehearse()
    body = messages.unseal(made.release, messages.Release, made.fed.public["decryptor"], 1 << 22)
    for changed in (
        msgspec.structs.replace(body, tags=bytes(16)),
        msgspec.structs.replace(body, integers=bytes(len(body.integers))),
    ):
        made.release = messages.seal(made.fed.identities["decryptor"], changed)
        for name in made.attempt.sites:  # each refuses it, and says so
            said = messages.unseal(made.reveals[name], Reveal, made.fed.public[name])
            said = msgspec.structs.replace(said, verified=False)
            made.reveals[name] = messages.seal(made.fed.identities[name], said)
        assert made.judged() == Judgement({}, holds=False)


def test_a_reveal_in_another_s_name_counts_for_nobody() -> None:
    made = rehearse()
    stranger = Identity.generate("site-1")
    body = Reveal(
        made.cohort.transcript, EphemeralKey(hybrid=True).reveal_all(), random.token_bytes(32)
    )
    made.reveals["site-1"] = messages.seal(stranger, body)
    assert made.judged().named == {"site-1": "unrevealed"}


def test_a_site_that_did_not_open_says_nothing_of_a_sum_that_others_opened() -> None:
    """It vanished for a moment, where one may, and no lie is made of that."""
    fed = federation(ONE_VANISHES)
    attempt = fed.start(rehearsal(fed))
    made = Rehearsal(fed, attempt)
    late = attempt.sites["site-3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(late, "open", lambda _: b"")
        patch.setattr("aggregation.roles.aggregator.Aggregator.add_opening", _unless_empty(patch))
        made.go_on()
    made.reveal()
    assert made.judged() == Judgement({}, holds=True)


def _unless_empty(_: pytest.MonkeyPatch) -> Callable[[Aggregator, bytes], None]:
    add = Aggregator.add_opening
    return lambda self, opening: add(self, opening) if opening else None


def test_where_sites_choose_neighbours_they_are_judged_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Above 128 sites masks are shared with some alone; here from the fourth site on."""
    monkeypatch.setattr(graph, "ALL_PAIRS_UP_TO", 3)
    monkeypatch.setattr(graph, "choices", lambda _: 2)
    assert rehearse(sites=6).judged() == Judgement({}, holds=True)
    made = rehearse(lambda sites: another_kem_secret(sites["site-1"]), sites=6)
    assert made.judged().named == {"site-1": "secret"}
