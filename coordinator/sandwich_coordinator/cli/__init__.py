"""The `sandwich` command. `main` and `*_commands` are light; what a command works with is imported when it runs."""
