"""Fixtures of the simulator's own tests."""

from sandwich_simulator.pytest_plugin import make_simulator

__all__ = ["make_simulator"]
