"""What may happen, by what it happens to. Each function changes the action's guild and yields what is told of it."""
