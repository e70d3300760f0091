"""`python -m verification.deploy`: exit code 0: all is as promised; 1: not; 2: the check cannot run here."""

import argparse
import asyncio
import logging
import os
import signal
import sys

from verification.deploy import podman
from verification.deploy.run import Outcome, run
from verification.deploy.steps import STEPS

INTERRUPTED = 130


def _steps(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(STEPS)}")
    return names


def _arguments() -> argparse.Namespace:
    what = [f"{name}: {' '.join((step.__doc__ or '').split())}" for name, step in STEPS.items()]
    parser = argparse.ArgumentParser(
        prog="deploy-check", description="\n".join(what), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=_steps, default=list(STEPS), help="only these, as cut,roll (default: all)")
    parser.add_argument("--seconds", type=float, default=15.0, help="seconds of traffic after each step (default 15)")
    parser.add_argument("--rate", type=float, default=500.0, help="events a second over both bots (default 500)")
    parser.add_argument("--no-build", action="store_true", help="use the images of a run before")
    parser.add_argument("--keep", action="store_true", help="leave the containers running")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, flush=True)


async def _check(arguments: argparse.Namespace) -> Outcome:
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    assert this is not None, "it runs in a task"

    def stop() -> None:
        # Once: another one must not end the removal of the containers.
        if not this.cancelling():
            this.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    if not await podman.has_image(podman.BASE):
        _say("building the base image")
        await podman.build_base()
    if not await podman.has_image(podman.SERVERS):
        _say("building the image of the servers")
        await podman.build_servers()
    if not (arguments.no_build and await podman.has_image(podman.SANDWICH)):
        _say("building the project's image")
        await podman.build_sandwich()
    return await run(arguments.steps, seconds=arguments.seconds, rate=arguments.rate, keep=arguments.keep, say=_say)


def _report(outcome: Outcome) -> None:
    for name, result in outcome.results.items():
        _say(f"{name}: {result.tally}")
        for what, seconds in result.figures.items():
            _say(f"  {what}: {seconds:.1f} s")
    for trouble in outcome.failed:
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
    try:
        outcome = asyncio.run(_check(arguments))
    except asyncio.CancelledError:
        return INTERRUPTED
    _report(outcome)
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
