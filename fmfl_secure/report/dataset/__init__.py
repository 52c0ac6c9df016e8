"""The dataset report: all runs that a site's ledger has ever paid for, on one page.

    ledger, or its export -> DatasetRecord -> dataset.json, dataset.html

A run's report speaks of one run and all sites; this speaks of one site's data and all runs. It is
made at the site, or by its data-protection officer from an export, and needs no run: reports of
runs, where they are at hand, add what a ledger does not hold, such as refusals.
"""

from fmfl_secure.report.dataset.build import Source, open_source, read_reports, record_of
from fmfl_secure.report.dataset.page import render_dataset, write_dataset
from fmfl_secure.report.dataset.record import DatasetRecord

__all__ = [
    "DatasetRecord",
    "Source",
    "open_source",
    "read_reports",
    "record_of",
    "render_dataset",
    "write_dataset",
]
