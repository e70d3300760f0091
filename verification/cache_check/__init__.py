"""Compares the cache in Redis with the simulator's own state, after random traffic and faults."""
