"""A worker is put together whatever its settings name: what cannot be used is left out, and events flow."""

import aiohttp
import pytest

from sandwich_node.cache.options import RedisOptions
from sandwich_node.composition.worker import compose_worker_parts
from sandwich_node.ipc import WorkerSettings
from sandwich_node.nats_options import NatsOptions


@pytest.mark.parametrize(
    ("redis", "reason"),
    [
        (
            RedisOptions(url="rediss://r.test", ca="/there/is/no/ca.pem"),
            "the file /there/is/no/ca.pem for TLS does not",
        ),
        (RedisOptions(url="redis://:hush@r.test/0/1"), "the database in a Redis URL is a number"),
    ],
    ids=["missing file", "unusable url"],
)
async def test_a_redis_that_cannot_be_read_leaves_a_worker_without_answers_from_the_cache(
    redis: RedisOptions, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = WorkerSettings(
        worker=0, node="a", nats=NatsOptions(servers=("nats://n.test",)), redis=redis, api_url="http://d.test"
    )
    async with aiohttp.ClientSession() as http:
        parts = compose_worker_parts(None, settings, http)  # type: ignore[arg-type]
        assert parts.reader is None
        assert parts.cache is not None
        await parts.close()
    assert reason in caplog.text
    assert "hush" not in caplog.text
