"""Random sequences of events in a real Redis: the cache has the same content and answers as the model."""

import asyncio
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.dev.embedded import EmbeddedRedis
from tests.support.cache_model import CacheModel
from tests.support.cache_story import KINDS, Story
from tests.support.documented import CLUSTER_RIGHTS, acl_rule
from tests.support.redis_cluster import redis_cluster
from tests.support.redis_state import expected, read_namespace
from tests.support.starvation import PATIENT_S

pytestmark = pytest.mark.contract

NAMESPACE = "story"
ACTIONS = {
    "event": 70,
    "flush": 18,
    "together": 8,
    "confirm": 5,
    "crash": 4,
    "old_owner": 2,
    "session": 1.5,
    "switch": 1.5,
    "old_group": 2,
    "release": 0.5,
    "empty": 0.5,
}
LESS_OFTEN = {"GUILD_DELETE": 0.3, "CHANNEL_DELETE": 0.5, "THREAD_LIST_SYNC": 0.5, "JOIN": 2}


def step_of(number: int) -> tuple[Any, ...]:
    """The number's step: hypothesis chooses and drops numbers; the weights make interesting steps likely."""
    rng = random.Random(number)
    action = rng.choices(list(ACTIONS), list(ACTIONS.values()))[0]
    app = rng.choice("ab")
    match action:
        case "event":
            kind = rng.choices(KINDS, [LESS_OFTEN.get(kind, 1.0) for kind in KINDS])[0]
            return action, rng.choice(["a", "b", "ab"]), kind, rng.randrange(2), rng.randrange(10), rng.randrange(3)
        case "flush" | "together":
            return action, app, rng.randrange(1, 7)
        case "session":
            return action, app, [0, 1] if rng.random() < 0.8 else [rng.randrange(2)]
    return action, app


arrivals = [("event", "ab", "JOIN", guild, 1, 1) for guild in (0, 1)]
stories = st.lists(st.integers(0, 1 << 30), min_size=10, max_size=150).map(
    lambda numbers: [*arrivals, *map(step_of, numbers)]
)
RULES = settings(max_examples=int(os.environ.get("N", "150")), deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def server(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    made = EmbeddedRedis(Path(tmp_path_factory.mktemp("redis")))
    runner.run(made.start())
    runner.run(add_user(made))
    yield made
    runner.run(made.stop())


@pytest.fixture(scope="module")
def cluster(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    made = redis_cluster(Path(tmp_path_factory.mktemp("cluster")), 1)
    (server,) = runner.run(made.__aenter__())
    runner.run(add_user(server, CLUSTER_RIGHTS))
    yield server
    runner.run(made.__aexit__(None, None, None))


async def add_user(server: EmbeddedRedis, more: str = "") -> None:
    """The user that docs/guide/cache.md creates for nodes; the tests use only its permissions."""
    async with redis.Redis.from_url(server.url) as client:
        await client.execute_command("ACL", "SETUSER", *acl_rule("sandwich", more=more))


async def play(url: str, story: list[Any], *, b_knows_members: bool = True) -> None:
    options = RedisOptions(url=url.replace("://", "://sandwich@"), password="secret", timeout_s=PATIENT_S)
    cache = RedisCache(options, clock=time.monotonic)
    async with redis.Redis.from_url(url) as client:
        await client.flushall()
        made = Story(cache, namespace=NAMESPACE, b_knows_members=b_knows_members)
        try:
            for step in [*story, ("flush", "a", 10_000), ("flush", "b", 10_000)]:
                match step:
                    case ("event", apps, kind, guild, n, v):
                        for one in apps:
                            made.act(one, kind, guild, n, v)
                    case ("flush", one, count):
                        await made.flush(one, count)
                    case ("together", one, count):
                        await made.flush_together(one, count)
                    case ("confirm", one):
                        made.confirm(one)
                    case ("crash", one):
                        made.crash(one)
                    case ("old_owner", one):
                        await made.old_owner_writes(one)
                    case ("switch", one):
                        await made.switch(one)
                    case ("old_group", one):
                        await made.replaced_group_writes(one)
                    case ("release", one):
                        await made.release(one)
                    case ("session", one, guilds):
                        await made.new_session(one, guilds)
                    case ("empty", _):
                        await client.flushall()
                        made.model = CacheModel()
            assert await read_namespace(client, NAMESPACE) == expected(made.model, NAMESPACE)
        finally:
            await cache.close()


@given(story=stories, b_knows_members=st.booleans())
@RULES
def test_two_applications_share_a_namespace(
    runner: asyncio.Runner, server: EmbeddedRedis, story: list[Any], b_knows_members: bool
) -> None:
    runner.run(play(server.url, story, b_knows_members=b_knows_members))


@given(story=stories)
@RULES
def test_one_application_on_a_cluster(runner: asyncio.Runner, cluster: EmbeddedRedis, story: list[Any]) -> None:
    # On a cluster every guild has its own record, and users have none: an old owner is refused for each guild, and a
    # replay is compared as a whole. Replays after a server lost its data are not part of this test.
    mine = []
    for step in story:
        if step[0] == "event":
            mine.append((step[0], "a", *step[2:]))
        elif step[0] == "crash":
            mine += [("crash", "a"), ("flush", "a", 10_000)]
        elif step[0] not in ("old_owner", "empty"):
            mine.append((step[0], "a", *step[2:]))
    runner.run(play(cluster.url, mine))
