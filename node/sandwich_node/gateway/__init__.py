"""The gateway protocol of one shard, as values in and values out: no socket, clock or randomness of its own."""
