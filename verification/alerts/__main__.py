"""`python -m verification.alerts`: a drill for each alert.

Exit code 0: each fired and cleared as it has to; 1: one did not, or the run failed; 2: it cannot run.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Set

from sandwich_node.dev.embedded import EmbeddedServerError
from verification.alerts.drills import STAGES, drilled
from verification.alerts.field import DrillError
from verification.alerts.prometheus import is_installed
from verification.alerts.report import Outcome, table
from verification.alerts.run import run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="alert-check", description=__doc__)
    parser.add_argument("--only", action="append", choices=drilled(), metavar="NAME", help="this alert; repeatable")
    return parser.parse_args()


def main() -> int:
    """Entry point; returns the exit code."""
    wanted = set(_arguments().only or drilled())
    # Drills have handlers fail: a traceback for each event.
    logging.basicConfig(level=logging.CRITICAL)
    if not is_installed():
        print("alert-check needs Prometheus: install Debian's package prometheus", file=sys.stderr)
        return 2
    outcomes: list[Outcome] = []
    try:
        code = _run(wanted, outcomes)
    finally:
        # Also of a run that breaks off.
        outcomes.sort(key=lambda outcome: drilled().index(outcome.alert))
        done = {outcome.alert for outcome in outcomes}
        print(table(outcomes, [alert for alert in drilled() if alert in wanted - done]))
    return code or (0 if all(outcome.passed for outcome in outcomes) else 1)


def _run(wanted: Set[str], outcomes: list[Outcome]) -> int:
    for stage in STAGES:
        if not wanted & {alert for drill in stage.drills for alert in drill.alerts}:
            continue
        try:
            asyncio.run(run(stage, wanted, outcomes, lambda text: print(text, flush=True)))
        except KeyboardInterrupt:
            return 130
        except (EmbeddedServerError, DrillError) as error:
            print(f"{stage.name}: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
