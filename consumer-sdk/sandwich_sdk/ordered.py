"""One worker of an ordered group: it finds partitions and other workers, and pulls its share of the partitions.

The decisions are in `partitioning` and, for a `switch` frame, in `switching`. Workers announce themselves once a second
with plain NATS messages. A worker that receives no message from others requests all partitions: the load is uneven
then, and the order is still kept.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from sandwich_sdk.backoff import Backoff
from sandwich_sdk.cancellation import honour_cancel
from sandwich_sdk.delivery import Delivery, Intake
from sandwich_sdk.errors import LOST, reason
from sandwich_sdk.groups import Group, SourceOptions
from sandwich_sdk.partitioning import GroupMembership, Heartbeat, partition_durable, partition_of, partitions_in
from sandwich_sdk.pull_consumer import RETRY_FIRST_S, RETRY_MAX_S, AckAddress, AckFloor, PullConsumer
from sandwich_sdk.switching import Switches, old_chains
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.headers import UNREADABLE, WireError
from sandwich_sdk.wire.switch import Switch

_log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
DISCOVER_S = 10.0
BUSY_AFTER_S = 2.0
"""A worker is busy when a frame has waited here for so long and no handler was free to begin with it."""
FRAMES_PER_REQUEST = 256
"""Frames that one pull request brings, one after another."""
DRAIN_S = 0.2
"""A frame that the server sends while we leave arrives within this time, and is handed back."""
END_TIMEOUT_S = 5.0
POLL_FIRST_S = 0.05
POLL_MAX_S = 1.0
"""A partition that a `switch` frame waits for is asked for its state so often."""
WAIT_LOGGED_S = 60.0

OnDelivery = Callable[[AckFloor, Msg, AckAddress], Awaitable[None]]


class OrderedGroup:
    """Reads one application's partitions together with the other workers, until it is cancelled."""

    def __init__(
        self,
        client: Client,
        jetstream: JetStreamContext,
        options: SourceOptions,
        app: str,
        *,
        intake: Intake,
        take: OnDelivery,
    ) -> None:
        self._client = client
        self._jetstream = jetstream
        self._options = options
        self._app = app
        self._stream = subjects.stream_name(app)
        self._subject = subjects.workers_subject(app, options.group)
        self._intake = intake
        self._take = take
        self._group = Group(jetstream, options, app)
        self._membership = GroupMembership(secrets.token_hex(8))
        self._ack_floors: dict[int, AckFloor] = {}
        self._pulls: dict[int, tuple[PullConsumer, asyncio.Task[None]]] = {}
        self._switches = Switches()
        self._polls: dict[int, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Raises GroupConflict."""
        heartbeats = await self._client.subscribe(self._subject, cb=self._on_heartbeat)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._discover())
                tasks.create_task(self._send_heartbeats())
                try:
                    while True:
                        honour_cancel()
                        self._changed.clear()
                        await self._update_pulls(tasks)
                        self._update_polls(tasks)
                        await self._changed.wait()
                finally:
                    await self._drain_requests()
        finally:
            try:
                async with asyncio.timeout(END_TIMEOUT_S):
                    await self._send_heartbeat(left=True)
                    await heartbeats.unsubscribe()
            except LOST as error:
                _log.debug("the other workers were not notified that this one leaves: %s", type(error).__name__)

    async def _discover(self) -> None:
        """Look for new shards in the stream."""
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S)
        while True:
            try:
                await self._group.ensure_anchor()
                # On every lane: an upcoming group's shards are found before the first frame on ours.
                lanes = subjects.lane_filter(self._app, subjects.EVERY_LANE)
                found = (await self._jetstream.stream_info(self._stream, subjects_filter=lanes)).state.subjects
            except LOST as error:
                if not backoff.failures:
                    _log.warning("waiting for events of %s: %s", self._app, reason(error))
                honour_cancel()
                await asyncio.sleep(backoff.next_s())
                continue
            backoff.succeeded()
            self._membership.partitions |= partitions_in(found or ())
            self._changed.set()
            honour_cancel()
            await asyncio.sleep(DISCOVER_S)

    async def _send_heartbeats(self) -> None:
        """Announce this worker to the others, and whether it is busy."""
        loop = asyncio.get_running_loop()
        while True:
            if self._intake.overdue(self._stream, BUSY_AFTER_S):
                self._membership.busy = True
            elif self._intake.idle:
                self._membership.busy = False
            self._membership.remove_silent(loop.time())
            try:
                await self._send_heartbeat()
            except LOST as error:
                _log.debug("a heartbeat was not sent to the other workers: %s", type(error).__name__)
            self._changed.set()
            honour_cancel()
            await asyncio.sleep(HEARTBEAT_S)

    async def _send_heartbeat(self, *, left: bool = False) -> None:
        heartbeat = self._membership.heartbeat(left=left or self._intake.stopping)
        await self._client.publish(self._subject, msgspec.json.encode(heartbeat))

    async def _on_heartbeat(self, message: Msg) -> None:
        try:
            heartbeat = msgspec.json.decode(message.data, type=Heartbeat)
        except UNREADABLE:
            return
        if self._membership.receive(heartbeat, asyncio.get_running_loop().time()):
            await self._send_heartbeat()
        self._changed.set()

    async def _update_pulls(self, tasks: asyncio.TaskGroup) -> None:
        """Start pulling our partitions, and stop pulling the others."""
        own = frozenset[int]() if self._intake.stopping else self._membership.own_partitions()
        for partition, (pull, task) in list(self._pulls.items()):
            pull.wanted = partition in own
            if task.done():
                del self._pulls[partition]
        for partition in own - self._pulls.keys():
            pull = self._pull(partition)
            self._pulls[partition] = pull, tasks.create_task(pull.run())
        if self._membership.can_hand_over or self._intake.stopping:
            await self._hand_back()

    async def _drain_requests(self) -> None:
        """Before unsubscribing: wait for the frames that the server sends behind the last one that was handled."""
        held = {_partition(delivery) for delivery in self._intake.held if delivery.stream == self._stream}
        requested = [task for number, (_, task) in self._pulls.items() if number not in held and not task.done()]
        if requested:
            await asyncio.wait(requested, timeout=DRAIN_S)

    async def _hand_back(self) -> None:
        """Hand the frames that no handler has begun with back to the group."""
        partitions = {_partition(delivery) for delivery in self._not_begun()}
        # Safe to cancel: the server sends nothing of a partition while we hold its frame.
        requested = [task for _, task in (self._pulls.pop(each) for each in partitions & self._pulls.keys())]
        for task in requested:
            task.cancel()
        if requested:
            await asyncio.wait(requested, timeout=END_TIMEOUT_S)
        back = [delivery for delivery in self._not_begun() if _partition(delivery) in partitions]
        for delivery in back:
            self._intake.settle(delivery)
        for delivery in back:
            await _answer(delivery.reply.nak(0))

    def _not_begun(self) -> list[Delivery]:
        """What can be handed back. A `switch` frame that waits needs no handler: only a stopping worker returns it."""
        kept = self._switches.frames if self._intake.stopping else frozenset()
        waiting = self._intake.overdue(self._stream, 0.0)
        return [*waiting, *(delivery for delivery in self._intake.held if delivery.key in kept)]

    def keep(self, delivery: Delivery) -> bool:
        """See `Source.keep`."""
        try:
            chains = old_chains(Switch.decode(delivery.payload), delivery.stream_seq)
        except WireError as error:
            _log.warning("%s: %s; it is passed over", delivery.chain, error)
            return False
        if not chains:
            return False
        self._switches.keep(delivery.key, chains)
        # `_discover` does not find the ones of which the stream has no frame any more.
        self._membership.partitions |= self._switches.partitions
        self._changed.set()
        return True

    def _update_polls(self, tasks: asyncio.TaskGroup) -> None:
        """Ask for the state of each partition that a `switch` frame waits for."""
        for partition in self._switches.partitions:
            if partition not in self._polls or self._polls[partition].done():
                self._polls[partition] = tasks.create_task(self._poll(partition))

    async def _poll(self, partition: int) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff(POLL_FIRST_S, POLL_MAX_S)
        begun, logged_s = loop.time(), 0.0
        while True:
            honour_cancel()
            failure = ""
            try:
                await self._ask(partition, loop.time())
            except LOST as error:
                failure = f" ({reason(error)})"
            await self._acknowledge_settled()
            if partition not in self._switches.partitions:
                return
            waited_s = loop.time() - begun
            if waited_s - logged_s >= WAIT_LOGGED_S:
                logged_s = waited_s
                _log.warning(
                    "%s: for %.0f s a new shard group has waited for events of the old one in partition %d%s",
                    self._app,
                    waited_s,
                    partition,
                    failure,
                )
            await asyncio.sleep(backoff.next_s())

    async def _ask(self, partition: int, now: float) -> None:
        state = await self._group.partition_state(partition)
        if state is None:
            if self._switches.missing(partition, now):
                _log.warning("%s: no worker reads partition %d: it is not waited for", self._app, partition)
            return
        chain = self._switches.answered(partition, state)
        while chain is not None:
            honour_cancel()
            chain = self._switches.found(chain, await self._group.first_behind(state.settled, chain))

    async def _acknowledge_settled(self) -> None:
        settled = self._switches.take_settled()
        for delivery in self._intake.held if settled else ():
            if delivery.key in settled:
                _log.info("%s continues where the shards before it ended", delivery.chain)
                await _answer(delivery.reply.ack(confirm=False))
                self._intake.settle(delivery)

    def _pull(self, partition: int) -> PullConsumer:
        ack_floor = self._ack_floors.setdefault(partition, AckFloor(one_at_a_time=True))

        async def prepare() -> None:
            await self._group.ensure_partition(partition, ack_floor.position)

        async def room() -> int:
            return FRAMES_PER_REQUEST

        return PullConsumer(
            client=self._client,
            stream=self._stream,
            durable=partition_durable(self._options.group, partition),
            name="",
            prepare=prepare,
            room=room,
            take=partial(self._take, ack_floor),
            api=self._options.api,
        )


async def _answer(answering: Awaitable[None]) -> None:
    try:
        await answering
    except LOST as error:
        _log.debug("a frame was not answered, it is delivered again after ack_wait: %s", type(error).__name__)


def _partition(delivery: Delivery) -> int:
    return partition_of(int(delivery.subject.rpartition(".")[2]))
