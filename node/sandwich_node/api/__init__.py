"""The HTTP API (`/api/v1`): one table of routes over the operations."""
