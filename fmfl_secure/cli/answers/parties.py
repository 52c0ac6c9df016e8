"""Answers of the commands on parties, keys, certificates and members.

`cli.keys`, `cli.members`, `cli.service` and `cli.stop` return these, and `--json` prints them;
`docs/answers.schema.json` is made from the types.
"""

from __future__ import annotations

import msgspec

from fmfl_secure.cli.answers.base import Answer


class Provisioned(Answer, frozen=True, kw_only=True):
    """Answers to parties' requests, or kits of a simulation.

    Attributes:
        made: What was, in words.
        simulation: Whether all keys were drawn here.
        start_file: What the server starts from; empty where the base model is not at hand.
        start_file_missing: Why it is not there; else empty.
        sealed: Sealed kits.
        passphrases: Folder with a passphrase for each; empty where nothing was sealed.
    """

    made: tuple[str, ...]
    simulation: bool
    start_file: str
    start_file_missing: str
    sealed: tuple[str, ...]
    passphrases: str


class KitUnsealed(Answer, frozen=True, kw_only=True):
    """A kit's folder.

    Attributes:
        folder: That was made.
        files: How many are in it.
    """

    folder: str
    files: int


class Ready(Answer, frozen=True, kw_only=True):
    """A party's process that is ready.

    Attributes:
        said: What it says.
    """

    said: str


class KeysRequested(Answer, frozen=True, kw_only=True):
    """A request for what goes beside a party's keys.

    Attributes:
        request: The file to send.
        fingerprints: Of the keys that were drawn, by party.
    """

    request: str
    fingerprints: dict[str, str]


class AnswerAccepted(Answer, frozen=True, kw_only=True):
    """An answer beside a party's keys.

    Attributes:
        done: What was put where, in words.
        added: Members with new keys, by name, and their fingerprints.
        new_settings: Whether the settings are others than before.
    """

    done: tuple[str, ...]
    added: dict[str, str]
    new_settings: bool


class ComparedShown(msgspec.Struct, frozen=True, kw_only=True):
    """A party that signed what it sees.

    Attributes:
        party: Its name.
        at: UTC time.
        drew_own_keys: Whether its keys were drawn in its own folder.
        heard_from: Who read the fingerprint to it.
    """

    party: str
    at: str
    drew_own_keys: bool
    heard_from: str


class CeremonyShown(Answer, frozen=True, kw_only=True):
    """Whom a party trusts, and who has signed the same.

    Attributes:
        federation: Its name.
        fingerprint: Of all keys together: the one to read aloud.
        authority: Fingerprint of the authority's certificate.
        parties: Fingerprints by party.
        signed: Who has signed.
        missing: Who has not, as far as this party has it.
    """

    federation: str
    fingerprint: str
    authority: str
    parties: dict[str, str]
    signed: tuple[ComparedShown, ...]
    missing: tuple[str, ...]


class CeremonySigned(Answer, frozen=True, kw_only=True):
    """A party's word that its keys are the ones that were read.

    Attributes:
        file: To send to the other parties.
    """

    file: str


class CeremonyCollected(Answer, frozen=True, kw_only=True):
    """Other parties' signed words were collected and kept.

    Attributes:
        parties: Whose words were taken.
        missing: Who has not signed yet.
    """

    parties: tuple[str, ...]
    missing: tuple[str, ...]


class CertificateShown(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that the authority issued.

    Attributes:
        party: Whose.
        role: Its role.
        serial: In hexadecimal.
        expires: The day it ends; empty where none was noted.
        state: Whether it holds, is due, or was revoked.
    """

    party: str
    role: str
    serial: str
    expires: str
    state: str


class CertificatesShown(Answer, frozen=True, kw_only=True):
    """All certificates.

    Attributes:
        certificates: In the order in which they were issued.
    """

    certificates: tuple[CertificateShown, ...]


class MembersShown(Answer, frozen=True, kw_only=True):
    """Whom a party trusts.

    Attributes:
        list: Number of the newest list of members.
        coordinator: Name of the coordinator.
        fingerprints: Of all members, by name.
    """

    list: int
    coordinator: str
    fingerprints: dict[str, str]


class MemberRemoved(Answer, frozen=True, kw_only=True):
    """A list of members without a site.

    Attributes:
        list: Its number.
        removed: Name of the site.
    """

    list: int
    removed: str


class MembersApproved(Answer, frozen=True, kw_only=True):
    """Lists of members that a site took over.

    Attributes:
        lists: Their numbers; empty where there was no newer one.
    """

    lists: tuple[int, ...]


class RunStopKept(Answer, frozen=True, kw_only=True):
    """A signed stop of a run, kept in a party's folder for good.

    Attributes:
        run: Its id.
        party: Who stopped it.
        reason: Why.
        at: UTC time of it.
        file: To send to the other parties.
    """

    run: str
    party: str
    reason: str
    at: str
    file: str
