"""A federation beside its baselines: what privacy, and what working together, are worth.

    arms        the rows of the table, as changes of the federation's settings
    sources     the sites' data, read once
    partitions  as the sites' files have them, or shared out anew by label
    simulate    all rounds of one arm, in one process and in the clear
    scores      what is measured of a trained model
    rows        lines of a file, appended as they come
    compare     adapters x arms x privacy targets x seeds x partitions
    summary     means and spreads, as a table

Most baselines train without privacy or pool what may not be pooled, so only data declared public
are compared on, and no ledger is opened. What is released to the next round is the same integer
sum that secure aggregation opens, which is exact; leaving out encryption changes no figure.
"""

from __future__ import annotations

from fmfl_secure.comparison.arms import ARMS
from fmfl_secure.comparison.compare import compare
from fmfl_secure.comparison.rows import OWN, Comparison, Refusal, Row, read_rows
from fmfl_secure.comparison.summary import Summary, summarise

__all__ = [
    "ARMS",
    "OWN",
    "Comparison",
    "Refusal",
    "Row",
    "Summary",
    "compare",
    "read_rows",
    "summarise",
]
