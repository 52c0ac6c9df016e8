"""A hospital's program with something wrong in it: `fmfl-secure join`, but for one thing.

    python examples/keynote/mishap.py dies hospital-2 --round 3
    python examples/keynote/mishap.py scales hospital-4 --round 5

`dies`: the machine loses power when it has uploaded a round's update and is to open its mask.
`scales`: every value it trained is sent fifty times as large, as far as the grid reaches.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import numpy as np

from aggregation import SiteAttempt
from fmfl_secure.cli import main as fmfl_secure

_FACTOR = 50


def dies(at: int) -> None:
    """End this process, as a power cut does, where it would open its mask of a round."""
    opening = SiteAttempt.open

    def cut(self: SiteAttempt, *arguments, **named):
        if self.plan.round == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return opening(self, *arguments, **named)

    SiteAttempt.open = cut


def scales(at: int) -> None:
    """Send updates that are larger than any honest one, from a round on."""
    upload = SiteAttempt.upload

    def larger(self: SiteAttempt, cohort, integers, *more):
        if self.plan.round >= at:
            limit = 2 ** (self.plan.quantization.bits - 1) - 1
            integers = np.clip(_FACTOR * integers, -limit, limit)
        return upload(self, cohort, integers, *more)

    SiteAttempt.upload = larger


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mishap", choices=["dies", "scales"])
    parser.add_argument("kit", type=Path)
    parser.add_argument("--round", type=int, required=True)
    arguments = parser.parse_args()
    {"dies": dies, "scales": scales}[arguments.mishap](arguments.round)
    sys.argv = ["fmfl-secure", "join", str(arguments.kit), "--once"]
    fmfl_secure()


if __name__ == "__main__":
    main()
