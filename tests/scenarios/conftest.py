"""`pytest tests/scenarios --rewrite` writes the transcripts again: commit that only when every change is understood."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", default=False, help="write the transcripts again")
