"""The errors of secure aggregation.

    AggregationError
    +-- ConfigurationError     what this party itself asked for is not possible
    |   +-- ParameterError     outside the vetted parameter table
    |   +-- IdentityError      a key file or a public key cannot be used
    |   +-- RoleError          an object of one role was handed something of another
    +-- InputError             the numbers handed in by this party's own caller
    +-- StateError             a step out of order, or a second, different one
    +-- JournalError           the durable record cannot be read or written
    |   +-- RecordedError      the entry exists already
    +-- BackendError           the CKKS library is missing or fails its self-test
    +-- RefusedError           something from outside is refused
        +-- MessageError       malformed, oversized, not canonical, of another kind or version
        +-- SignatureError     not signed by whom it should be
        +-- PlanError          a round this party does not take part in
        +-- CohortError        a cohort this party does not take part in
        +-- UploadError        an upload or sum that is partial, altered or of another round
        +-- OpeningError       an opening or opening list that does not fit
        |   +-- SealedError    what another party sealed for this one does not open
        +-- ReleaseError       a release that is not the sum of this cohort
        +-- ReplayError        a round or attempt that was already used

The text of an error is for the people of the party where it arose. What may leave the party is
`AggregationError.code` and nothing else: every refusal carries the same one, because a reason is
an oracle.
"""

from __future__ import annotations

from typing import ClassVar


class AggregationError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        code: The one word that may be told to other parties.
    """

    code: ClassVar[str] = "failed"


class ConfigurationError(AggregationError):
    """What this party asked for is not possible."""


class ParameterError(ConfigurationError):
    """Outside the vetted parameter table; the text names the nearest that fits."""


class IdentityError(ConfigurationError):
    """A key file or a public key cannot be used."""


class RoleError(ConfigurationError):
    """An object of one role was handed something that belongs to another."""


class InputError(AggregationError):
    """Numbers handed in by this party's own caller are not what the plan asks for."""


class StateError(AggregationError):
    """A step out of order, or a second and different one."""


class JournalError(AggregationError):
    """The durable record cannot be read or written."""


class RecordedError(JournalError):
    """The journal holds an entry of this kind and key already."""


class BackendError(AggregationError):
    """The CKKS library is missing, of another version, or fails its self-test."""


class RefusedError(AggregationError):
    """Something that came from outside is refused; the party's state is as before."""

    code: ClassVar[str] = "refused"


class MessageError(RefusedError):
    """Malformed, oversized, not canonical, or of another kind or version."""


class SignatureError(RefusedError):
    """Not signed by whom it should be."""


class PlanError(RefusedError):
    """A round this party does not take part in."""


class CohortError(RefusedError):
    """A cohort this party does not take part in."""


class UploadError(RefusedError):
    """An upload or a sum that is partial, altered or of another round."""


class OpeningError(RefusedError):
    """An opening or a list of uploads that does not fit."""


class SealedError(OpeningError):
    """What another party sealed for this one does not open.

    Attributes:
        accusation: A signed message that proves whose fault it is, to be sent; empty where none
            can be made.
    """

    accusation: bytes = b""


class ReleaseError(RefusedError):
    """A release that is not the sum of this cohort."""


class ReplayError(RefusedError):
    """A round or an attempt that was already used."""
