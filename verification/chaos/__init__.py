"""Faults against real processes: `make chaos ARGS="--minutes 5 --seed 1"`; see docs/reference/chaos.md."""
