"""The whole drill: the machines, the steps with a count after each, and everything removed at the end."""

import asyncio
import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import nats.errors

from sandwich_sdk.errors import ConsumerError
from verification.deploy import podman
from verification.deploy.deployment import APPS, Deployment, NotSo, Result, Say
from verification.deploy.steps import STEPS

START = "start"


@dataclass(slots=True)
class Outcome:
    """What was measured and counted in each step, and what failed."""

    results: dict[str, Result] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


async def run(steps: Sequence[str], *, seconds: float, rate: float, keep: bool, say: Say) -> Outcome:
    """Run these steps. Everything is removed at the end, also when it fails or is cancelled, unless `keep`."""
    outcome = Outcome()
    await podman.remove_all()
    deployment = Deployment(Path(tempfile.mkdtemp(prefix=podman.DIRECTORY)), rate, say)
    consuming: list[asyncio.Task[None]] = []
    try:
        await _drill(deployment, steps, seconds, consuming, outcome)
    except (NotSo, TimeoutError, OSError, podman.CommandFailed, aiohttp.ClientError, nats.errors.Error) as error:
        outcome.failed.append(str(error) or type(error).__name__)
        with contextlib.suppress(TimeoutError, OSError, podman.CommandFailed):
            say(await deployment.logs())
    except ConsumerError as error:
        outcome.failed.append(f"a consumer ended: {error}")
    finally:
        for task in consuming:
            task.cancel()
        await asyncio.gather(*consuming, return_exceptions=True)
        if keep:
            say(f"kept: {deployment.directory}")
        else:
            say("removing everything")
            await podman.remove_all()
    return outcome


async def _drill(
    deployment: Deployment,
    steps: Sequence[str],
    seconds: float,
    consuming: list[asyncio.Task[None]],
    outcome: Outcome,
) -> None:
    for number, name in enumerate((START, *steps)):
        deployment.result = outcome.results[name] = Result()
        deployment.say(f"step {number} of {len(steps)}: {name}")
        if name == START:
            await deployment.start()
            consuming += [asyncio.create_task(deployment.consume(app)) for app in APPS]
        else:
            await STEPS[name](deployment)
        await asyncio.sleep(seconds)
        for task in consuming:
            if task.done():
                task.result()
                raise NotSo("a consumer ended")
        deployment.say(f"  counted: {await deployment.count()}")
