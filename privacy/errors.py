"""What can go wrong in this package, as types.

    PrivacyError
      PlanError              a privacy plan contradicts itself
      PolicyRefusal          this site's own policy rules the run out; its code names the rule
      AdmissionError         model and loss do not have the sensitivity the plan needs
      TrainingError          a private step broke one of its own checks
      AuditError             an empirical audit cannot be made, or says nothing
      StorageError           durable state is not there, there already, or cannot be used
        StorageMissing       nothing was created there
        StorageExists        something is there already
        StorageUnavailable   no access now: no server, no rights, no room, busy, not durable
        StorageDamaged       what is there is not what was written
      LedgerError            the ledger cannot do what was asked
        LedgerUnavailable    it cannot be reached, or what keeps it is not durable
        BudgetExhausted      the grant does not cover it; carries what would fit
        LedgerDamaged        chain, signature or arithmetic does not verify
          LedgerLocked       it lacks a head that others saw: rolled back, truncated or forked

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


class PolicyRefusal(PrivacyError):
    """This site's own policy rules the run out. Nothing was reserved and no data were read.

    Attributes:
        rule: Name of the rule, stable; `privacy.policy` lists them.
        code: `policy.` and the rule.
    """

    code = "policy"

    def __init__(self, rule: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.rule = rule
        self.code = f"policy.{rule}"


class AdmissionError(PrivacyError):
    """Model, loss or batching does not have the sensitivity that the plan promises."""

    code = "admission"


class TrainingError(PrivacyError):
    """A private step broke one of its own checks; its result was thrown away."""

    code = "training"


class AuditError(PrivacyError):
    """An empirical audit cannot be made as asked, or could not have found anything."""

    code = "audit"


class StorageError(PrivacyError):
    """Durable state cannot be used as asked."""

    code = "storage"


class StorageMissing(StorageError):
    """Nothing was ever created at this place."""

    code = "storage-missing"


class StorageExists(StorageError):
    """Something is at this place already, and nothing is ever replaced."""

    code = "storage-exists"


class StorageUnavailable(StorageError):
    """It cannot be used now: no server, no rights, no room, held by others, or not durable."""

    code = "storage-unavailable"


class StorageDamaged(StorageError):
    """What is there is not what was written."""

    code = "storage-damaged"


class LedgerError(PrivacyError):
    """The ledger cannot do what was asked; it is unchanged."""

    code = "ledger"


class LedgerUnavailable(LedgerError):
    """The ledger cannot be reached, or what keeps it would not survive a crash."""

    code = "ledger-unavailable"


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


class LedgerLocked(LedgerDamaged):
    """The ledger verifies, and lacks a head that somebody outside has seen of it.

    Attributes:
        heads: The heads that it lacks, `SEQUENCE:DIGEST`.
    """

    code = "ledger-locked"

    def __init__(self, message: str, *, heads: tuple[str, ...], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.heads = heads
