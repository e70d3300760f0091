"""The steps of the drill: each is what happens to machines or what an operator does, and what the status says then."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType

from verification.deploy import podman
from verification.deploy.deployment import APPS, RECOVERY_S, SMALL_DISK, Deployment, NotSo
from verification.deploy.podman import Machine

GONE = ("node-gone", "etcd-member-unreachable", "stream-replicas-missing")
"""What the status says of a machine that is not there any more."""
DOWN_S = 15.0
"""How long a machine is without power: longer than a lease, so that the others take over."""
CUT_S = 30.0
FULL_S = 30.0

Step = Callable[[Deployment], Awaitable[None]]


async def power(on: Deployment) -> None:
    """Every process of the machine with the Redis master ends at once, and starts again after a while."""
    machine = await on.redis_master()
    on.say(f"power cut of machine {machine.name}, which has the Redis master")
    began = time.monotonic()
    await machine.cut_power()
    await on.says(on.another(machine), GONE)
    await asyncio.sleep(began + DOWN_S - time.monotonic())
    await machine.start()
    await on.as_before("power back to all as before", at=on.another(machine))


async def restart(on: Deployment) -> None:
    """Every service of the machine whose NATS leads a stream is stopped in order, and started."""
    machine = await on.stream_leader()
    on.say(f"restart of machine {machine.name}, whose NATS leads the stream")
    await machine.stop()
    at = on.another(machine)
    await on.says(at, [code for code in GONE if code != "node-gone"])
    if "node-gone" in (status := await on.status(at)).problems:
        raise NotSo(f"a node that was stopped in order is said to be gone: {status}")
    await machine.start()
    await on.as_before("restart to all as before", at=at)


async def cut(on: Deployment) -> None:
    """No packet passes to or from the machine of the leading node for 30 s."""
    at = on.machines["b"]
    _, status = await on.until("a node leads", at, lambda status: status.leader in on.machines, RECOVERY_S)
    machine = on.machines[status.leader]
    on.say(f"machine {machine.name}, whose node leads, is cut off from the network for {CUT_S:.0f} s")
    began = time.monotonic()
    await machine.cut_network()
    try:
        await on.says(on.another(machine), GONE)
        code = (await on.status(machine)).code
        on.note(f"on {machine.name} itself: exit code {code}")
        if code != 2:
            raise NotSo(f"the status on a machine that is cut off ends with {code}, not with 2: unknown")
        await asyncio.sleep(began + CUT_S - time.monotonic())
    finally:
        await machine.join_network()
    await on.as_before("network back to all as before", at=on.another(machine))


async def disk(on: Deployment) -> None:
    """The disk with the data of etcd, NATS and Redis is full for 30 s, on the machine whose NATS leads the streams."""
    machine = on.machines[SMALL_DISK]
    await on.lead_streams(machine)
    on.say(f"the disk of machine {machine.name}, whose NATS leads the streams, is full")
    await machine.fill_disk()
    began = time.monotonic()
    await on.says(on.another(machine), ["stream-replicas-missing"])
    if "no space left on device" not in await machine.log("nats", 100):
        raise NotSo("the NATS server does not log that its disk is full")
    await asyncio.sleep(began + FULL_S - time.monotonic())
    on.say(f"  there is space again; NATS of machine {machine.name} is restarted, as the advice says")
    machine.free_disk()
    await machine.restart("nats")
    await on.as_before("space again to all as before", at=on.another(machine))


async def roll(on: Deployment) -> None:
    """Every node, one after another, comes back from a new image, as operations.md describes it."""
    on.say("a new image for every node, one after another")
    version = await podman.build_next()
    for machine in on.machines.values():
        machine.use_image(podman.NEXT)
        seen: set[str] = set()
        watching = asyncio.create_task(_watch(on, on.another(machine), seen))
        try:
            await machine.up("node")
            status = await on.as_before(f"node {machine.name} from the new image to all as before", at=machine)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        on.note(f"meanwhile: {', '.join(sorted(seen)) or 'no problem'}")
        if status.nodes[machine.name]["version"] != version or "node-gone" in seen:
            raise NotSo(f"node {machine.name} did not come back as {version}, or did not leave in order: {status}")


async def _watch(on: Deployment, at: Machine, seen: set[str]) -> None:
    while True:
        seen |= (await on.status(at)).problems
        await asyncio.sleep(0.2)


async def add(on: Deployment) -> None:
    """A machine with only a node joins, by the commands of deploy/README.md."""
    machine = on.fourth
    on.say(f"machine {machine.name} is added")
    began = time.monotonic()
    await on.copy_to(machine)
    lines = (f"SANDWICH_NODE_ID={machine.name}", f"SANDWICH_ADDRESS={machine.address}")
    (machine.directory / ".env").write_text("\n".join(lines) + "\n")
    await machine.create()
    await machine.up()
    on.machines[machine.name] = machine

    share = sum(APPS.values()) // len(on.machines)
    await on.until(
        f"shards move to machine {machine.name}",
        on.machines["b"],
        lambda status: status.nodes.get(machine.name, {}).get("shards", 0) >= share,
    )
    await on.as_before("all as before, with four machines")
    on.result.figures["first command to its share of the shards live"] = time.monotonic() - began


async def remove(on: Deployment) -> None:
    """The fourth machine is drained, stopped and forgotten."""
    machine, at = on.fourth, on.machines["b"]
    if machine.name not in on.machines:
        await add(on)
    on.say(f"machine {machine.name} is removed: drain, down, forget")
    began = time.monotonic()
    await _done(on, at, "node", "drain", machine.name)
    _, status = await on.until(
        "the drained node has no shards",
        at,
        lambda status: not status.nodes.get(machine.name, {"shards": 1})["shards"] and dict(status.live) == APPS,
        RECOVERY_S,
    )
    on.note(f"drained: {status}")
    if status.code != 0:
        raise NotSo(f"a node that an operator drained degrades the cluster: {status}")
    await machine.compose("down")
    del on.machines[machine.name]
    await on.as_before("down to all as before, with three machines")
    await _done(on, at, "node", "forget", machine.name)
    on.result.figures["drain to forgotten"] = time.monotonic() - began
    await on.as_before("after forget")
    await machine.remove()


async def _done(on: Deployment, at: Machine, *words: str) -> None:
    code, text = await at.sandwich(*words)
    on.note(f"sandwich {' '.join(words)}: exit code {code}; {' / '.join(text.split(chr(10))[-4:]).strip(' /')}")
    if code:
        raise NotSo(f"sandwich {' '.join(words)} ended with {code}: {text}")


STEPS: Mapping[str, Step] = MappingProxyType(
    {step.__name__: step for step in (power, restart, cut, disk, roll, add, remove)}
)
"""By name, in the order in which they run."""
