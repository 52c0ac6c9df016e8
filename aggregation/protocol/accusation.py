"""Whose fault it is that a box does not open: a party's signed word, with the proof of it.

Things are sealed for one reader, who alone sees that they do not open: each site's secret for the
decryptor; the MAC key, which the first site of a cohort seals for each other; and where sites may
vanish, shares of each site's self-mask, in which the MAC key then is. A word alone
would let whoever lies have honest sites left out. So an accusation carries the private key that the
reader announced for this one attempt: whoever has the boxes sees for himself, and who accuses
without cause names himself.

The key is of no other use. Its owner gives no further word in the attempt, so no sum of it ever
opens. Of the decryptor's boxes what shows are the sites' secrets of that attempt, each under a
self-mask that is then never revealed. A site reveals X25519 alone, and in a hybrid plan only: masks
stay hidden by ML-KEM. The key that shares are sealed for is one of its own: it opens no mask, and
who reveals it uploads nothing, so that what others uploaded in that attempt stays masked.

The decryptor and the sites make one with `accuse` when a box does not open (`roles.decryptor`,
`roles.site`); the server reads it in `runtime.attempt_state`, which then knows whom to leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, ClassVar

import msgspec

from aggregation.ckks import residues
from aggregation.ckks.residues import Residues
from aggregation.crypto import mac
from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.crypto.pairwise import EphemeralKey
from aggregation.crypto.sealed_box import PRIVATE_SIZE, BoxKey
from aggregation.errors import CohortError, RefusedError, SealedError
from aggregation.protocol import checks, messages
from aggregation.protocol.dealt import open_share
from aggregation.protocol.exchange import read_exchange
from aggregation.protocol.messages import Body, Bytes32, UploadManifest
from aggregation.protocol.round import FixedCohort


class Accusation(Body, frozen=True, forbid_unknown_fields=True):
    """That what a site sealed for the sender of this does not open.

    Attributes:
        transcript: Of the attempt.
        accused: Name of the site.
        key: The sender's private key of this attempt: the decryptor's or a site's box key, or a
            site's X25519.
    """

    KIND: ClassVar[str] = "accusation"

    transcript: Bytes32
    accused: Annotated[str, msgspec.Meta(max_length=64)]
    key: Annotated[bytes, msgspec.Meta(max_length=PRIVATE_SIZE)]


def accuse(identity: Identity, cohort: FixedCohort, accused: str, key: bytes) -> bytes:
    """Sign an accusation. Whoever does may give no other word in this attempt."""
    return messages.seal(identity, Accusation(cohort.transcript, accused, key))


def open_sigma(
    cohort: FixedCohort, name: str, message: bytes, open_box: Callable[[bytes, bytes], bytes]
) -> Residues:
    """Open a site's sealed secret.

    Args:
        cohort: The verified cohort.
        name: The site.
        message: Its sealed secret.
        open_box: Opens a box, given what it is bound to.

    Raises:
        SealedError: It is the site's, and does not open, or holds no secret.
        RefusedError: It is not the site's of this cohort: no fault of anybody who can be named.
    """
    box, round_ = checks.read_sigma(cohort, name, message), cohort.round
    try:
        content = open_box(box, cohort.transcript + name.encode())
        return residues.unpack(content, round_.packing.degree, round_.parameters.modulus)
    except RefusedError as error:
        raise SealedError(f"the sealed secret of {name} does not open: {error}") from error


def open_mac_key(
    cohort: FixedCohort, name: str, manifest: UploadManifest, key: EphemeralKey
) -> bytes:
    """Take the MAC key from the first site's manifest.

    Args:
        cohort: The verified cohort.
        name: Who takes it; not the first site.
        manifest: The first site's.
        key: The taker's single-use keys.

    Raises:
        SealedError: The box for this site does not open.
    """
    place = cohort.position(name) - 1
    box = manifest.mac_boxes[place * mac.BOX_SIZE : (place + 1) * mac.BOX_SIZE]
    shared = key.exchange(cohort.readies[0].key)
    return mac.open_key(box, shared, cohort.transcript, cohort.names[0], name)


def read_accusation(
    cohort: FixedCohort,
    message: bytes,
    *,
    secrets: Sequence[bytes] = (),
    first: bytes | None,
    exchanges: Iterable[bytes] = (),
) -> tuple[str, ...]:
    """Verify an accusation.

    Args:
        cohort: The verified cohort.
        message: The accusation.
        secrets: Sealed secrets of all sites, in cohort order, if they have come.
        first: The first site's manifest, if it has come.
        exchanges: Sites' exchange messages, whole, where sites may vanish.

    Returns:
        Every site that the revealed key convicts, the accused among them.

    Raises:
        RefusedError: Malformed, unsigned, of another attempt, with another key than was announced;
            or what the accused sealed opens.
    """
    name = messages.sender(message, Accusation.cap())
    signer = _signer(cohort, name)
    body = messages.unseal(message, Accusation, signer)
    if body.transcript != cohort.transcript:
        raise CohortError(f"the accusation of {name} is of another attempt")
    if signer == cohort.round.plan.decryptor:
        guilty = _of_decryptor(cohort, body.key, secrets)
    elif cohort.shares:
        guilty = _of_holder(cohort, name, body.key, exchanges)
    else:
        guilty = _of_site(cohort, name, body.key, first)
    if body.accused not in guilty:
        raise CohortError(f"what {name} says of another party does not hold")
    return guilty


def _signer(cohort: FixedCohort, name: str) -> PublicIdentity:
    decryptor = cohort.round.plan.decryptor
    return decryptor if name == decryptor.name else cohort.member(name)


def _of_decryptor(
    cohort: FixedCohort, revealed: bytes, secrets: Sequence[bytes]
) -> tuple[str, ...]:
    key = BoxKey(revealed)
    if key.public != cohort.material:
        raise CohortError("the decryptor reveals another key than it announced")
    guilty = []
    for name, message in zip(cohort.names, secrets, strict=False):
        try:
            open_sigma(cohort, name, message, key.open)
        except SealedError:
            guilty.append(name)
    return tuple(guilty)


def _of_holder(
    cohort: FixedCohort, name: str, revealed: bytes, exchanges: Iterable[bytes]
) -> tuple[str, ...]:
    place, key = cohort.position(name), BoxKey(revealed)
    if key.public != cohort.readies[place].box:
        raise CohortError(f"{name} reveals another key than it announced")
    guilty = []
    for message in exchanges:
        sent = read_exchange(cohort, message)
        if sent.sender == place:
            continue
        try:
            open_share(cohort, sent, name, key.open)
        except SealedError:
            guilty.append(cohort.names[sent.sender])
    return tuple(guilty)


def _of_site(
    cohort: FixedCohort, name: str, revealed: bytes, first: bytes | None
) -> tuple[str, ...]:
    place, key = cohort.position(name), EphemeralKey(revealed=revealed)
    if key.public != cohort.readies[place].key:
        raise CohortError(f"{name} reveals another key than it announced")
    if not place or first is None:
        return ()
    sender, manifest = checks.read_upload(cohort, first)
    if sender != cohort.names[0]:
        raise CohortError("the MAC key is another site's to seal")
    try:
        open_mac_key(cohort, name, manifest, key)
    except SealedError:
        return (sender,)
    return ()
