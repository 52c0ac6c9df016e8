"""Errors of this package, as types.

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
          StorageUnusable    its place cannot be read, or its driver is not installed
        StorageDamaged       what is there is not what was written
      LedgerError            the ledger cannot do what was asked
        LedgerUnavailable    it cannot be reached, or what keeps it is not durable
        BudgetExhausted      the grant does not cover it; carries what would fit
        LedgerDamaged        chain, signature or arithmetic does not verify
          LedgerLocked       it lacks a head that others saw: rolled back, truncated or forked

Every error has a `hint` for the person at the keyboard and a `code`, the one generic word that
may leave the site. No message holds a record, a count of records, or anything computed from
them other than charges that the ledger shows anyway.

And a `nature`, declared by every class, which decides what follows from it:

    passing   the surroundings: it is tried again, and never anybody's last word
    decided   it stays so until a person decides otherwise: an outcome, or a refusal
    damage    something kept is not what it was: somebody has to put it back

All of this package raises from here, and `fmfl_secure.errors` counts `PrivacyError` among those
that the command line explains. What leaves a party is an error's `code` and nothing else of it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Nature = Literal["passing", "decided", "damage"]


class PrivacyError(Exception):
    """Base of this package's errors.

    Attributes:
        nature: What follows from it; see above.
        code: Generic word that may leave the site.
        hint: What to do about it; may be empty.
    """

    nature: ClassVar[Nature] = "decided"
    code = "privacy"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class PlanError(PrivacyError):
    """A privacy plan contradicts itself or leaves what the accountant covers."""

    nature: ClassVar[Nature] = "decided"
    code = "plan"


class PolicyRefusal(PrivacyError):
    """This site's own policy rules the run out. Nothing was reserved and no data were read.

    Attributes:
        rule: Name of the rule, stable; `privacy.policy` lists them.
        code: `policy.` and the rule.
    """

    nature: ClassVar[Nature] = "decided"
    code = "policy"

    def __init__(self, rule: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.rule = rule
        self.code = f"policy.{rule}"


class AdmissionError(PrivacyError):
    """Model, loss or batching does not have the sensitivity that the plan promises."""

    nature: ClassVar[Nature] = "decided"
    code = "admission"


class TrainingError(PrivacyError):
    """A private step broke one of its own checks; its result was thrown away."""

    nature: ClassVar[Nature] = "decided"
    code = "training"


class AuditError(PrivacyError):
    """An empirical audit cannot be made as asked, or could not have found anything."""

    nature: ClassVar[Nature] = "decided"
    code = "audit"


class StorageError(PrivacyError):
    """Durable state cannot be used as asked."""

    nature: ClassVar[Nature] = "decided"
    code = "storage"


class StorageMissing(StorageError):
    """Nothing was ever created at this place."""

    nature: ClassVar[Nature] = "damage"
    code = "storage-missing"


class StorageExists(StorageError):
    """Something is at this place already, and nothing is ever replaced."""

    nature: ClassVar[Nature] = "decided"
    code = "storage-exists"


class StorageUnavailable(StorageError):
    """It cannot be used now: no server, no rights, no room, held by others, or not durable."""

    nature: ClassVar[Nature] = "passing"
    code = "storage-unavailable"


class StorageUnusable(StorageUnavailable):
    """The place is named in a way that nobody can use, or what reaches it is not installed."""

    nature: ClassVar[Nature] = "decided"
    code = "storage-unusable"


class StorageDamaged(StorageError):
    """The bytes that are there are not those that were written."""

    nature: ClassVar[Nature] = "damage"
    code = "storage-damaged"


class LedgerError(PrivacyError):
    """The ledger cannot do what was asked; it is unchanged."""

    nature: ClassVar[Nature] = "decided"
    code = "ledger"


class LedgerUnavailable(LedgerError):
    """The ledger cannot be reached, or what keeps it would not survive a crash."""

    nature: ClassVar[Nature] = "passing"
    code = "ledger-unavailable"


class BudgetExhausted(LedgerError):
    """No grant covers what was asked. Nothing was reserved and no data may be read.

    Attributes:
        asked_rounds: Rounds that were asked for.
        affordable_rounds: Rounds of the same mechanism that would still fit.
    """

    nature: ClassVar[Nature] = "decided"
    code = "budget"

    def __init__(
        self, message: str, *, asked_rounds: int, affordable_rounds: int, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.asked_rounds = asked_rounds
        self.affordable_rounds = affordable_rounds


class LedgerDamaged(LedgerError):
    """The ledger's chain, a signature or its arithmetic does not verify."""

    nature: ClassVar[Nature] = "damage"
    code = "ledger-damaged"


class LedgerLocked(LedgerDamaged):
    """The ledger verifies, and lacks a head that somebody outside has seen of it.

    Attributes:
        heads: The heads that it lacks, `SEQUENCE:DIGEST`.
    """

    nature: ClassVar[Nature] = "damage"
    code = "ledger-locked"

    def __init__(self, message: str, *, heads: tuple[str, ...], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.heads = heads
