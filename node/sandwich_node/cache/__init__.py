"""The cache writer: from events to changes in Redis, and the values that they replace."""
