"""Damaged realistic events: one place of an event gets an undocumented value, or invalid text."""

import json
import random
from collections.abc import Iterator
from typing import Any

from sandwich_simulator import BotConfig
from sandwich_simulator.mix import Mix
from sandwich_simulator.world import World
from tests.support.cache_story import KINDS, Maker

BOT = "80351110224678912"
_DEEP = b"[" * 3000 + b"]" * 3000

RAW: dict[str, bytes] = {
    "lone high surrogate": rb'"a\ud83d"',
    "lone low surrogate": rb'"\ude00b"',
    "surrogates the wrong way round": rb'"\ude00\ud83d"',
    "not UTF-8": b'"\xff\xfe\xc3"',
    "an encoded surrogate": b'"\xed\xa0\xbd"',
    "deep": _DEEP,
    "deep objects": b'{"a":' * 3000 + b"1" + b"}" * 3000,
    "a number without end": b"9" * 5000,
    "more than a float holds": b"1e999",
    "less than any": b"-1e999",
    "a float": b"1.5",
    "negative": b"-1",
    "beyond 64 bits": b"18446744073709551616",
    "true": b"true",
    "null": b"null",
    "a list": b"[]",
    "a list of null": b"[null]",
    "an object": b"{}",
    "a word": b'"x"',
    "empty": b'""',
    "digits that are not ASCII": '"\u0661\u0662"'.encode(),
    "NUL": rb'"\u0000"',
    "a long number as text": b'"' + b"1" * 5000 + b'"',
    "a date": b'"0000-99-99T25:61:61+99:99"',
    "twice the same key": b'{"id":"1","id":2,"guild_id":"x","guild_id":"1"}',
}
"""Damaged JSON by its defect."""

_MARK = "@@damage@@"


def happened(seed: int, count: int) -> Iterator[tuple[str, Any]]:
    """Undamaged events: the simulator's mix, guilds, and answers to requests."""
    world = World(BotConfig(token="t", application_id=int(BOT), guilds=3, members_per_guild=5), seed)
    mix, maker, rng = Mix(world, random.Random(seed)), Maker(BOT), random.Random(seed)
    made = 0
    while made < count:
        for event in mix.next_events(1_750_000_000_000 + made):
            data = event.data or world.guild_state(next(iter(world.guild_ids)), as_seen=True)
            yield event.name, data
            made += 1
        kind = rng.choice(KINDS)
        name = {"OUTAGE": "GUILD_DELETE", "JOIN": "GUILD_CREATE"}.get(kind, kind)
        yield name, maker.make(kind, rng.choice(["100", "101"]), rng.randrange(10), rng.randrange(3))
        guild = str(next(iter(world.guild_ids)))
        yield rng.choice(
            [
                ("GUILD_MEMBERS_CHUNK", {"guild_id": guild, "members": [], "chunk_index": 0, "nonce": "1"}),
                ("RATE_LIMITED", {"opcode": 8, "retry_after": 1.5, "meta": {"guild_id": guild, "nonce": "1"}}),
                ("SOUNDBOARD_SOUNDS", {"guild_id": guild, "soundboard_sounds": []}),
                ("CHANNEL_INFO", {"guild_id": guild, "channels": []}),
                ("VOICE_SERVER_UPDATE", {"guild_id": guild, "token": "t", "endpoint": None}),
                ("INVITE_CREATE", {"guild_id": guild, "code": "c", "channel_id": "2", "expires_at": None}),
                ("READY_SUPPLEMENTAL", {"guilds": []}),
            ]
        )


def damaged(rng: random.Random, data: Any, kind: bytes | None = None) -> bytes:
    """The JSON of `data` with one damaged place: a value, the whole, or a missing key."""
    kind = rng.choice([*RAW.values()]) if kind is None else kind
    copy = json.loads(json.dumps(data))
    places: list[tuple[Any, Any] | None] = [*_places(copy)]
    where = rng.choice(places or [None])
    if where is None or rng.random() < 0.05:
        return kind
    holder, key = where
    if isinstance(holder, dict) and rng.random() < 0.1:
        del holder[key]
    else:
        holder[key] = _MARK
    return json.dumps(copy, ensure_ascii=rng.random() < 0.5).encode().replace(f'"{_MARK}"'.encode(), kind)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All places of a value; those near the top more often, because they are read."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, inner in items:
        yield from [(value, key)] * 3
        yield from list(_places(inner))[:40]
