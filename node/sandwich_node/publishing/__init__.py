"""The way of events out of a shard: its queue, frames, and the chain in the event log."""
