"""A drill for each alert: its cause, until it fires, and the end of the cause, until it clears."""
