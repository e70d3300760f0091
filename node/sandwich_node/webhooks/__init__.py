"""The node's part in webhooks: the leader's node sends."""
