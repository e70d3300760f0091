"""`python -m verification.deploy`: exit code 0 when no event was lost or doubled, 2 when the check cannot run here."""

import argparse
import asyncio
import logging
import os
import sys

from verification.deploy import podman
from verification.deploy.run import Outcome, run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy-check", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds of traffic before each fault (default 20)")
    parser.add_argument("--rate", type=float, default=200.0, help="events a second over both bots (default 200)")
    parser.add_argument("--no-build", action="store_true", help="use the images of a run before")
    parser.add_argument("--keep", action="store_true", help="leave the containers running")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, flush=True)


async def _check(arguments: argparse.Namespace) -> Outcome:
    if not await podman.has_image(podman.BASE):
        _say("building the base image")
        await podman.build_base()
    if not await podman.has_image(podman.SERVERS):
        _say("building the image of the servers")
        await podman.build_servers()
    if not (arguments.no_build and await podman.has_image(podman.SANDWICH)):
        _say("building the project's image")
        await podman.build_sandwich()
    return await run(seconds=arguments.seconds, rate=arguments.rate, keep=arguments.keep, say=_say)


def _report(outcome: Outcome) -> None:
    for app, verdict in outcome.verdicts.items():
        group = outcome.groups.get(app)
        _say(
            f"{app}: {verdict.owed} events owed by Discord; in the stream {verdict.lost} lost, "
            f"{verdict.doubled} doubled, {verdict.out_of_order} out of order"
        )
        if group is not None:
            _say(f"{app}: the group missed {group.lost} and got {group.doubled} again")
    _say(f"gaps: {outcome.gaps}")
    for what, seconds in outcome.figures.items():
        _say(f"{what}: {seconds:.1f} s")
    for trouble in outcome.unrecovered:
        _say(f"FAILED: {trouble}")


def main() -> int:
    """Entry point; returns the exit code."""
    arguments = _arguments()
    logging.basicConfig(level=logging.ERROR)
    # A server that is being restarted ends handshakes; the client tries the next one.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    wanted = podman.missing()
    if os.geteuid() != 0 or wanted:
        _say(f"needs root, and: {', '.join(wanted) or 'nothing else'}")
        return 2
    outcome = asyncio.run(_check(arguments))
    _report(outcome)
    return 0 if outcome.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
