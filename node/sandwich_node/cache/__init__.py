"""The cache writer: what an event changes in Redis, and the value it replaced."""
