"""The privacy-budget report: what was promised, what was spent, what is left, who saw what.

    json_path, html_path = write_report(record, folder)

`report.json` is the run's record; `report.html` is one page made from it and nothing else: no
script, no external request, the same bytes for the same record. It is written for a
data-protection officer, so it says in plain words what a number does *not* promise, and it rounds
against the people in the data: what is spent up, what is left down.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmfl_secure.report.page import render_html
    from fmfl_secure.report.write import write_report

__all__ = ["render_html", "write_report"]


def __getattr__(name: str) -> Any:
    # On first use: a page brings PyTorch and matplotlib with it, and what an epsilon means neither.
    if name == "render_html":
        from fmfl_secure.report import page  # noqa: PLC0415

        return page.render_html
    if name == "write_report":
        from fmfl_secure.report import write  # noqa: PLC0415

        return write.write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
