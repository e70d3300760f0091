"""Answers consumers' requests: questions about the cache, and commands that a shard sends to Discord."""
