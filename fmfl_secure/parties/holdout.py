"""Which of its units a site sets apart: never trained on, asked what became of the rest.

A unit is set apart where a keyed hash of its id falls below the declared share. So it is in one
part or the other whatever other units there are, the same in every run about the same population,
and a larger share takes in all that a smaller one did. The key is the site's own secret: nobody
else can tell which part a person is in, or choose an id for one.

No id is made from what a record holds, and none from its place in a file: a row that is added would
move everybody after it from one part to the other. Where a record is the unit, a site names a file.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmfl_secure.errors import ConfigError
from fmfl_secure.storage.files import write_secret
from privacy import plain

_KEY_BYTES = 32
_DOMAIN = b"fmfl-secure/holdout/1\0"


class HoldoutKey:
    """A site's secret for one population.

    Args:
        secret: 32 bytes.
        population: The custodian's name for the people.
    """

    def __init__(self, secret: bytes, population: str) -> None:
        self._secret = secret
        self._prefix = _DOMAIN + plain(population).encode() + b"\0"

    def __repr__(self) -> str:
        return "HoldoutKey(<secret>)"

    @classmethod
    def open(cls, file: Path, population: str) -> HoldoutKey:
        """The secret that a file holds; a new one, durable when this returns, where there is none.

        Raises:
            ConfigError: The file holds something else, or cannot be read or made.
        """
        try:
            if not file.exists():
                write_secret(file, secrets.token_bytes(_KEY_BYTES))
            if file.stat().st_mode & 0o077:
                raise ConfigError(f"others may read {file}", hint="chmod 600 it")
            secret = file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{file} cannot be used: {error.strerror}") from error
        if len(secret) != _KEY_BYTES:
            raise ConfigError(
                f"{file} does not hold a key of {_KEY_BYTES} bytes",
                hint="Restore it from a backup: with another key, units that were trained on would "
                "be asked as if they never had been.",
            )
        return cls(secret, population)

    def sets_apart(self, ids: Iterable[str], share: float) -> NDArray[np.bool_]:
        """Which units are set apart; bool, shape (units,).

        Args:
            ids: As `fmfl_secure.data.unit_ids` has them.
            share: Of all, on average, 0 to 1.
        """
        below = round(share * 2**64)
        return np.array([self._place(unit) < below for unit in ids], dtype=np.bool_)

    def _place(self, unit: str) -> int:
        digest = hmac.new(self._secret, self._prefix + unit.encode(), hashlib.sha256).digest()
        return int.from_bytes(digest[:8], "big")
