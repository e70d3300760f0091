"""`make cache-check ARGS="--events 200000 --seed 1"`.

Exit code 1 when the cache differs from the simulator's state, or an event was lost, doubled or out of order.
"""

import argparse
import asyncio
import sys

from verification.cache_check.run import Options, Outcome, run


def _table(outcome: Outcome) -> str:
    lines = [f"{outcome.events} events in {outcome.seconds:.0f} s; {outcome.delivery}", ""]
    lines += [f"{'entity':19} {'compared':>9} {'different':>9}"]
    comparison = outcome.comparison
    for kind in sorted(comparison.compared):
        lines.append(f"{kind:19} {comparison.compared[kind]:>9} {comparison.different[kind]:>9}")
    if comparison.left_out:
        lines.append(f"left out, because in an outage since the cache's resync: {comparison.left_out} guilds")
    lines += ["", *comparison.examples]
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="cache-check", description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guilds", type=int, default=200)
    parser.add_argument("--no-faults", action="store_true")
    parser.add_argument(
        "--discord-py", action=argparse.BooleanOptionalAction, default=True, help="compare discord.py's cache too"
    )
    parser.add_argument("--shared", action="store_true", help="two applications in one namespace")
    given = parser.parse_args()
    options = Options(
        events=given.events,
        seed=given.seed,
        guilds=given.guilds,
        faults=not given.no_faults,
        shared=given.shared,
        discord_py=given.discord_py,
    )
    outcome = asyncio.run(run(options, print))
    print(_table(outcome))
    sys.exit(0 if outcome.clean else 1)


if __name__ == "__main__":
    main()
