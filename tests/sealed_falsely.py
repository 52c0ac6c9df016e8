"""Sites that seal, and sign, what their reader cannot open."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from aggregation.ckks import residues
from aggregation.crypto import mac, sealed_box
from aggregation.crypto.pairwise import EphemeralKey
from aggregation.roles.site_mac import SiteMac
from aggregation.roles.site_secrets import SiteSecrets
from aggregation.roles.site_shares import SiteShares


def altered(box: bytes, _: SiteSecrets, __) -> bytes:
    return box[:-1] + bytes([box[-1] ^ 1])


def not_residues(box: bytes, self: SiteSecrets, cohort) -> bytes:
    content = b"\xff" * (len(box) - sealed_box.OVERHEAD)
    return sealed_box.seal_box(cohort.material, content, cohort.transcript + self._name.encode())


def of_another_site(box: bytes, _: SiteSecrets, cohort) -> bytes:
    content = bytes(len(box) - sealed_box.OVERHEAD)
    return sealed_box.seal_box(cohort.material, content, cohort.transcript + b"another")


def at_random(_: bytes, self: SiteSecrets, cohort) -> bytes:
    """What opens, and is well formed: residues that are no secret under any masks."""
    modulus, degree = cohort.round.parameters.modulus, cohort.round.packing.degree
    drawn = np.random.default_rng(1).integers(0, modulus, degree, dtype=np.uint64)
    content = residues.pack(drawn, modulus)
    return sealed_box.seal_box(cohort.material, content, cohort.transcript + self._name.encode())


def seals(monkeypatch: pytest.MonkeyPatch, bad: str, box) -> None:
    """A site seals something else for the decryptor, and signs it."""
    seal = SiteSecrets._seal

    def sealing(self: SiteSecrets, cohort, encryptor) -> bytes:
        genuine = seal(self, cohort, encryptor)
        return box(genuine, self, cohort) if self._name == bad else genuine

    monkeypatch.setattr(SiteSecrets, "_seal", sealing)


def spoils_mac_keys(monkeypatch: pytest.MonkeyPatch, bad: str, *victims: int) -> None:
    """The first site seals for these positions what nobody can open."""
    made = SiteMac.__init__

    def spoiling(self: SiteMac, cohort, name: str, key: EphemeralKey, **more) -> None:
        made(self, cohort, name, key, **more)
        if name == bad == cohort.names[0]:
            boxes = bytearray(self.boxes)
            for victim in victims:
                boxes[(victim - 1) * mac.BOX_SIZE] ^= 1
            self.boxes = bytes(boxes)

    monkeypatch.setattr(SiteMac, "__init__", spoiling)


def deals(monkeypatch: pytest.MonkeyPatch, bad: str, spoil: Callable) -> None:
    """One site deals something else, and signs it."""
    deal = SiteShares.deal

    def dealing(self: SiteShares, cohort, seed):
        return spoil(self, cohort, deal, seed) if self._name == bad else deal(self, cohort, seed)

    monkeypatch.setattr(SiteShares, "deal", dealing)


def no_polynomial(self: SiteShares, cohort, deal, seed):
    """Each share as it was signed, and all together of no polynomial that gives the seed."""
    del seed
    return deal(self, cohort, b"\1" * 32)
