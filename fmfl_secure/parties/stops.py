"""The stops that a party keeps in its folder: each is asked before a round begins there.

A stop's file is durable before anybody is told of it, and nothing here takes one back. One that
does not verify stops as well: what it said is not known.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from aggregation import AggregationError, PublicIdentity
from fmfl_secure.errors import RunError, os_failure
from fmfl_secure.outside import MOST_DOCUMENT, read_regular
from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.parties.own_identity import own_identity
from fmfl_secure.parties.workspace import COORDINATOR, Members
from fmfl_secure.run.stop import RunHalted, RunStop, read_stop, sign_stop
from fmfl_secure.storage.files import write_files

FOLDER: Final = "stops"


class Stops:
    """A party's.

    Args:
        folder: The party's; a server's is its kit.
        members: All parties, as this one trusts them.
    """

    def __init__(self, folder: Path, members: Members) -> None:
        self._folder = folder / FOLDER
        self._may_stop: dict[str, PublicIdentity] = {
            COORDINATOR: members.coordinator,
            **members.custodians,
        }

    def keep(self, statement: bytes) -> tuple[RunStop, Path]:
        """Keep a stop for good, once it holds.

        Returns:
            What it says, and its file.

        Raises:
            RunError: It does not hold, or cannot be written.
            AggregationError: It is not signed by whom it names.
        """
        stop = read_stop(statement, may_stop=self._may_stop)
        name = f"{stop.run}.{stop.party}.stop"
        try:
            write_files(self._folder, {name: statement})
        except OSError as error:
            raise os_failure(
                RunError,
                f"the stop cannot be written to {self._folder}",
                error,
                hint="Nothing is stopped here yet. Make the folder writable and try again.",
            ) from error
        return stop, self._folder / name

    def of(self, run: str) -> dict[str, bytes]:
        """Stops of a run that hold, by who signed them; those that do not are passed over.

        Raises:
            RunError: They cannot be read.
        """
        found = {}
        for path in sorted(self._folder.glob(f"{run}.*.stop")):
            statement = read_regular(path, most_bytes=MOST_DOCUMENT)
            with suppress(RunError, AggregationError):
                found[read_stop(statement, may_stop=self._may_stop).party] = statement
        return found

    def require_none(self, run: str) -> None:
        """Check that nobody has stopped a run.

        Raises:
            RunHalted: Somebody has, or what is kept cannot be told from it.
        """
        for path in sorted(self._folder.glob(f"{run}.*.stop")):
            try:
                stop = read_stop(
                    read_regular(path, most_bytes=MOST_DOCUMENT), may_stop=self._may_stop
                )
            except Exception as error:
                raise RunHalted(
                    f"{path} is no stop that holds, and stops run {run}: {error}",
                    hint="Ask whoever signed it for it again, and put that in its place.",
                ) from error
            raise RunHalted(
                f"{stop.party} stopped run {run} at {stop.at}: {stop.reason}",
                hint="Start another run, if they agree; this one takes no more rounds.",
            )

    def reason(self, run: str) -> str:
        """Why no more round of a run begins here; empty where nobody stopped it."""
        try:
            self.require_none(run)
        except RunHalted as error:
            return str(error)
        return ""


def stop_run(folder: Path, run: str, reason: str) -> tuple[RunStop, Path]:
    """Sign a stop with the key in a party's folder, and keep it there.

    Args:
        folder: A server's or a custodian's kit; or a federation's folder, for its coordinator.
        run: Which run.
        reason: Why.

    Raises:
        RunError: The party is neither coordinator nor custodian; or see `sign_stop`.
        AggregationError: Its key cannot be read.
    """
    identity = own_identity(folder)
    party = identity.public.name
    members = MembershipFolder(folder).members()
    if party != COORDINATOR and party not in members.custodians:
        raise RunError(
            f"{party} can stop no run: the coordinator and custodians can",
            hint="End this party's own process to take no more part.",
        )
    return Stops(folder, members).keep(sign_stop(identity, run, party, reason))


def take_stop(folder: Path, statement: bytes) -> tuple[RunStop, Path]:
    """Keep a stop that another party signed, in any party's folder.

    Raises:
        RunError, AggregationError: It does not hold, or cannot be written.
    """
    return Stops(folder, MembershipFolder(folder).members()).keep(statement)
