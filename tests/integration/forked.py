"""Processes that are forked from a server which imported the product once, so that each is cheap.

Forking the test process itself would copy its threads.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from unittest import mock

PRELOADED = ["killer", "processes", "fmfl_secure.transports.https.server"]


def start(target: Callable[..., None], *args: object, name: str | None = None) -> BaseProcess:
    """Start a function of a module of the tests, with these arguments, in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=target, args=args, name=name)
    # The server is started by the first process, does not take over sys.path (Python 3.11), finds
    # nothing to preload without it, and says nothing: every process would then import all of it.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        process.start()
    return process
