"""The demonstration in a terminal: what each role saw, then attack after attack."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fmfl_secure.demonstration.findings import Demonstration, Outcome, View


def tell(found: Demonstration, console: Console) -> None:
    """Tell it.

    Args:
        found: What was found.
        console: Where.
    """
    for title, views in (("Here", found.views), ("The naive pattern", found.naive_views)):
        console.print(f"\n[bold]{title}: what each role saw[/bold]")
        for view in views:
            _tell_view(view, console)
    attacks = Table(
        "attack", "naive pattern", "this protocol", title="Attacks", title_justify="left"
    )
    for attack in found.attacks:
        attacks.add_row(escape(attack.title), _outcome(attack.naive), _outcome(attack.here))
    console.print()
    console.print(attacks)
    pictures = Table("gradient inversion of", "likeness", "private picture", title_justify="left")
    for one in found.inversions:
        pictures.add_row(escape(one.source), f"{one.likeness:.3f}", _word(one.outcome))
    console.print(pictures)


def _tell_view(view: View, console: Console) -> None:
    console.print(f"\n[bold]{escape(view.role)}[/bold] holds {escape(view.holds)}", highlight=False)
    for seen in view.seen:
        size = f", {seen.size_bytes:,} bytes" if seen.size_bytes else ""
        console.print(f"  {escape(seen.what)}{size}", highlight=False)
        console.print(f"    {escape(seen.shown)}", style="cyan", highlight=False)
    console.print(f"  cannot tell: {escape(view.cannot)}", highlight=False)


def _outcome(outcome: Outcome) -> str:
    return f"{_word(outcome)}: {escape(outcome.got)} ({escape(outcome.figure)})"


def _word(outcome: Outcome) -> str:
    colour = "red" if outcome.succeeded else "green"
    note = "" if outcome.as_expected else " (not expected)"
    return f"[{colour}]{outcome.word}{note}[/{colour}]"
