"""The wire contract, version 1: what travels between a Sandwich cluster and its consumers."""
