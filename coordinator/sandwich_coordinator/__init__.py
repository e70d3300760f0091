"""The control plane: store, election, membership, planner, identify scheduling and the `sandwich` command."""
