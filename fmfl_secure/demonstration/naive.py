"""The naive pattern: one CKKS context for all sites, and a key holder who decrypts the sum.

As tutorials and several platforms have it (`fmfl_secure.demonstration.per_tensor_ckks`): one
long-lived symmetric key, which every site holds; the server adds ciphertexts; the key holder
decrypts what the server hands over, and everybody gets the floats. Nothing is signed, masked or
verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fmfl_secure.demonstration import key_recovery
from fmfl_secure.demonstration.per_tensor_ckks import PerTensorCkks, PublicView
from fmfl_secure.demonstration.pictures import SIZES

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, repr=False)
class NaiveRound:
    """One round of the naive pattern, and what everybody has of it.

    Attributes:
        key: What every site and the key holder hold.
        uploads: Serialised tensors by site: what the server stores.
        total: Their sum.
        published: The floats that the key holder makes of it, for everyone.
    """

    key: PerTensorCkks
    uploads: Mapping[str, list[bytes]]
    total: list[bytes]
    published: Floats

    @property
    def upload_bytes(self) -> int:
        """The most bytes that one site uploads."""
        return max(sum(map(len, upload)) for upload in self.uploads.values())

    def as_key_holder(self, name: str) -> Floats:
        """Whoever holds the key decrypts an upload, as it would the sum."""
        return self.key.decrypt(self.uploads[name])

    def as_server(self, name: str) -> Floats:
        """The server hands one upload over as the sum, and gets it back with everyone."""
        return self.key.decrypt(list(self.uploads[name]))

    def with_recovered_key(self, name: str) -> tuple[npt.NDArray[np.int64], Floats]:
        """The server recovers the key from the published sum, then opens an upload with it."""
        view = PublicView(self.key.public_context())
        weights = self.published[: SIZES[0]]
        secret = key_recovery.recover_key(view, [(self.total[0], weights)])
        if not key_recovery.is_secret(secret):
            return secret, np.zeros_like(self.published)
        first = key_recovery.open_with(view, secret, self.uploads[name][:1], SIZES[0])
        last = key_recovery.open_with(view, secret, self.uploads[name][1:], SIZES[1])
        return secret, np.concatenate([first, last])

    def with_added(self, constant: float) -> Floats:
        """The server adds a constant to the first value of the sum, and it is decrypted."""
        return self.key.decrypt(self.key.add_constant(self.total, [constant]))


def run_naive(updates: Mapping[str, Floats]) -> NaiveRound:
    """Runs one round of the naive pattern over these updates."""
    key = PerTensorCkks()
    uploads = {name: key.encrypt(update, SIZES) for name, update in updates.items()}
    total = key.add(list(uploads.values()))
    return NaiveRound(key, uploads, total, key.decrypt(total))
