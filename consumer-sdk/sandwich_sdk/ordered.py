"""One worker's part of an ordered group: which partitions there are, who is there, and pulling its own share.

Decisions are in `sharing`; here they are put to work. Workers tell each other once a second that they are there, by
plain NATS messages. One that cannot hear the others asks for every partition: uneven, and still in order.
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
from sandwich_sdk.partitioning import Beat, Roster, partition_durable, partition_of, partitions_in
from sandwich_sdk.pull_consumer import RETRY_FIRST_S, RETRY_MAX_S, AckAddress, Place, Pull
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.headers import UNREADABLE

_log = logging.getLogger(__name__)

BEAT_S = 1.0
DISCOVER_S = 10.0
BUSY_AFTER_S = 2.0
"""A frame that waits for so long while nobody is free to begin with it: this worker has more than it can do."""
FRAMES_ASKED = 256
"""One pull request brings so many frames, one after another."""
LAPSE_S = 0.2
"""A frame that the server has for us when we go is here by then; it is handed back."""
END_TIMEOUT_S = 5.0

Take = Callable[[Place, Msg, AckAddress], Awaitable[None]]


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
        take: Take,
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
        self._roster = Roster(secrets.token_hex(8))
        self._places: dict[int, Place] = {}
        self._pulls: dict[int, tuple[Pull, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Raises GroupConflict."""
        hearing = await self._client.subscribe(self._subject, cb=self._hear)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._discover())
                tasks.create_task(self._beat())
                try:
                    while True:
                        honour_cancel()
                        self._changed.clear()
                        await self._share(tasks)
                        await self._changed.wait()
                finally:
                    await self._let_lapse()
        finally:
            try:
                async with asyncio.timeout(END_TIMEOUT_S):
                    await self._tell(left=True)
                    await hearing.unsubscribe()
            except LOST as error:
                _log.debug("the other workers were not told that we leave: %s", type(error).__name__)

    async def _discover(self) -> None:
        """Look for shards that are new in the stream."""
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S)
        while True:
            try:
                await self._group.ensure_anchor()
                lane = subjects.lane_filter(self._app, self._options.lane)
                found = (await self._jetstream.stream_info(self._stream, subjects_filter=lane)).state.subjects
            except LOST as error:
                if not backoff.failures:
                    _log.warning("events of %s are waited for: %s", self._app, reason(error))
                honour_cancel()
                await asyncio.sleep(backoff.next_s())
                continue
            backoff.succeeded()
            self._roster.partitions |= partitions_in(found or ())
            self._changed.set()
            honour_cancel()
            await asyncio.sleep(DISCOVER_S)

    async def _beat(self) -> None:
        """Tell the others that we are there, and whether frames wait here for longer than they should."""
        loop = asyncio.get_running_loop()
        while True:
            if self._intake.overdue(self._stream, BUSY_AFTER_S):
                self._roster.busy = True
            elif self._intake.idle:
                self._roster.busy = False
            self._roster.forget_silent(loop.time())
            try:
                await self._tell()
            except LOST as error:
                _log.debug("the other workers were not told: %s", type(error).__name__)
            self._changed.set()
            honour_cancel()
            await asyncio.sleep(BEAT_S)

    async def _tell(self, *, left: bool = False) -> None:
        beat = self._roster.beat(left=left or self._intake.stopping)
        await self._client.publish(self._subject, msgspec.json.encode(beat))

    async def _hear(self, message: Msg) -> None:
        try:
            beat = msgspec.json.decode(message.data, type=Beat)
        except UNREADABLE:
            return
        if self._roster.hear(beat, asyncio.get_running_loop().time()):
            await self._tell()
        self._changed.set()

    async def _share(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to ask for what is ours, and stop asking for what is not."""
        mine = frozenset[int]() if self._intake.stopping else self._roster.mine()
        for partition, (pull, task) in list(self._pulls.items()):
            pull.wanted = partition in mine
            if task.done():
                del self._pulls[partition]
        for partition in mine - self._pulls.keys():
            pull = self._pull(partition)
            self._pulls[partition] = pull, tasks.create_task(pull.run())
        if self._roster.relieved or self._intake.stopping:
            await self._hand_back()

    async def _let_lapse(self) -> None:
        """Before we stop listening: take what is on its way to us, behind the frame that was handled last."""
        held = {_partition(delivery) for delivery in self._intake.held if delivery.stream == self._stream}
        asked = [task for partition, (_, task) in self._pulls.items() if partition not in held and not task.done()]
        if asked:
            await asyncio.wait(asked, timeout=LAPSE_S)

    async def _hand_back(self) -> None:
        """Give what we have not begun with to the others."""
        partitions = {_partition(delivery) for delivery in self._intake.overdue(self._stream, 0.0)}
        # Cancelled without risk: nothing is sent of a partition while we hold its frame.
        asked = [task for _, task in (self._pulls.pop(each) for each in partitions & self._pulls.keys())]
        for task in asked:
            task.cancel()
        if asked:
            await asyncio.wait(asked, timeout=END_TIMEOUT_S)
        waiting = self._intake.overdue(self._stream, 0.0)
        back = [delivery for delivery in waiting if _partition(delivery) in partitions]
        for delivery in back:
            self._intake.settle(delivery)
        for delivery in back:
            try:
                await delivery.reply.nak(0)
            except LOST as error:
                _log.debug("a frame was not handed back, its time will run out: %s", type(error).__name__)

    def _pull(self, partition: int) -> Pull:
        place = self._places.setdefault(partition, Place(in_turn=True))

        async def prepare() -> None:
            await self._group.ensure_partition(partition, place.passed)

        async def room() -> int:
            return FRAMES_ASKED

        return Pull(
            client=self._client,
            stream=self._stream,
            durable=partition_durable(self._options.group, partition),
            name="",
            prepare=prepare,
            room=room,
            take=partial(self._take, place),
            api=self._options.api,
        )


def _partition(delivery: Delivery) -> int:
    return partition_of(int(delivery.subject.rpartition(".")[2]))
