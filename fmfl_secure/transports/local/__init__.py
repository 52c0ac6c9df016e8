"""The embedded engine: all parties on one machine, as separate objects with separate keys."""

import logging

# What goes wrong is told by errors and the observer; a log is written where one is set up.
logging.getLogger("fmfl_secure").addHandler(logging.NullHandler())
