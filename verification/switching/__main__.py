"""`python -m verification.switching`: one shard count after another, under load. Exit code 0: every event once."""

import argparse
import asyncio
import logging
import sys

from verification.switching.run import Options, report_lines, run


def _arguments() -> Options:
    parser = argparse.ArgumentParser(prog="switching", description=__doc__)
    parser.add_argument("--switches", type=int, default=5, help="changes of the shard count (default 5)")
    parser.add_argument("--rate", type=float, default=2000.0, help="events a second (default 2000)")
    parser.add_argument("--seed", type=int, default=1, help="of the counts, the traffic and the faults (default 1)")
    parser.add_argument("--shards-max", type=int, default=9, help="largest shard count (default 9)")
    parser.add_argument("--lag", type=float, default=0.0, help="seconds by which a session may be behind (default 0)")
    parser.add_argument("--faults", action="store_true", help="kill workers and nodes, and drop sockets, meanwhile")
    found = parser.parse_args()
    return Options(found.switches, found.rate, found.seed, found.shards_max, found.lag, found.faults)


def main() -> int:
    """Entry point; returns the exit code."""
    options = _arguments()
    logging.basicConfig(level=logging.ERROR)
    result = asyncio.run(run(options, say=lambda text: print(text, flush=True)))
    print("\n".join(report_lines(result)))
    return 0 if result.correct else 1


if __name__ == "__main__":
    sys.exit(main())
