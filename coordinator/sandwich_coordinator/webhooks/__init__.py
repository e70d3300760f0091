"""Webhooks: what happens in a cluster, sent to a Discord channel or an HTTP server."""
