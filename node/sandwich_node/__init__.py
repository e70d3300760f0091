"""The node: agent, workers, gateway shards and the way of their events into the stream."""
