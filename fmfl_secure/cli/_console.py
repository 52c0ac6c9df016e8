"""How commands speak: one line as it is, or a table of facts."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

console = Console()
errors = Console(stderr=True)


def say(text: str) -> None:
    """One line as it is: paths and digests keep whole, and brackets are no markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def facts(title: str, facts: dict[str, Any]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in facts.items():
        table.add_row(name, escape(str(value)))
    console.print(table)
