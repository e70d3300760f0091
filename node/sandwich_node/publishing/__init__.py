"""Where events go: frames, the per-shard chain in JetStream, and the queue in front of it."""
