"""What can go wrong in this package, as types.

    PrivacyError
      PlanError              a privacy plan contradicts itself
      AdmissionError         model and loss do not have the sensitivity the plan needs
      TrainingError          a private step broke one of its own checks
      AuditError             an empirical audit cannot be made, or says nothing
      LedgerError            the ledger cannot do what was asked
        BudgetExhausted      the grant does not cover it; carries what would fit
        LedgerDamaged        chain, signature or arithmetic does not verify

Every error has a `hint` for the person at the keyboard and a `code`, the one generic word that
may leave the site. No message holds a record, a count of records, or anything computed from
them other than charges that the ledger shows anyway.
"""

from __future__ import annotations


class PrivacyError(Exception):
    """Base of this package's errors.

    Attributes:
        code: Generic word that may leave the site.
        hint: What to do about it; may be empty.
    """

    code = "privacy"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class PlanError(PrivacyError):
    """A privacy plan contradicts itself or leaves what the accountant covers."""

    code = "plan"


class AdmissionError(PrivacyError):
    """Model, loss or batching does not have the sensitivity that the plan promises."""

    code = "admission"


class TrainingError(PrivacyError):
    """A private step broke one of its own checks; its result was thrown away."""

    code = "training"


class AuditError(PrivacyError):
    """An empirical audit cannot be made as asked, or could not have found anything."""

    code = "audit"


class LedgerError(PrivacyError):
    """The ledger cannot do what was asked; it is unchanged."""

    code = "ledger"


class BudgetExhausted(LedgerError):
    """No grant covers what was asked. Nothing was reserved and no data may be read.

    Attributes:
        asked_rounds: Rounds that were asked for.
        affordable_rounds: Rounds of the same mechanism that would still fit.
    """

    code = "budget"

    def __init__(
        self, message: str, *, asked_rounds: int, affordable_rounds: int, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.asked_rounds = asked_rounds
        self.affordable_rounds = affordable_rounds


class LedgerDamaged(LedgerError):
    """The ledger's chain, a signature or its arithmetic does not verify."""

    code = "ledger-damaged"
