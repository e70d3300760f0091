"""`make scale ARGS="--shards 10000 --nodes 100 --apps 20"`: a large cluster on virtual time, as a table.

The bars: the longest plan takes at most 100 ms of CPU time, and etcd gets at most 500 writes in any second. Wall time
would measure what else the machine does. CPU time still grows with that, through shared caches and cores: the same plan
took up to four times as long on a busy machine.
"""

import argparse
import gc
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import fields

from verification.scale.scenarios import Row, Run, Size
from verification.simulation.loop import run_virtual

PLAN_MS_MAX = 100.0
WRITES_MAX = 500
HEAD = (
    "| scenario | virtual s | RESUMEs | IDENTIFYs | writes | peak/s | keys | MB written | largest value / request | "
    "MB listed | plan ms max (n) | leader ms p50 / max (n) |"
)


def main() -> int:
    """Exit code 0: all bars are held; 1: one is not, or something happened that Discord refuses."""
    parser = argparse.ArgumentParser(prog="python -m verification.scale", description=__doc__)
    for each in fields(Size):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=int, default=each.default)
    parser.add_argument(
        "--kinds", action="store_true", help="also print the writes by kind, of all and of the busiest second"
    )
    options = vars(parser.parse_args())
    with_kinds = options.pop("kinds")
    size = Size(**options)
    logging.disable(logging.CRITICAL)
    # Most objects live long, and looking at them all again takes most of the time.
    gc.set_threshold(100_000, 50, 1000)
    rows: list[Row] = []

    def report(row: Row) -> None:
        rows.append(row)
        print(_line(row), flush=True)
        if with_kinds:
            print(f"    all: {_listed(row.kinds)}\n    busiest second: {_listed(row.busiest)}", flush=True)

    print(f"{size.of_app * size.apps} shards of {size.apps} applications on {size.nodes} nodes\n")
    print(f"{HEAD}\n{'|---' * HEAD.count(' | ')}|---|", flush=True)
    began = time.process_time()

    async def work() -> None:
        await Run(size, report).run()

    run_virtual(work())
    print(f"\nthe run took {time.process_time() - began:.0f} s of CPU")
    broken = [
        *(f"{row.name}: {row.peak} writes in one second" for row in rows if row.peak > WRITES_MAX),
        *(f"{row.name}: a plan took {row.plan_ms:.0f} ms" for row in rows if row.plan_ms > PLAN_MS_MAX),
        *(f"{row.name}: {row.broken} violations of Discord's rules" for row in rows if row.broken),
    ]
    for line in broken:
        print(f"NOT HELD: {line}")
    return 1 if broken else 0


def _listed(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _line(row: Row) -> str:
    median, most = row.decision_ms
    cells = (
        row.name,
        f"{row.seconds:.1f}",
        f"{row.moves:,}",
        f"{row.identifies:,}",
        f"{row.writes:,}",
        f"{row.peak:,}",
        f"{row.keys:,}",
        f"{row.bytes / 1e6:.1f}",
        f"{row.largest:,} / {row.largest_request:,}",
        f"{row.list_bytes / 1e6:.0f}",
        f"{row.plan_ms:.0f} ({len(row.plans)})",
        f"{median:.1f} / {most:.0f} ({len(row.decisions)})",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of strings depends on their hashes: equal runs need the same hashes.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "verification.scale", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
