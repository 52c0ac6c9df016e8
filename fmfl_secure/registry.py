"""Everything that is chosen by a name: an unknown name is refused, never guessed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from fmfl_secure.errors import UnknownKind


class Named(Protocol):
    """What a registry can hold."""

    @property
    def name(self) -> str:
        """Its name in settings."""


Entry = TypeVar("Entry", bound=Named)


class Registry(Generic[Entry]):
    """Entries by their names, in order. There is no default, and nothing stands for what is absent.

    Args:
        what: What is chosen, as a refusal names it: `kind of adapter`.
        entries: All there are.

    Raises:
        ValueError: Two have the same name.
    """

    def __init__(self, what: str, entries: Iterable[Entry]) -> None:
        self._what = what
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            if entry.name in self._entries:
                raise ValueError(f"two entries are the {what} {entry.name!r}")
            self._entries[entry.name] = entry

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        return tuple(self._entries)

    def get(self, name: str) -> Entry:
        """The entry of this name.

        Raises:
            UnknownKind: There is none; lists those that there are.
        """
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownKind(
                f"{name!r} is no known {self._what}", hint=f"Known: {', '.join(self.names)}."
            ) from None
