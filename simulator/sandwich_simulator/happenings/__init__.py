"""What may happen, by what it happens to. Each function changes the scene's guild and yields what is told of it."""
