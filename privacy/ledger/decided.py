"""Why a budget is as large as it is, who decided that, and when to look again: people's words."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final, Self

from privacy.errors import LedgerDamaged, PlanError
from privacy.ledger.record_values import text

MOST_RATIONALE: Final = 1000  # characters
MOST_DECIDER: Final = 200


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision about a budget, for whoever reads of it later. Nothing is computed from it.

    Attributes:
        rationale: Why this epsilon and no other; empty where nobody said.
        by: Who decided: a person, a board; empty where nobody said.
        review_on: The day by which somebody looks at it again; None for none.

    Raises:
        PlanError: A text is too long.
    """

    rationale: str = ""
    by: str = ""
    review_on: dt.date | None = None

    def __post_init__(self) -> None:
        for name, held, most in (
            ("rationale", self.rationale, MOST_RATIONALE),
            ("decided_by", self.by, MOST_DECIDER),
        ):
            if len(held) > most:
                raise PlanError(f"{name} has {len(held)} characters, expected at most {most}")

    def over(self, other: Decided) -> Decided:
        """Fills in from `other` each word that this one leaves out."""
        return Decided(
            self.rationale or other.rationale,
            self.by or other.by,
            self.review_on or other.review_on,
        )

    def is_due(self, on: dt.date) -> bool:
        """Whether it should have been looked at again before some day."""
        return self.review_on is not None and self.review_on < on

    def sentences(self, on: dt.date | None = None) -> list[str]:
        """It in words, without full stops; nothing where nobody said anything.

        Args:
            on: The day as of which a day of review is past; None says nothing of that.
        """
        told = [f"Why this epsilon: {self.rationale.rstrip('.')}"] if self.rationale else []
        told += [f"Decided by {self.by}"] if self.by else []
        if self.review_on is not None:
            past = on is not None and self.is_due(on)
            told.append(
                f"To be looked at again by {self.review_on}{', which is PAST' if past else ''}"
            )
        return told

    def body(self) -> dict[str, Any]:
        """Returns the words that were said as a record's JSON object; others have no key."""
        review = None if self.review_on is None else self.review_on.isoformat()
        held = {"rationale": self.rationale, "decided_by": self.by, "review_on": review}
        return {name: value for name, value in held.items() if value}

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        """Read what `body` gave, among other things.

        Raises:
            LedgerDamaged: It is malformed.
        """
        review = text(body.get("review_on", ""))
        try:
            made = cls(
                rationale=text(body.get("rationale", "")),
                by=text(body.get("decided_by", "")),
                review_on=dt.date.fromisoformat(review) if review else None,
            )
        except (PlanError, ValueError) as error:
            raise LedgerDamaged(f"what was decided of a budget is malformed: {error}") from error
        if review and made.body()["review_on"] != review:
            raise LedgerDamaged(f"{review!r} is no day as records write one")
        return made


UNSAID: Final = Decided()
