"""A worker is put together whatever its settings name: what cannot be used is left out, and events flow."""

import subprocess
import sys

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


def test_a_worker_does_not_load_what_only_a_holder_of_the_cluster_key_needs() -> None:
    """Each worker and each spare worker would need 8 MiB for it."""
    script = "import sys, sandwich_node.worker_main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert "sandwich_node.shards.runner" in done.stdout.split()
    assert "cryptography.hazmat.primitives.ciphers.aead" not in done.stdout.split()
