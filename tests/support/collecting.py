"""A pytest plugin: Python's garbage collector leaves alone what lives as long as the run.

Collected tests and their modules are some million objects. To look through them again and again takes a tenth of the
time of a run.
"""

import gc
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
