"""Who drew a federation's keys, and who has compared them: as a run's report tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from fmfl_secure.errors import RunError
from fmfl_secure.outside import MALFORMED
from fmfl_secure.storage.files import write_files

KEYS_NAME: Final = "keys.json"


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One party's signed word on its keys.

    Attributes:
        party: Its name.
        drew_own_keys: Whether its keys were drawn in its own folder.
        heard_from: Which party read the fingerprint to it.
        at: UTC time.
    """

    party: str
    drew_own_keys: bool
    heard_from: str
    at: str


class KeysRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much is known of whose keys are whose, as the server held it when the run began.

    Attributes:
        one_place: Whether all parties' keys were drawn, or lie, in one place: a simulation.
        fingerprint: Of the authority and all parties' identity keys, hexadecimal: what every party
            must see alike. Empty where there is no authority.
        compared: What parties signed that saw this very fingerprint.
        missing: Parties of which the server has no such signature.
    """

    one_place: bool
    fingerprint: str
    compared: tuple[Comparison, ...]
    missing: tuple[str, ...]


def save_keys(folder: Path, record: KeysRecord) -> None:
    """Keep the record in a run's folder.

    Raises:
        OSError: It cannot be written.
    """
    text = msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
    write_files(folder, {KEYS_NAME: text})


def load_keys(folder: Path) -> KeysRecord | msgspec.UnsetType:
    """The record in a run's folder; unset in one of an earlier version.

    Raises:
        RunError: It is damaged.
    """
    try:
        return msgspec.json.decode((folder / KEYS_NAME).read_bytes(), type=KeysRecord)
    except FileNotFoundError:
        return msgspec.UNSET
    except (OSError, *MALFORMED) as error:
        raise RunError(
            f"{folder / KEYS_NAME} is damaged: {error}", hint="Put it back as the run wrote it."
        ) from error
