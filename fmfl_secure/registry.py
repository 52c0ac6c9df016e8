"""Everything that is chosen by a name: an unknown name is refused, never guessed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from fmfl_secure.errors import ConfigError, UnknownKind
from fmfl_secure.extensions import is_extension


def nearest(name: str, names: Iterable[str]) -> str:
    """`Did you mean ...? `, or nothing where no name is near."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f'Did you mean "{close[0]}"? ' if close else ""


class Named(Protocol):
    """An entry of a registry, known by its name."""

    @property
    def name(self) -> str:
        """The name that settings use."""


Entry = TypeVar("Entry", bound=Named)


class Registry(Generic[Entry]):
    """Entries by their names, in order. There is no default, and nothing stands for what is absent.

    Args:
        what: What is chosen, as a refusal names it: `kind of adapter`.
        entries: All that are this project's own.
        outside: Finds an entry of another package by its name; None where there can be none.

    Raises:
        ValueError: Two have the same name.
    """

    def __init__(
        self,
        what: str,
        entries: Iterable[Entry],
        outside: Callable[[str], Entry] | None = None,
    ) -> None:
        self._what = what
        self._outside = outside
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            if entry.name in self._entries:
                raise ValueError(f"two entries are the {what} {entry.name!r}")
            self._entries[entry.name] = entry

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    @property
    def names(self) -> tuple[str, ...]:
        """All names of this project's own, in order."""
        return tuple(self._entries)

    def get(self, name: str) -> Entry:
        """The entry of this name; another package's is imported when it is asked for.

        Raises:
            UnknownKind: There is none; lists those that there are.
            ConfigError: Another package's cannot be imported, or goes by another name.
        """
        if self._outside is not None and is_extension(name):
            entry = self._outside(name)
            if entry.name != name:
                raise ConfigError(
                    f"the {self._what} {name!r} calls itself {entry.name!r}",
                    hint="What settings, policies and reports name has to be what trains.",
                )
            return entry
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownKind(
                f"{name!r} is no known {self._what}",
                hint=f"{nearest(name, self.names)}Known: {', '.join(self.names)}.",
            ) from None
