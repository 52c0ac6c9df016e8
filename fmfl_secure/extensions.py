"""Code of other packages that settings may name: found by its entry point, loaded only then.

A name with a colon, `PACKAGE:NAME`, is never one of this project's own, so that whatever is
written down of a run tells whose code took part. A package declares its entries in its metadata:

    [project.entry-points."fmfl_secure.adapters"]
    shift = "acme_kinds.shift:SHIFT"

Metadata alone is read until settings name an entry, and nothing but that entry is imported.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeVar

import msgspec

from fmfl_secure.errors import ConfigError, UnknownKind

ADAPTERS_GROUP: Final = "fmfl_secure.adapters"
TASKS_GROUP: Final = "fmfl_secure.tasks"
READERS_GROUP: Final = "fmfl_secure.readers"

# One spelling each, so that a list of names means what it says.
PACKAGE_AND_NAME: Final = r"[a-z0-9]+(-[a-z0-9]+)*:[a-z0-9]+(-[a-z0-9]+)*"
ExtensionName = Annotated[str, msgspec.Meta(pattern=rf"^{PACKAGE_AND_NAME}\Z")]

Entry = TypeVar("Entry")


def is_extension(name: str) -> bool:
    """Whether a name is of another package's entry."""
    return re.fullmatch(PACKAGE_AND_NAME, name) is not None


def package_of(name: str) -> str:
    """The package that an entry's name begins with."""
    return name.partition(":")[0]


def installed_version(name: str) -> str:
    """Version of an entry's package as it is installed here; empty where it is not."""
    import importlib.metadata  # noqa: PLC0415 - most settings name no package

    try:
        return importlib.metadata.version(package_of(name))
    except importlib.metadata.PackageNotFoundError:
        return ""


def load_extension(group: str, name: str, kind: type[Entry]) -> Entry:
    """Import the entry of this name. Runs the package's code.

    Args:
        group: Of entry points.
        name: `PACKAGE:NAME`.
        kind: What the entry has to be an instance of.

    Raises:
        UnknownKind: The package is not installed, or has no such entry in this group.
        ConfigError: It cannot be imported, or is something else.
    """
    package, _, entry = name.partition(":")
    import importlib.metadata  # noqa: PLC0415

    try:
        points = importlib.metadata.distribution(package).entry_points
    except importlib.metadata.PackageNotFoundError:
        raise UnknownKind(
            f"{name!r} is code of the package {package!r}, which is not installed here",
            hint=f"Install {package}, if you trust it, in the environment of fmfl-secure.",
        ) from None
    declared = points.select(group=group)
    found = [point for point in declared if point.name == entry]
    if len(found) != 1:
        known = ", ".join(sorted({f"{package}:{point.name}" for point in declared}))
        raise UnknownKind(
            f"{len(found)} entries of the package {package!r} are {name!r} in {group}, expected 1",
            hint=f"Name one that it has: {known or f'none in {group}'}.",
        )
    try:
        loaded = found[0].load()
    except Exception as error:  # not ours: it may fail in any way
        raise ConfigError(
            f"{name!r} ({found[0].value}) cannot be imported: {type(error).__name__}: {error}",
            hint=f"Ask whoever made {package}, or install the version that goes with this one.",
        ) from error
    if not isinstance(loaded, kind):
        raise ConfigError(
            f"{name!r} ({found[0].value}) is no {kind.__name__}",
            hint=f"An entry point in {group} names an instance of {kind.__module__}."
            f"{kind.__name__}.",
        )
    return loaded
