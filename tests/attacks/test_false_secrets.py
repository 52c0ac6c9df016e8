"""Sites that seal what their reader cannot open, and parties that say so of sites that did not.

Without a proof either the guilty stay, and every attempt fails with the same sites, or whoever
lies has honest sites left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from sealed_falsely import altered, not_residues, of_another_site, seals, spoils_mac_keys

from aggregation import CohortError, MessageError, RefusedError, SealedError, StateError
from aggregation.crypto import mac
from aggregation.crypto.pairwise import EphemeralKey
from aggregation.crypto.sealed_box import BoxKey
from aggregation.protocol import messages, read_accusation, read_cohort, read_plan
from aggregation.protocol.accusation import Accusation, accuse
from aggregation.protocol.messages import UploadManifest
from aggregation.roles.site_secrets import SiteSecrets
from aggregation.testing import Attempt, Federation

HYBRID = "x25519-mlkem768"
BAD, VICTIM = "site-2", "site-1"


@dataclass
class Case:
    """An attempt whose uploads are all there."""

    key_agreement: str = HYBRID
    fed: Federation = field(init=False)
    attempt: Attempt = field(init=False)

    def __post_init__(self) -> None:
        self.fed = Federation(4, suite="ckks-collective", key_agreement=self.key_agreement)
        self.attempt = self.fed.start()
        self.aggregator = self.fed.upload(self.attempt)
        round_ = read_plan(self.attempt.plan_message, self.fed.public["coordinator"])
        self.cohort = read_cohort(round_, self.attempt.cohort)
        self.first = self.aggregator._arrivals["site-0"].manifest

    def confirm(self, secrets=None) -> bytes:
        return self.fed.decryptor.confirm(
            self.attempt.cohort,
            self.aggregator.opening_list(),
            self.aggregator.sealed_secrets() if secrets is None else secrets,
        )

    def judge(self, message: bytes, *, secrets=None) -> tuple[str, ...]:
        """What whoever has the boxes makes of an accusation."""
        kept = self.aggregator.sealed_secrets() if secrets is None else secrets
        return read_accusation(self.cohort, message, secrets=kept, first=self.first)

    def decryptor_says(self, accused: str, key: bytes) -> bytes:
        return accuse(self.fed.identities["decryptor"], self.cohort, accused, key)

    @property
    def box_key(self) -> BoxKey:
        (held,) = self.fed.decryptor._attempts.values()
        return held.key._box


@pytest.mark.parametrize("box", [altered, not_residues, of_another_site])
def test_a_sealed_secret_that_does_not_open_names_its_site(
    monkeypatch: pytest.MonkeyPatch, box
) -> None:
    seals(monkeypatch, BAD, box)
    case = Case()
    with pytest.raises(SealedError, match=f"sealed secret of {BAD} does not open") as refused:
        case.confirm()
    assert case.judge(refused.value.accusation) == (BAD,)


def test_the_key_that_proves_it_is_of_no_further_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same word again, and no other: nobody opens, and what shows is under self-masks."""
    seals(monkeypatch, BAD, altered)
    case = Case()
    said = []
    for secrets in (None, None, case.aggregator.sealed_secrets()[::-1]):
        with pytest.raises(SealedError) as refused:
            case.confirm(secrets)
        said.append(refused.value.accusation)
    assert len(set(said)) == 1
    (held,) = case.fed.decryptor._attempts.values()
    assert held.key._box is None
    for site in case.attempt.sites.values():  # the list alone opens nothing
        with pytest.raises(RefusedError):
            site.open(case.aggregator.opening_list())


@pytest.mark.parametrize("spoiled", [b"", b"\xc1", b"x" * 300])
def test_what_is_not_the_sites_own_is_the_aggregators_fault(spoiled: bytes) -> None:
    """No site is named for what anybody could have put in its place; the key is kept."""
    case = Case()
    secrets = list(case.aggregator.sealed_secrets())
    for place, sealed in ((2, spoiled), (2, secrets[1])):
        with pytest.raises(RefusedError) as refused:
            case.confirm([*secrets[:place], sealed, *secrets[place + 1 :]])
        assert not getattr(refused.value, "accusation", b"")
    case.confirm()


def test_a_secret_that_is_not_signed_is_named_when_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody else needs to open it to see that: the upload is refused."""
    encrypt = SiteSecrets.encrypt

    def encrypting(self: SiteSecrets, cohort, packed):
        *rest, box = encrypt(self, cohort, packed)
        return *rest, box[:-1] if self._name == BAD else box

    monkeypatch.setattr(SiteSecrets, "encrypt", encrypting)
    with pytest.raises(RefusedError, match=f"sealed secret of {BAD} has another length"):
        Case()


def test_a_decryptor_that_lies_names_nobody_but_itself() -> None:
    """With its own key the boxes open; with any other it is not the one that it announced."""
    case = Case()
    genuine = case.box_key.reveal()
    for key, why in (
        (genuine, "does not hold"),
        (BoxKey().reveal(), "another key than it announced"),
        (genuine[:-1], "a private box key has 95 bytes"),
        (b"", "a private box key has 0 bytes"),
    ):
        with pytest.raises(RefusedError, match=why):
            case.judge(case.decryptor_says(VICTIM, key))


def test_one_guilty_site_convicts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    seals(monkeypatch, BAD, altered)
    case = Case()
    genuine = case.box_key.reveal()
    with pytest.raises(CohortError, match="does not hold"):
        case.judge(case.decryptor_says(VICTIM, genuine))
    assert case.judge(case.decryptor_says(BAD, genuine)) == (BAD,)


def test_an_accusation_is_its_senders_and_of_one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    seals(monkeypatch, BAD, altered)
    case, other = Case(), Case()
    genuine = case.box_key.reveal()
    by_another = messages.seal(
        case.fed.identities["aggregator"],
        Accusation(case.cohort.transcript, BAD, genuine),
    )
    elsewhere = messages.seal(
        case.fed.identities["decryptor"], Accusation(other.cohort.transcript, BAD, genuine)
    )
    for message in (by_another, elsewhere, b"", b"\xc1" * 50):
        with pytest.raises(RefusedError):
            case.judge(message)
    with pytest.raises(RefusedError):  # without the boxes nothing is proved
        case.judge(case.decryptor_says(BAD, genuine), secrets=())


def test_a_mac_key_that_does_not_open_names_the_first_site(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoils_mac_keys(monkeypatch, "site-0", 1)
    case = Case()
    listed = case.confirm()
    for name in ("site-0", "site-2", "site-3"):
        case.attempt.sites[name].open(listed)
    said = []
    for _ in range(2):
        with pytest.raises(SealedError) as refused:
            case.attempt.sites[VICTIM].open(listed)
        said.append(refused.value.accusation)
    assert said[0] == said[1], "and it opens no more"
    assert case.judge(said[0]) == ("site-0",)
    with pytest.raises(StateError):
        case.attempt.sites[VICTIM].verify(b"")


def test_what_a_site_reveals_opens_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """X25519 alone: what two sites share in a hybrid plan still hangs on ML-KEM."""
    spoils_mac_keys(monkeypatch, "site-0", 1)
    case = Case()
    pairs = {pair.second: pair.secret for pair in case.attempt.sites[VICTIM]._secrets._pairs}
    with pytest.raises(SealedError) as refused:
        case.attempt.sites[VICTIM].open(case.confirm())
    body = messages.unseal(refused.value.accusation, Accusation, case.fed.public[VICTIM])
    shared = EphemeralKey(revealed=body.key).exchange(case.cohort.readies[2].key)
    assert shared != pairs[BAD]
    assert case.attempt.sites[VICTIM]._secrets._pairs == []


def test_with_x25519_alone_no_key_is_revealed(monkeypatch: pytest.MonkeyPatch) -> None:
    spoils_mac_keys(monkeypatch, "site-0", 1)
    case = Case("x25519")
    with pytest.raises(SealedError) as refused:
        case.attempt.sites[VICTIM].open(case.confirm())
    assert refused.value.accusation == b""


def test_a_site_that_lies_of_the_first_names_itself() -> None:
    case = Case()
    key = case.attempt.sites[VICTIM]._mac._key.reveal()
    own = case.fed.identities[VICTIM]
    for accused, revealed in (
        ("site-0", key),  # its box opens
        (BAD, key),  # it seals nothing for anybody
        ("site-0", EphemeralKey().reveal()),  # not what was announced
        ("site-0", bytes(31)),
    ):
        with pytest.raises((CohortError, MessageError)):
            case.judge(accuse(own, case.cohort, accused, revealed))
    first = accuse(case.fed.identities["site-0"], case.cohort, "site-0", key)
    with pytest.raises(CohortError):
        case.judge(first)


def test_an_upload_with_another_number_of_mac_keys_is_named_when_it_comes() -> None:
    case = Case()
    signed = case.fed.identities["site-0"]
    body = messages.unseal(case.first, UploadManifest, signed.public, 1 << 20)
    for boxes in (body.mac_boxes[1:], b"", body.mac_boxes + bytes(mac.BOX_SIZE)):
        short = UploadManifest(body.transcript, body.chunk_digests, body.commitment, boxes)
        with pytest.raises(RefusedError, match="upload of site-0 has another number of MAC keys"):
            case.fed.new_aggregator(case.attempt).add(messages.seal(signed, short), ())
