"""The wire contract, version 1: the messages between a Sandwich cluster and its consumers."""
