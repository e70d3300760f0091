"""Whether consumers read an application, as JetStream says it."""

import nats
import pytest
from nats.js.api import StreamConfig

from sandwich_coordinator.operations.errors import Refused
from sandwich_coordinator.operations.removal import check_all_unread
from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_sdk.wire.subjects import stream_name

pytestmark = pytest.mark.contract


async def test_an_application_is_not_pruned_while_a_consumer_has_not_answered_for_a_frame(server: EmbeddedNats) -> None:
    client = await nats.connect(server.url)
    try:
        jetstream = client.jetstream()
        for app in ("quiet", "read"):
            await jetstream.add_stream(StreamConfig(name=stream_name(app), subjects=[f"sandwich.{app}.events.>"]))
        await jetstream.publish("sandwich.read.events.all.X.0.0", b"")
        reader = await jetstream.pull_subscribe("", "workers", stream=stream_name("read"))
        (frame,) = await reader.fetch(1)
        await check_all_unread(["quiet", "gone"], client)
        with pytest.raises(Refused, match=r"consumers still read read: workers \(lag 1\)"):
            await check_all_unread(["quiet", "read"], client)
        await frame.ack_sync()
        await check_all_unread(["read"], client)
    finally:
        await client.close()
