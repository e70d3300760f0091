"""Shells around the shard protocol: websocket, publishing, hand-over."""
