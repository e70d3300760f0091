"""Starts a console script: the rest is imported under a handler that lets Ctrl-C end the program at once.

Only small parts of the standard library are imported here. A KeyboardInterrupt during an import would print a
traceback, or be swallowed by the imported module.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

EXIT_INTERRUPTED = 130
_Handler = Callable[[int, FrameType | None], object]


def main() -> None:
    """The console script `sandwich`."""
    start("sandwich_coordinator.cli.main")


def start(module: str) -> None:
    """Import a module and run its `main`. Ctrl-C outside `interruptible` work ends the process with code 130."""
    _replace(signal.default_int_handler, _leave)
    try:
        importlib.import_module(module).main()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    finally:
        # The interpreter's shutdown must not print a traceback either.
        _replace(signal.default_int_handler, _leave)


def interruptible() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt again, which asyncio.run turns into a cancellation."""
    _replace(_leave, signal.default_int_handler)


def _replace(old: _Handler, new: _Handler) -> None:
    # If we were started with SIGINT ignored (nohup, a background job), keep it ignored.
    if signal.getsignal(signal.SIGINT) is old:
        signal.signal(signal.SIGINT, new)


def _leave(number: int, frame: FrameType | None) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, RuntimeError):
            # RuntimeError: the signal came in the middle of a write to it.
            continue
    os._exit(EXIT_INTERRUPTED)
