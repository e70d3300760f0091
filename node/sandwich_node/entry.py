"""Where the console script `sandwich-node` starts: see sandwich_coordinator.cli.entry."""

from sandwich_coordinator.cli.entry import start


def main() -> None:
    """The console script."""
    start("sandwich_node.main")
