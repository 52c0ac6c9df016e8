"""The interface by which every transport tells about a run's progress."""

from __future__ import annotations

from typing import Protocol

from typing_extensions import override

from fmfl_secure.run.record import RoundRecord


class Observer(Protocol):
    """Told about a run as it goes. Everything it hears may be shown to the person running it."""

    def run_started(self, run: str, *, first_round: int, rounds: int) -> None:
        """A run starts, or goes on from a round."""
        ...

    def site_refused(self, site: str, code: str, reason: str) -> None:
        """A site takes no part; the reason is local, only the code leaves it."""
        ...

    def site_training(self, round_number: int, site: str, step: int, steps: int) -> None:
        """A site finished a step of a round (0: it begins)."""
        ...

    def round_finished(
        self, record: RoundRecord, epsilon: dict[str, float], upload_bytes: int
    ) -> None:
        """A round ended.

        Args:
            record: The round.
            epsilon: Spent so far by site, over its ledger's life.
            upload_bytes: The largest upload of a site.
        """
        ...


class Silent(Observer):
    """An observer that tells nobody; a refusal is in the run's record."""

    @override
    def run_started(self, run: str, *, first_round: int, rounds: int) -> None:
        pass

    @override
    def site_refused(self, site: str, code: str, reason: str) -> None:
        pass

    @override
    def site_training(self, round_number: int, site: str, step: int, steps: int) -> None:
        pass

    @override
    def round_finished(
        self, record: RoundRecord, epsilon: dict[str, float], upload_bytes: int
    ) -> None:
        pass
