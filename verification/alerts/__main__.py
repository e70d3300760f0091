"""`python -m verification.alerts`: a drill for each alert. Exit code 0: each fired and cleared; 2: it cannot run."""

import argparse
import asyncio
import logging
import sys

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
    for stage in STAGES:
        if not wanted & {alert for drill in stage.drills for alert in drill.alerts}:
            continue
        try:
            outcomes += asyncio.run(run(stage, wanted, lambda text: print(text, flush=True)))
        except KeyboardInterrupt:
            return 130
        except (EmbeddedServerError, DrillError) as error:
            print(f"{stage.name}: {error}", file=sys.stderr)
            return 2
    print(table(outcomes))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
