"""Parts of an adapter that a site keeps for itself: where it has them, and where it leaves them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from torch import nn

from fmfl_secure.errors import ModelError, RunError, os_failure
from fmfl_secure.models.personal import personal_bytes, personal_names, read_personal
from fmfl_secure.storage.files import write_files
from fmfl_secure.storage.update_store import UpdateStore

_FOLDER: Final = "heads"  # named after the first part that could be kept
_LOG = logging.getLogger("fmfl_secure.parties.own_parts")


def own_parts_file(folder: Path, run: str) -> Path:
    """Where a site has its own parts of a finished run's adapter.

    Args:
        folder: The site's.
        run: Run id.
    """
    return folder / _FOLDER / f"{run}.safetensors"


class OwnParts:
    """A site's own parts in one run. They are in its store and its folder, and in no message.

    Args:
        folder: The site's folder.
        site: Its name.
        run: Run id.
        parts: Names of the parts; empty where all is shared.
        earlier: The run whose own parts this one goes on from; empty for none.
        updates: The site's store.
    """

    def __init__(
        self,
        folder: Path,
        *,
        site: str,
        run: str,
        parts: Sequence[str],
        earlier: str,
        updates: UpdateStore,
    ) -> None:
        self._folder = folder
        self._site = site
        self._run = run
        self._parts = tuple(parts)
        self._earlier = earlier
        self._updates = updates

    def now(self) -> bytes:
        """Their present values; empty where the site begins with those that all begin with.

        Raises:
            RunError: Those of the earlier run are there and cannot be read.
            RunDamaged: What is stored was altered.
            Unavailable: It cannot be read now.
        """
        if not self._parts:
            return b""
        kept = self._updates.personal(self._run)
        if kept or not self._earlier:
            return kept
        path = own_parts_file(self._folder, self._earlier)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            # For this site's own people: the shared parts fit those that it does not have.
            _LOG.warning(
                "%s: no own parts of run %s are here, and it begins with those that all begin with",
                self._site,
                self._earlier,
                extra={"run": self._run},
            )
            return b""
        except OSError as error:
            raise os_failure(RunError, f"cannot read {path}", error) from error

    def require(self, model: nn.Module) -> None:
        """Require, before anything is reserved, that the present ones can be set in a model.

        Raises:
            RunError: Those of the earlier run cannot be read.
            ModelError: They are damaged, or of another model.
            RunDamaged, Unavailable: As of `now`.
        """
        present = self.now()
        if not present:
            return
        try:
            read_personal(model, personal_names(model, self._parts), present)
        except ModelError as error:
            raise ModelError(
                f"{self._site}: {error}",
                hint=f"Restore {own_parts_file(self._folder, self._earlier)} from a backup; or "
                "move it away, to begin with the parts that all begin with."
                if self._earlier
                else "Restore the site's folder from a backup.",
            ) from error

    def of(self, model: nn.Module) -> bytes:
        """A trained model's values of them, to be stored; empty where all is shared."""
        return personal_bytes(model, self._parts) if self._parts else b""

    def leave(self) -> None:
        """Write them into the site's folder, for its own people. At the end of a run."""
        kept = self._updates.personal(self._run)
        if kept:
            path = own_parts_file(self._folder, self._run)
            write_files(path.parent, {path.name: kept})
