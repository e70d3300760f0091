"""Corrupt events of every type in a real Redis: none is an error, and fields added to events are JSON."""

import json
import random
import time
from pathlib import Path

import msgspec
import pytest

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.intents import ALL
from sandwich_coordinator.types import CacheSpec
from sandwich_node.cache.batch import Batch, EventOps
from sandwich_node.cache.context import BadEvent
from sandwich_node.cache.operations import Translator
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import CacheWriter
from sandwich_node.dev.embedded import EmbeddedRedis
from sandwich_node.gateway.envelope import ProtocolError, read_envelope
from sandwich_node.gateway.salvage import salvage
from sandwich_sdk.wire.cache_keys import guild_key
from tests.support.cache_layout import GUILD, rich_guild
from tests.support.poison import BOT, damaged, happened
from tests.support.starvation import PATIENT_S

pytestmark = pytest.mark.contract
NS = "music"
json_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def as_read(name: str, d: bytes) -> bytes:
    """An event's `d` as a shard reads it."""
    raw = b'{"t":"%b","s":1,"op":0,"d":%b}' % (name.encode(), d)
    try:
        return bytes(read_envelope(raw).d)
    except ProtocolError:
        found = salvage(raw)
        assert found is not None
        return bytes(found.envelope.d)


async def test_corrupt_events_cause_no_error_in_redis_and_leave_it_usable(tmp_path: Path) -> None:
    settings = CacheSpec(namespace=NS, presences=True, messages_per_channel=5)
    writer = CacheWriter(shard=ShardId(NS, 1, 0), fence=Fence(1), bot=BOT, intents=ALL, settings=settings)
    translator, rng = Translator(writer), random.Random(7)
    async with EmbeddedRedis(tmp_path) as server:
        store = RedisCache(RedisOptions(url=server.url, timeout_s=PATIENT_S), clock=time.monotonic)
        events: list[EventOps] = []
        failed = read = 0
        for seq, (name, data) in enumerate(happened(7, 1500), start=1):
            d = damaged(rng, data) if rng.random() < 0.6 else json.dumps(data).encode()
            try:
                ops = translator.translate(name, as_read(name, d))
            except BadEvent:
                continue
            events.append(EventOps(seq, ops, len(d)))
            if len(events) == 25:
                batch = Batch(writer=writer, session="s", confirmed=0, events=tuple(events))
                applied = await store.apply(batch)
                failed += applied.failed
                for extra in applied.extras.values():
                    read += len(json_fields(b"{%b}" % extra.fields())) > 0
                events.clear()
        assert read > 50
        assert failed == 0
        guild = EventOps(10**6, translator.translate("GUILD_CREATE", msgspec.json.encode(rich_guild())), 100)
        await store.apply(Batch(writer=writer, session="s", confirmed=0, events=(guild,)))
        assert await store.command("EXISTS", guild_key(NS, GUILD))
        await store.close()
