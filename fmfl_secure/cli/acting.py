"""Which commands change something at a party, and what its log of acts is told of them.

Each command says it where it is registered: an `Act`, or a sentence why nothing is recorded.

`cli._command` calls `acted` around each command's work: an entry before the act, its answer's kept
parts, and an entry after it or for what ended it. A process that ends without coming back calls
`end_now`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fmfl_secure.cli._console import errors, progress

if TYPE_CHECKING:
    from fmfl_secure.parties.acts import ActLog

Given = Mapping[str, Any]  # a command's arguments, by name
IDENTITY: Final = "identity.pem"
READS: Final = "it reads, and changes nothing"
AUTHORITY: Final = "it acts at the authority, which is no party: authority/issued.json has it"
_MOST_TEXT: Final = 500  # characters of a text that is kept


@dataclass(frozen=True, slots=True)
class Act:
    """An act at a party, for its log.

    Attributes:
        name: What the log calls it, for good.
        at: From a command's arguments, folders of the party; or the argument that is one.
        keeps: Arguments whose texts and paths are kept. Figures and switches always are, if they
            are not what they are by default; no other text is, whatever it says.
        tells: What is kept of the answer, by name.
        when: Whether it is an act with these arguments at all.
        always: Done although its log cannot be written, which is said.
    """

    name: str
    at: str | Callable[[Given], Path | None]
    keeps: tuple[str, ...] = ()
    tells: tuple[str, ...] = ()
    when: Callable[[Given], bool] = lambda _: True
    always: bool = False

    def folder(self, arguments: Given) -> Path | None:
        """The party's folder; None where it cannot be told."""
        return Path(arguments[self.at]) if isinstance(self.at, str) else self.at(arguments)

    def facts(self, arguments: Given, defaults: Given) -> dict[str, Any]:
        """Keeps those of a command's arguments that were given."""
        told = {}
        for name, value in arguments.items():
            if value is not None and value != defaults.get(name):
                kept = _kept(value, text=name in self.keeps)
                if kept is not None:
                    told[name] = kept
        return told

    def answered(self, answer: Any) -> dict[str, Any]:
        """Keeps the parts of its answer that it tells."""
        told = {name: _kept(getattr(answer, name, None), text=True) for name in self.tells}
        return {name: value for name, value in told.items() if value is not None}


def _kept(value: Any, *, text: bool) -> Any:
    if isinstance(value, bool | int | float):
        return value
    if not text:
        return None
    if isinstance(value, list | tuple):
        return [_kept(each, text=True) for each in value]
    if isinstance(value, datetime):
        return value.date().isoformat()
    if isinstance(value, str | Path):
        from privacy.storage import without_secrets

        return without_secrets(str(value))[:_MOST_TEXT]
    return None


class _Under:
    """The act under way in this process, for those who end it at once."""

    end: Callable[[], None] = staticmethod(lambda: None)


def end_now() -> None:
    """Record that the act under way is done: this process ends without coming back to it."""
    _Under.end()


@contextmanager
def acted(act: Act | str, arguments: Given, defaults: Given) -> Iterator[Callable[[Any], None]]:
    """Record an act around what it does, where it is one.

    Yields:
        To be called with the command's answer.

    Raises:
        FmflError, AggregationError: The party's log does not hold or cannot be written: nothing was
            done.
    """
    if isinstance(act, str) or not act.when(arguments):
        yield lambda _: None
        if act == AUTHORITY:
            progress.print(f"not in a log of acts: {act}", markup=False, soft_wrap=True)
        return
    recorded = _Recorded(act, arguments, defaults)
    recorded.begin()
    _Under.end = recorded.done
    try:
        yield recorded.answered
    except BaseException as error:
        recorded.ended_by(error)
        raise
    else:
        recorded.done()
    finally:
        _Under.end = staticmethod(lambda: None)


class _Recorded:
    def __init__(self, act: Act, arguments: Given, defaults: Given) -> None:
        self._act, self._arguments, self._defaults = act, arguments, defaults
        self._log: ActLog | None = None
        self._begun = 0
        self._told: dict[str, Any] = {}

    def begin(self) -> None:
        """Write the entry that stands before the act, where there is a key to sign it."""
        try:
            self._open()
        except Exception as error:
            if not self._act.always:
                raise
            _say(f"not in the log of acts: {error}")

    def answered(self, answer: Any) -> None:
        """Note what is kept of the answer."""
        self._told = self._act.answered(answer)

    def done(self) -> None:
        """Write that it is done."""
        if self._log is None:  # the act itself may have drawn the party's key
            self.begin()
            if self._log is None:
                folder = self._act.folder(self._arguments)
                where = "" if folder is None else f" in {folder}"
                _say(f"not in a log of acts: no party's key is at hand{where}")
        self._end("done", "")

    def ended_by(self, error: BaseException) -> None:
        """Write what ended it: its code, and nothing of its text."""
        from fmfl_secure.cli.failure import failure_of

        wrong = failure_of(error).error
        what = "failed" if wrong.nature == "bug" else "refused"
        self._end("interrupted" if _is_interruption(wrong) else what, wrong.code)

    def _open(self) -> None:
        from fmfl_secure.parties.acts import ActLog
        from fmfl_secure.parties.own_identity import has_key

        folder = self._act.folder(self._arguments)
        if folder is None or not has_key(folder):
            return
        log = ActLog(folder)
        self._begun = log.begin(self._act.name, self._act.facts(self._arguments, self._defaults))
        self._log = log

    def _end(self, what: str, code: str) -> None:
        from fmfl_secure.errors import ANY_FAILURE

        log, self._log = self._log, None
        if log is None:
            return
        try:
            log.end(self._begun, self._act.name, what, code=code, facts=self._told)
        except ANY_FAILURE as error:
            _say(f"its end is not in the log of acts: {error}")


def _is_interruption(wrong: Any) -> bool:
    return bool(wrong.nature == "passing" or wrong.code == "interrupted")


def _say(text: str) -> None:
    errors.print(text, markup=False, highlight=False, soft_wrap=True)


# Where acts are, from a command's arguments.


def beside_ledger(arguments: Given) -> Path | None:
    """The folder of whose key signs in a ledger: named, or beside the ledger's file."""
    from privacy.storage import is_url

    identity, place = arguments.get("identity"), str(arguments["ledger"])
    if identity is not None:
        return Path(identity).parent if Path(identity).name == IDENTITY else None
    if is_url(place):
        return None
    return Path(place) if Path(place).is_dir() else Path(place).parent


def beside_settings(arguments: Given) -> Path | None:
    """The folder of a federation's settings."""
    return Path(arguments["federation"]).parent


def beside_key_or_run(arguments: Given) -> Path | None:
    """The folder of a coordinator's key that is named, or that its run was begun from."""
    identity = arguments["identity"]
    return of_run("run_folder")(arguments) if identity is None else Path(identity).parent


def of_run(name: str) -> Callable[[Given], Path | None]:
    """The folder that a run was begun from, as its own folder says.

    Args:
        name: The argument that is the run's folder.
    """

    def found(arguments: Given) -> Path | None:
        from fmfl_secure.errors import KNOWN_ERRORS
        from fmfl_secure.storage.run_store import RunStore, holds_run

        folder = Path(arguments[name])
        try:
            return RunStore(folder).state.origin if holds_run(folder) else None
        except KNOWN_ERRORS:
            return None  # what is wrong with it, the command itself says

    return found
