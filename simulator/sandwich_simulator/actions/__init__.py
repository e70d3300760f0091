"""The actions, grouped by what they change. Each function changes the guild and yields the resulting events."""
