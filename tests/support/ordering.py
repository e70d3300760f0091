"""A pytest plugin: the tests that take longest begin first, so that the run does not end with one long test alone."""

from pathlib import Path

import pytest

FIRST = ("e2e", "contract", "simulator", "packaging")
TESTS = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """By kind of test; within a kind as they stand. Sorting is stable, so that a module stays together."""
    items.sort(key=lambda item: rank(item.path))


def rank(path: Path) -> int:
    """Position of a test file's kind."""
    kind = path.relative_to(TESTS).parts[0] if path.is_relative_to(TESTS) else ""
    return FIRST.index(kind) if kind in FIRST else len(FIRST)
