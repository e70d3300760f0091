"""The cache in Redis held against the simulated Discord's own state, after random traffic and faults."""
