"""Settings of sites that may vanish after their upload, and what follows from them."""

from __future__ import annotations

import msgspec

from aggregation.protocol import MAX_SHARED, Vanishing, openings_for


def openings(vanished: int, everyone: int, colluding: int) -> int:
    """The fewest openings that a sum opens with, whatever its cohort; 0 where none may vanish.

    Args:
        vanished: How many sites of a cohort may, by the settings.
        everyone: Sites that there are.
        colluding: How many of them may collude.
    """
    return openings_for(everyone, colluding) if vanished else 0


def vanishing(vanished: int, everyone: int, colluding: int) -> Vanishing | msgspec.UnsetType:
    """The same for a plan."""
    if not vanished:
        return msgspec.UNSET
    return Vanishing(vanished, openings(vanished, everyone, colluding))


def check(vanished: int, everyone: int, colluding: int) -> None:
    """Refuse settings by which fewer may vanish than they say, even of all sites.

    Raises:
        ValueError: Too many, or too many sites.
    """
    if not vanished:
        return
    if everyone > MAX_SHARED:
        raise ValueError(
            f"federation.vanished_sites is {vanished}, and {everyone} sites are listed: expected "
            f"0 with more than {MAX_SHARED}"
        )
    most = everyone - openings(vanished, everyone, colluding)
    if vanished > most:
        raise ValueError(
            f"federation.vanished_sites is {vanished}, expected {max(0, most)} at most: of "
            f"{everyone} sites, {colluding} of which may collude (privacy.colluding_sites), "
            f"{everyone - max(0, most)} have to open, or two sums of a round could be opened and "
            "subtracted"
        )


def in_words(vanished: int, everyone: int, smallest: int, colluding: int) -> list[str]:
    """Explains the settings to people; nothing where none may vanish."""
    if not vanished:
        return []
    needed = openings(vanished, everyone, colluding)
    least = min(vanished, smallest - needed)
    said = f"{vanished} of {everyone} sites"
    if least < vanished:
        said += f", and {least or 'none'} of {smallest}"
    told = (
        f"after their upload, {said} may vanish: a sum opens, with their updates in it, once "
        f"{needed} sites have opened, or more of a larger cohort. Whoever picks cohorts opens no "
        f"two sums of a round while {2 * needed - everyone - 1} sites at most collude with "
        "coordinator, aggregator and decryptor; where all have to open, while two do not. "
        f"colluding_sites can be {everyone - 2 * vanished - 1} at most with so many that vanish"
    )
    return [told]
