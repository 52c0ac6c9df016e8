"""Reads the settings' files, strictly: what is unknown or wrong is refused with its place."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from fmfl_secure.errors import ConfigError, os_failure
from fmfl_secure.outside import parse_toml, read_settings
from fmfl_secure.settings.refusal import at_line, explain, named, texts
from fmfl_secure.settings.techniques import find_refusal

_Settings = TypeVar("_Settings", bound=msgspec.Struct)
_HINT_TOML: Final = (
    "Correct that place. A setting or a section stands once, and texts stand in quotes."
)


def load_toml(path: Path, kind: type[_Settings], *, hint: str) -> _Settings:
    """Settings of one file.

    Args:
        path: The file.
        kind: What it holds.
        hint: Where such a file comes from, for whoever has none.

    Raises:
        ConfigError: It is not there, not TOML, or a setting is unknown or wrong.
    """
    try:
        text = read_settings(path)
        data = parse_toml(text)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", hint=hint) from None
    except OSError as error:
        raise os_failure(
            ConfigError,
            f"{path} cannot be read",
            error,
            hint="Name a file that this account may read.",
        ) from error
    except UnicodeDecodeError:
        raise ConfigError(
            f"{path} cannot be read as TOML: it is not UTF-8", hint="Save it as UTF-8."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}", hint=_HINT_TOML) from error
    return convert_config(data, kind, source=str(path), text=text)


def convert_config(data: Any, kind: type[_Settings], *, source: str, text: str = "") -> _Settings:
    """Settings from parsed data.

    Args:
        data: The settings as parsed.
        kind: What they are to become.
        source: What to call them in a refusal, such as their file.
        text: The file's own text, whose line a refusal names.

    Raises:
        ConfigError: A setting is unknown, missing, of the wrong type or out of range.
    """
    for place, value in texts(data):
        if "\0" in value:
            raise ConfigError(
                f"{source}: {at_line(f'{named(place)} has a NUL character in it', text, place)}",
                hint="Write it anew: no name, path or text has one.",
            )
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        refused = find_refusal(data)
        if refused is None:
            said, hint = explain(error, data, kind, text)
        else:
            said, hint = at_line(refused[0], text), refused[1]
        raise ConfigError(f"{source}: {said}", hint=hint) from error
