"""What an operator can do with a cluster, for every front end: the command line, the HTTP API, the simulation.

An operation takes a store and typed arguments, returns typed results, reports its progress as typed events
(`progress`) and raises typed errors (`errors`). It prints nothing and knows no exit codes.
"""
