"""A run's metrics and report, by a process of its own: `python -m fmfl_secure.report.child`.

Plots and accounts take libraries that a server need not keep in memory (`runtime.results_apart`).
Standard input has a `Request` as JSON, standard output gets an `Outcome`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from fmfl_secure.errors import ANY_FAILURE, is_passing, said
from fmfl_secure.report.results import write_results
from fmfl_secure.run.record import encode_record
from fmfl_secure.run.results_request import Outcome, Request
from fmfl_secure.storage.run_store import RunStore


def main() -> None:
    """Write the results of the run that standard input names."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    try:
        record = write_results(RunStore(Path(request.folder), database=request.database))
        outcome = Outcome(record=encode_record(record))
    except ANY_FAILURE as error:
        hint = getattr(error, "hint", "")
        outcome = Outcome(error=said(error), hint=hint, passing=is_passing(error))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main()
