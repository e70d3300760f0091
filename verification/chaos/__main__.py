"""`python -m verification.chaos`: faults against real processes. Exit code 0: no event lost or doubled."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from sandwich_coordinator.ranges import parse_ranges
from verification.chaos.measure import percentile
from verification.chaos.report import TARGETS_S, Result, table
from verification.chaos.run import run, write_json


def _seeds(text: str) -> list[int]:
    try:
        return parse_ranges(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="minutes of faults for each seed (default 2)")
    parser.add_argument("--seed", type=_seeds, default=[1], help="one seed or several: 1, 1-5, 2,7 (default 1)")
    parser.add_argument("--rate", type=float, default=2000.0, help="events a second over both bots (default 2000)")
    parser.add_argument("--plain", action="store_true", help="do not print a line for each fault")
    parser.add_argument("--strict", action="store_true", help="also fail when a time target is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    return parser.parse_args()


def _late(results: list[Result]) -> bool:
    return any(
        percentile([second for result in results for second in result.recoveries.get(name, [])], 0.95) > target
        for name, target in TARGETS_S.items()
    )


def main() -> int:
    """Entry point; returns the exit code."""
    arguments = _arguments()
    logging.basicConfig(level=logging.ERROR)
    results: list[Result] = []
    interrupted = False
    for seed in arguments.seed:
        try:
            say = (lambda text: None) if arguments.plain else (lambda text: print(text, flush=True))
            results.append(asyncio.run(run(seed, minutes=arguments.minutes, rate=arguments.rate, say=say)))
        except KeyboardInterrupt:
            interrupted = True
            break
        if not results[-1].correct:
            print(f"replay: make chaos ARGS='--minutes {arguments.minutes:g} --seed {seed}'", flush=True)
    print(table(results))
    if arguments.json:
        write_json(arguments.json, results)
    if interrupted:
        return 130
    return 0 if all(result.correct for result in results) and not (arguments.strict and _late(results)) else 1


if __name__ == "__main__":
    sys.exit(main())
