"""The whole control plane in one process on virtual time, with faults from a seed; see docs/reference/simulation.md."""
