"""`fmfl-secure demo aggregation`: what each role sees, and attacks on two ways to sum in secret.

    site's picture -> update -> the naive pattern  -> attacks, which succeed
                             -> this protocol      -> the same attacks, which fail

Every role, key and byte is real, every attack is carried out, and every verdict is computed from
what it got. Each attack stands in a file of its own; the tests in `tests/attacks` call the same
code.
"""

from fmfl_secure.demonstration.findings import Demonstration
from fmfl_secure.demonstration.page import render_page
from fmfl_secure.demonstration.run import demonstrate

__all__ = ["Demonstration", "demonstrate", "render_page"]
