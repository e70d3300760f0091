"""`make sim SEED=1 COUNT=200`: many seeds on all cores; a failing seed prints the command that replays it."""

import argparse
import logging
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from verification.simulation.run import Outcome, simulate
from verification.simulation.scaling import simulate_scaling

JOURNAL_LINES = 40


def main() -> int:
    """Exit code 0: no violation; 1: a violation."""
    parser = argparse.ArgumentParser(prog="python -m verification.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=200, help="how many seeds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--scaling", action="store_true", help="change shard counts among the faults")
    options = parser.parse_args()
    simulated = simulate_scaling if options.scaling else simulate
    began = time.perf_counter()
    seeds = range(options.seed, options.seed + options.count)
    failed: list[int] = []
    faults: Counter[str] = Counter()
    events = identifies = 0
    virtual_s = 0.0
    with ProcessPoolExecutor(max_workers=options.jobs, initializer=_be_quiet) as pool:
        for outcome in pool.map(simulated, seeds, chunksize=4):
            faults += outcome.faults
            events += outcome.events
            identifies += outcome.identifies
            virtual_s += outcome.virtual_s
            if outcome.violations:
                failed.append(outcome.seed)
                _report(outcome, "sim-scaling" if options.scaling else "sim")
    took = time.perf_counter() - began
    print(f"{len(seeds)} seeds, {virtual_s / 3600:.1f} virtual hours in {took:.0f} s ({len(seeds) / took:.1f} seeds/s)")
    print(f"{events} events, {identifies} IDENTIFYs, {faults.total()} faults:")
    for name, count in sorted(faults.items()):
        print(f"  {count:6d}  {name}")
    print(f"FAILED: seeds {', '.join(map(str, failed))}" if failed else "nothing violated")
    return 1 if failed else 0


def _be_quiet() -> None:
    logging.disable(logging.CRITICAL)


def _report(outcome: Outcome, target: str) -> None:
    print(f"seed {outcome.seed}:")
    for line in outcome.violations:
        print(f"  {line}")
    print("  the journal's end:")
    for line in outcome.journal[-JOURNAL_LINES:]:
        print(f"    {line}")
    print(f"  replay: make {target} SEED={outcome.seed} COUNT=1")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of strings depends on their hashes: a replay needs the same hashes.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "verification.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
