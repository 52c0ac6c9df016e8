"""Findings of a demonstration: views, pictures and attacks, each with the verdict of this run.

`demonstration.run` collects them; `demonstration.page` and, on a terminal,
`demonstration.walkthrough` show them.
"""

from __future__ import annotations

import msgspec

from fmfl_secure.demonstration.pictures import Picture

FORMAT = 1


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that a role saw.

    Attributes:
        what: In words.
        shown: The first of its bytes in hexadecimal, or of its numbers.
        size_bytes: Of all of it; 0 for numbers.
    """

    what: str
    shown: str
    size_bytes: int = 0


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bytes that a role held and saw in the round.

    Attributes:
        role: Name.
        holds: In words.
        seen: In the order in which it saw it.
        cannot: What it cannot tell from that.
    """

    role: str
    holds: str
    seen: tuple[Seen, ...]
    cannot: str


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an attack ended.

    Attributes:
        succeeded: By the figure, which was computed.
        expected: Whether it was expected to.
        figure: What decided it.
        got: What the attacker has in the end.
    """

    succeeded: bool
    expected: bool
    figure: str
    got: str

    @property
    def word(self) -> str:
        """The verdict, `succeeds` or `fails`."""
        return "succeeds" if self.succeeded else "fails"

    @property
    def as_expected(self) -> bool:
        """Whether it ended as it should."""
        return self.succeeded == self.expected


class Attack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One attack, on both.

    Attributes:
        id: Short name.
        title: In words.
        attacker: Who, and with what.
        naive: On the naive pattern.
        here: On this protocol.
        because: Why it ends so here.
    """

    id: str
    title: str
    attacker: str
    naive: Outcome
    here: Outcome
    because: str


class Inversion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A picture that gradient inversion made of what somebody has.

    Attributes:
        id: Short name.
        source: What it was made of.
        outcome: Whether the private picture can be read in it.
        likeness: Correlation with the private picture.
        pixels: What it made, row by row.
    """

    id: str
    source: str
    outcome: Outcome
    likeness: float
    pixels: tuple[tuple[float, ...], ...]


class Demonstration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that one run of the demonstration showed; the JSON beside the page is this.

    Attributes:
        format: Version of this form.
        version: Of this project.
        at: UTC time.
        sites: Number of sites.
        values: Length of an update.
        suite: Protocol suite.
        parameter_set: Its parameters.
        key_agreement: How pairs of sites agree on masks.
        custodians: Their names.
        epsilon: What the private step cost each site.
        delta: At this delta.
        noise_multiplier: Its noise.
        naive_bytes: What one site uploads in the naive pattern.
        upload_bytes: What one site uploads here.
        picture: The private picture of the site that is attacked.
        views: What each role saw here.
        naive_views: What each role saw in the naive pattern.
        attacks: Every attack.
        inversions: Every picture.
    """

    format: int
    version: str
    at: str
    sites: int
    values: int
    suite: str
    parameter_set: str
    key_agreement: str
    custodians: tuple[str, ...]
    epsilon: float
    delta: float
    noise_multiplier: float
    naive_bytes: int
    upload_bytes: int
    picture: tuple[tuple[float, ...], ...]
    views: tuple[View, ...]
    naive_views: tuple[View, ...]
    attacks: tuple[Attack, ...]
    inversions: tuple[Inversion, ...]

    @property
    def surprises(self) -> list[str]:
        """Verdicts that are not what is expected, in words; empty if all is well."""
        found = [
            f"{attack.title}, on {where}: {outcome.word}"
            for attack in self.attacks
            for where, outcome in (("the naive pattern", attack.naive), ("this", attack.here))
            if not outcome.as_expected
        ]
        return found + [
            f"gradient inversion of {one.source}: {one.outcome.word}"
            for one in self.inversions
            if not one.outcome.as_expected
        ]


def rows(picture: Picture) -> tuple[tuple[float, ...], ...]:
    """A picture as a record holds it, to three decimals."""
    return tuple(tuple(round(float(value), 3) for value in row) for row in picture)
