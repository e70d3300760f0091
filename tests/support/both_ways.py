"""The same commands on two equal clusters: on one of them with etcd, on the other with a node's API."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_node.dev.embedded import EmbeddedEtcd
from tests.support.api import Api, StoredFacts, api_over
from tests.support.api_cluster import KEY, store_cluster
from tests.support.live import live_parts
from tests.support.programs import Said, run_command

ONE, TWO = Keys("one"), Keys("two")


class BothWays:
    """Runs `sandwich` in both ways. `seen`: everything that was said."""

    def __init__(
        self,
        directory: Path,
        etcd: str,
        store: EtcdStore,
        api: Api,
        words: dict[str, str],
    ) -> None:
        self._directory = directory
        self.store = store
        self.api = api
        self._words = words
        self.seen = ""
        common = {"PATH": os.environ["PATH"], "NO_COLOR": "1", "BOT_TOKEN": ""}
        self.etcd_env = {
            **common,
            "SANDWICH_ETCD": etcd,
            "SANDWICH_CLUSTER": ONE.cluster,
            "SANDWICH_KEY_FILE": str(directory / "cluster.key"),
        }
        self.api_env = {
            **common,
            "SANDWICH_API": str(api.http._base_url).rstrip("/"),
            "SANDWICH_API_TOKEN": "swt_any",
        }

    async def __call__(self, *arguments: str, piped: str = "") -> Said:
        """Run a command in both ways; what both have said. Raises AssertionError when they differ."""
        by_etcd, by_api = await self.run(*arguments, piped=piped)
        assert by_api == by_etcd, (arguments, "with the API:", by_api, "with etcd:", by_etcd)
        return by_etcd

    async def run(self, *arguments: str, piped: str = "") -> tuple[Said, Said]:
        """What it says with etcd, and what with the API."""
        facts = self.api.cluster.facts
        assert isinstance(facts, StoredFacts)
        await facts.refresh()
        async with asyncio.TaskGroup() as tasks:
            ways = [tasks.create_task(self._run(arguments, env, piped)) for env in (self.etcd_env, self.api_env)]
        by_etcd, by_api = (way.result() for way in ways)
        return by_etcd, (by_api[0], self._plain(by_api[1]), self._plain(by_api[2]))

    async def _run(self, arguments: tuple[str, ...], env: dict[str, str], piped: str) -> Said:
        code, out, err = await run_command(*arguments, env=env, directory=self._directory, piped=piped)
        self.seen += out + err
        return code, out, err

    def _plain(self, text: str) -> str:
        """The text with the names of the first cluster and its servers."""
        for theirs, ours in self._words.items():
            text = text.replace(theirs, ours)
        return text


@asynccontextmanager
async def both_ways(
    directory: Path,
    *,
    nats: tuple[str, str] = ("nats://127.0.0.1:1", "nats://127.0.0.1:1"),
    redis: tuple[str, str] = ("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0"),
    **more: Any,
) -> AsyncIterator[BothWays]:
    """Two equal clusters in one etcd. `nats`, `redis`: of each; `more`: for `store_cluster`."""
    (directory / "cluster.key").write_text(KEY.to_base64() + "\n")
    (directory / "cluster.key").chmod(0o600)
    async with EmbeddedEtcd(directory / "etcd") as etcd:
        store = EtcdStore([etcd.url])
        try:
            for keys, at in ((ONE, 0), (TWO, 1)):
                await store_cluster(store, nats=nats[at], redis=redis[at], keys=keys, **more)
            facts = StoredFacts(store, TWO)
            await facts.refresh()
            async with live_parts(facts, key=KEY) as live, api_over(store, keys=TWO, key=KEY, live=live) as api:
                words = {nats[1]: nats[0], redis[1]: redis[0], f"cluster: {TWO.cluster}\n": f"cluster: {ONE.cluster}\n"}
                words[f'"cluster": "{TWO.cluster}"'] = f'"cluster": "{ONE.cluster}"'
                yield BothWays(directory, etcd.url, store, api, words)
        finally:
            await store.close()
