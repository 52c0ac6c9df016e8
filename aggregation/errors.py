"""The errors of secure aggregation.

    AggregationError
    +-- ConfigurationError     what this party itself asked for is not possible
    |   +-- ParameterError     outside the vetted parameter table
    |   +-- IdentityError      a key file or a public key cannot be used
    |   |   +-- IdentityUnavailable  the file cannot be read now
    |   +-- RoleError          an object of one role was handed something of another
    +-- InputError             the numbers handed in by this party's own caller
    +-- StateError             a step out of order, or a second, different one
    +-- JournalError           the durable record is damaged, missing or put back
    |   +-- RecordedError      the entry exists already
    |   +-- JournalUnavailable it cannot be reached now: busy, no room, no rights
    +-- BackendError           the CKKS library is missing or fails its self-test
    |   +-- BackendUnavailable there is no memory for a file of it now
    +-- RefusedError           something from outside is refused
        +-- MessageError       malformed, oversized, not canonical, of another kind or version
        +-- SignatureError     not signed by whom it should be
        +-- PlanError          a round this party does not take part in
        +-- CohortError        a cohort this party does not take part in
        +-- UploadError        an upload or sum that is partial, altered or of another round
        +-- OpeningError       an opening or opening list that does not fit
        |   +-- SealedError    what another party sealed for this one does not open
        +-- ReleaseError       a release that is not the sum of this cohort
        |   +-- NormError      an update in it is larger than an honest one, or may be
        +-- ReplayError        a round or attempt that was already used

The text of an error is for the people of the party where it arose. What may leave the party is
`AggregationError.code` and nothing else: every refusal carries the same one, because a reason is
an oracle.

Every class declares its `nature`, which decides what follows from it:

    passing   the surroundings: it is tried again, and never anybody's last word
    decided   it stays so until a person decides otherwise: an outcome, or a refusal
    damage    something kept is not what it was: somebody has to put it back

Every module of this package raises from here. `fmfl_secure.errors` counts `AggregationError` among
those that the command line explains; agents, server and stores go by an error's `nature`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Nature = Literal["passing", "decided", "damage"]


class AggregationError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        nature: What follows from it; see above.
        code: The one word that may be told to other parties.
        hint: What the person at the keyboard can do about it; may be empty.
    """

    nature: ClassVar[Nature] = "decided"
    code: ClassVar[str] = "failed"
    hint: str = ""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        if hint:
            self.hint = hint


class ConfigurationError(AggregationError):
    """This party asked for something that is not possible."""

    nature: ClassVar[Nature] = "decided"


class ParameterError(ConfigurationError):
    """Outside the vetted parameter table; the text names the nearest that fits."""

    nature: ClassVar[Nature] = "decided"


class IdentityError(ConfigurationError):
    """A key file or a public key cannot be used."""

    nature: ClassVar[Nature] = "decided"
    hint: str = (
        "Put the key back as it was drawn: a file that its owner alone may read (chmod 600)."
    )


class IdentityUnavailable(IdentityError):
    """A key file cannot be read now: the disk or the process's descriptors fail it."""

    nature: ClassVar[Nature] = "passing"
    hint: str = "See to the disk, and to how many files may be open."


class RoleError(ConfigurationError):
    """An object of one role was handed something that belongs to another."""

    nature: ClassVar[Nature] = "decided"


class InputError(AggregationError):
    """Numbers handed in by this party's own caller are not what the plan asks for."""

    nature: ClassVar[Nature] = "decided"


class StateError(AggregationError):
    """A step out of order, or a second and different one."""

    nature: ClassVar[Nature] = "decided"


class JournalError(AggregationError):
    """The durable record is damaged, missing, or lacks what somebody saw of it."""

    nature: ClassVar[Nature] = "damage"
    hint: str = "Put the record back as it was."


class RecordedError(JournalError):
    """The journal holds an entry of this kind and key already."""

    nature: ClassVar[Nature] = "decided"


class JournalUnavailable(JournalError):
    """The durable record cannot be used now: held by others, no room, no rights; nothing was."""

    nature: ClassVar[Nature] = "passing"
    hint: str = "Make room, and let this account alone use the file."


class BackendError(AggregationError):
    """The CKKS library is missing, of another version, or fails its self-test."""

    nature: ClassVar[Nature] = "decided"


class BackendUnavailable(BackendError):
    """There is no memory for a file of it now."""

    nature: ClassVar[Nature] = "passing"


class RefusedError(AggregationError):
    """Something that came from outside is refused; the party's state is as before."""

    nature: ClassVar[Nature] = "decided"
    code: ClassVar[str] = "refused"


class MessageError(RefusedError):
    """Malformed, oversized, not canonical, or of another kind or version."""

    nature: ClassVar[Nature] = "decided"


class SignatureError(RefusedError):
    """Not signed by whom it should be."""

    nature: ClassVar[Nature] = "decided"


class PlanError(RefusedError):
    """A round this party does not take part in."""

    nature: ClassVar[Nature] = "decided"


class CohortError(RefusedError):
    """A cohort this party does not take part in."""

    nature: ClassVar[Nature] = "decided"


class UploadError(RefusedError):
    """An upload or a sum that is partial, altered or of another round."""

    nature: ClassVar[Nature] = "decided"


class OpeningError(RefusedError):
    """An opening or a list of uploads that does not fit."""

    nature: ClassVar[Nature] = "decided"


class SealedError(OpeningError):
    """A box that another party sealed for this one does not open.

    Attributes:
        accusation: A signed message that proves whose fault it is, to be sent; empty where none
            can be made.
    """

    nature: ClassVar[Nature] = "decided"
    accusation: bytes = b""


class ReleaseError(RefusedError):
    """A release that is not the sum of this cohort."""

    nature: ClassVar[Nature] = "decided"


class NormError(ReleaseError):
    """An update in a sum is larger than an honest one can be, or cannot be told not to be."""

    nature: ClassVar[Nature] = "decided"


class ReplayError(RefusedError):
    """A round or an attempt that was already used."""

    nature: ClassVar[Nature] = "decided"
