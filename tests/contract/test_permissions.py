"""The permissions in docs/guide/consumers.md are sufficient, and reach no other application."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from sandwich_coordinator.cli import accounts
from sandwich_coordinator.operations import dead_letters
from sandwich_coordinator.operations.consumer_groups import GroupSpec, create_group
from sandwich_node.nats_connection import NatsConnection
from sandwich_node.nats_options import NatsOptions
from sandwich_node.publishing.jetstream import JetStreamLog
from sandwich_sdk import Consumer, Event, Failure, GroupConflict, jetstream
from sandwich_sdk.rpc import Rpc
from sandwich_sdk.wire.rpc import encode_result, parts
from sandwich_sdk.wire.switch import Switch
from tests.support.account_nats import AccountNats, rights
from tests.support.examples import example, settings
from tests.support.processes import started
from tests.support.publisher import Publisher, settled, take, until

pytestmark = pytest.mark.contract


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[AccountNats]:
    async with AccountNats(tmp_path / "nats", {"bot": "g", "beta": "", "alpha": "g"}) as server:
        yield server


@pytest.fixture
async def node(server: AccountNats) -> AsyncIterator[Client]:
    client = await nats.connect(server.url, user="node", password="node")
    log = JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,), user="node", password="node")))
    await log.connection.connect()
    for app in server.apps:
        await log.ensure_stream(app)
    await log.connection.close()
    yield client
    await client.close()


def spec(app: str, *, ordered: bool = False, ack_wait_s: float = 30.0) -> GroupSpec:
    return GroupSpec(app=app, group="g", start="all", ack_wait_s=ack_wait_s, ordered=ordered)


async def publish(node: Client) -> None:
    """Event 1 in two parts, and event 2."""
    publisher = Publisher(node, shard=1)
    headers, payload = publisher.frame(1)
    for index, piece in enumerate((payload[:40], payload[40:]), start=1):
        await publisher.send({**headers.encode(), "Sandwich-Part": f"{index}/2"}, piece)
    await publisher.events(1)


class Workers:
    """Two workers with the documented permissions; the handler fails for event 1 until it is a dead letter."""

    def __init__(self, url: str, *, ordered: bool) -> None:
        self.seen: list[int] = []
        self.failures: list[Failure] = []
        self.consumers = [self._consumer(url, ordered), self._consumer(url, ordered)]

    def _consumer(self, url: str, ordered: bool) -> Consumer:
        options: dict[str, Any] = {"app": "bot", "group": "g", "start": "all", "max_tries": 2, "nak_delay": 0.01}
        login = {"user": "bot", "password": "bot"}
        consumer = Consumer(url, ordered=ordered, domain=accounts.DOMAIN, connection=login, **options)
        consumer.on_error(self.failures.append)
        consumer.on_any(self._handle)
        return consumer

    async def _handle(self, event: Event) -> None:
        if event.data["n"] == 1 and len(self.failures) < 2:
            raise RuntimeError("twice")
        self.seen.append(event.data["n"])


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_worker_needs_only_the_documented_permissions(
    server: AccountNats,
    node: Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ordered: bool,
) -> None:
    monkeypatch.setattr(jetstream, "REPLAY_POLL_S", 0.05)
    await publish(node)
    await create_group(node, spec("bot", ordered=ordered))
    follows = Switch(old_group=0, after={1: 3, 2: 3})
    await Publisher(node, shard=3).control("switch", follows.encode())
    workers = Workers(server.url, ordered=ordered)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for each in workers.consumers:
            tasks.create_task(each.run(handle_signals=False))
        await until(lambda: workers.seen == [2] and len(workers.failures) == 2 and workers.failures[-1].given_up)
        (letter,) = [each async for each in dead_letters.read_letters(node, "bot", dead_letters.LetterFilter())]
        assert await dead_letters.open_replays(node, "bot", "g")
        await dead_letters.replay_letter(node, letter)
        await until(lambda: workers.seen == [2, 1])
        await settled(Publisher(node), "g@3" if ordered else "g")
        for each in workers.consumers:
            await each.close()
    assert "ermissions" not in caplog.text
    assert server.violations == []


async def test_a_worker_does_not_change_a_group_that_the_operator_created(server: AccountNats, node: Client) -> None:
    await create_group(node, spec("bot", ack_wait_s=30.0))
    await create_group(node, spec("bot", ack_wait_s=60.0))
    login = {"user": "bot", "password": "bot"}
    consumer = Consumer(server.url, app="bot", group="g", ack_wait=30.0, domain=accounts.DOMAIN, connection=login)
    async with asyncio.timeout(10), consumer:
        with pytest.raises(GroupConflict, match="ack_wait of 60 s"):
            await anext(consumer)
    assert server.violations == []


async def test_only_an_application_s_own_stream_can_be_read(server: AccountNats, node: Client) -> None:
    """A client with the permissions of one application reads nothing of another one, whatever name it uses."""
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    client = await nats.connect(server.url, user="alpha", password="alpha", error_cb=note)
    for prefix in ("$JS.API", f"$JS.{accounts.DOMAIN}.API"):
        for verb in ("STREAM.INFO", "STREAM.MSG.GET", "STREAM.CREATE", "STREAM.DELETE", "CONSUMER.CREATE"):
            with pytest.raises(nats.errors.TimeoutError):
                await client.request(f"{prefix}.{verb}.SANDWICH_beta", b'{"seq":1}', timeout=0.1)
    assert len(refused) == 10
    await client.close()


class Victim:
    """The state of application beta: its streams with their messages and configuration, and its durable."""

    def __init__(self, node: Client) -> None:
        self._jetstream = node.jetstream()

    async def look(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for stream in ("SANDWICH_beta", "SANDWICH-DEAD_beta", "SANDWICH-TRIES_beta", "SANDWICH-REPLAY_beta"):
            info = await self._jetstream.stream_info(stream)
            consumers = await self._jetstream.consumers_info(stream)
            found[stream] = (
                info.config.as_dict(),
                info.created,
                (info.state.messages, info.state.last_seq),
                [(each.name, each.config.as_dict(), each.num_pending, each.delivered) for each in consumers],
            )
        return found


STOLEN = "_INBOX.victim"
SECRET = b"of another application"
API = ("$JS.API", f"$JS.{accounts.DOMAIN}.API")
WHERE_TO = [
    "sandwich.beta.events.all.0.0",
    "sandwich.beta.dead.g",
    "sandwich.beta.tries.g.1-1",
    "sandwich.beta.replay.g.1",
    "sandwich.beta.rpc.relay",
    STOLEN,
    *(f"{api}.{verb}.SANDWICH_beta" for api in API for verb in ("STREAM.DELETE", "STREAM.PURGE", "STREAM.UPDATE")),
    *(f"{api}.CONSUMER.{verb}.SANDWICH_beta.g" for api in API for verb in ("DELETE", "MSG.NEXT", "CREATE", "INFO")),
]
"""Subjects of the nodes' account that an answer must not be published on."""
SPOOFED = {"Nats-Request-Info": json.dumps({"acc": accounts.OWNER, "svc": accounts.OWNER})}


def bodies(right: str) -> list[bytes]:
    """Requests for each kind of answer: with a message, with an error, empty."""
    sources = {"name": "SANDWICH-TRIES_alpha", "sources": [{"name": "SANDWICH_beta"}]}
    if "MSG.NEXT" in right:
        return [b"1", b'{"batch":2,"no_wait":true}', b'{"batch":1,"expires":100000000,"idle_heartbeat":50000000}']
    if "MSG.GET" in right:
        return [b'{"seq":1}', b'{"last_by_subj":"sandwich.beta.>"}', b'{"seq":1,"next_by_subj":"sandwich.beta.>"}']
    if right.startswith("$JS.ACK"):
        return [b"+ACK", b"+NXT 2", b"-NAK", b""]
    return [b"", json.dumps(sources).encode()]


async def deliveries(client: Client, right: str, api: str) -> list[str]:
    """The subjects to use with a permission that has wildcards."""
    if not right.startswith("$JS.ACK"):
        return [right.replace("*", "1-1")]
    _, _, stream, durable, _ = right.split(".")
    answer = f"_INBOX.alpha.{stream}.{durable}"
    inbox = await client.subscribe(answer, max_msgs=1)
    await client.publish(f"{api}.CONSUMER.MSG.NEXT.{stream}.{durable}", b'{"batch":1,"no_wait":true}', reply=answer)
    try:
        reply = (await inbox.next_msg(1.0)).reply
    except nats.errors.TimeoutError:
        reply = ""
    others = [f"$JS.ACK.{stream}.{durable}.1.1.1.1.1"]
    return [reply, *others] if reply.startswith("$JS.ACK") else others


async def attack(client: Client, right: str, headers: Mapping[str, str], api: str) -> None:
    for subject in await deliveries(client, right, api):
        for where in WHERE_TO:
            for body in bodies(right):
                await client.publish(subject, body, reply=where, headers=dict(headers))
    await client.flush()


class OneAccount(AccountNats):
    """The same users with the same permissions, in the one account that has the streams."""

    def command(self) -> Sequence[str]:
        command = super().command()
        users = [f'{{ user: "{user}", password: "{user}" }}' for user in (accounts.NODE_USER, "beta")]
        allowed = json.dumps([right.replace(API[1], API[0]) for right in rights("alpha", "g")])
        users.append(
            f'{{ user: "alpha", password: "alpha", permissions: {{ publish: {allowed}, subscribe: "_INBOX.>" }} }}'
        )
        (self.directory / "nats.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{self.store}" }}\n'
            f"authorization {{ users: [ {', '.join(users)} ] }}\n"
        )
        return command


@dataclass
class Raid:
    """The result: beta before and after (None: it is gone), messages published to others, and messages received."""

    before: dict[str, Any]
    after: dict[str, Any] | None = None
    stolen: list[bytes] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)


async def raid(server: AccountNats, api: str, ears: Sequence[str]) -> Raid:
    """Act as a hostile consumer of alpha: every permission, every body, every subject for the answer."""
    node = await nats.connect(server.url, user="node", password="node")
    log = JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,), user="node", password="node")))
    await log.connection.connect()
    for app in server.apps:
        await log.ensure_stream(app)
        for _ in range(3):
            await Publisher(node, app).control("fence")
            await node.jetstream().publish(f"sandwich.{app}.replay.g.1", b"x")
        await create_group(node, spec(app))
    await log.connection.close()
    victim = Victim(node)
    done = Raid(await victim.look())

    async def steal(message: Any) -> None:
        done.stolen.append(message.data)

    async def receive(message: Any) -> None:
        done.received.append(message.data)

    for subject in (STOLEN, "sandwich.beta.rpc.*"):
        await node.subscribe(subject, cb=steal)
    await node.flush()
    hostile = await nats.connect(server.url, user="alpha", password="alpha", error_cb=_quiet)
    for subject in ears:
        await hostile.subscribe(subject, cb=receive)
    for right in [right.replace(API[1], api) for right in rights("alpha", "g", partitions=1)]:
        for headers in ({}, SPOOFED):
            await attack(hostile, right, headers, api)
    await node.flush()
    with suppress(NotFoundError):
        done.after = await victim.look()
    beta = await nats.connect(server.url, user="beta", password="beta")
    for client in (node, beta):
        for subject in ("_INBOX.of.beta", "sandwich.beta.events.all.0.0", "sandwich.beta.workers.g"):
            await client.publish(subject, SECRET)
        await client.flush()
    await hostile.flush()
    for client in (hostile, beta, node):
        await client.close()
    return done


@pytest.mark.parametrize(("group", "ears"), [("g", ("_INBOX.>", "sandwich.alpha.workers.g")), ("", (">",))])
async def test_no_documented_permission_reaches_another_application(
    tmp_path: Path, group: str, ears: tuple[str, ...]
) -> None:
    async with AccountNats(tmp_path / "nats", {"alpha": group, "beta": ""}) as server:
        done = await raid(server, API[1], ears)
    assert done.after == done.before
    assert done.stolen == []
    assert SECRET not in done.received


async def test_the_same_permissions_inside_one_account_do_not_separate_applications(tmp_path: Path) -> None:
    async with OneAccount(tmp_path / "nats", {"alpha": "g", "beta": ""}) as server:
        done = await raid(server, API[0], ("_INBOX.>",))
    assert done.after != done.before
    assert done.stolen
    assert SECRET in done.received


async def _quiet(error: Exception) -> None:
    """The refusal is expected."""


async def test_nodes_remove_stream_settings_that_move_messages_besides_its_subjects(
    server: AccountNats, node: Client
) -> None:
    js = node.jetstream()
    for name in ("SANDWICH_bot", "SANDWICH-TRIES_bot", "SANDWICH-DEAD_bot"):
        raw = json.loads((await node.request(f"$JS.API.STREAM.INFO.{name}", b"")).data)["config"]
        raw |= {"sources": [{"name": "SANDWICH_beta"}]}
        answer = json.loads((await node.request(f"$JS.API.STREAM.UPDATE.{name}", json.dumps(raw).encode())).data)
        assert "error" not in answer
    log = JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,), user="node", password="node")))
    await log.connection.connect()
    await log.ensure_stream("bot")
    await log.connection.close()
    for name in ("SANDWICH_bot", "SANDWICH-TRIES_bot", "SANDWICH-DEAD_bot"):
        assert not (await js.stream_info(name)).config.sources


async def test_requests_are_answered_and_status_is_received_in_an_application_s_account(
    server: AccountNats, node: Client
) -> None:
    async def answer(message: Any) -> None:
        for payload, headers in parts(encode_result(b'{"x":"' + b"y" * 100 + b'"}'), 40):
            await node.publish(message.reply, payload, headers=headers)

    await node.subscribe("sandwich.*.rpc.*", cb=answer)
    await node.flush()
    client = await nats.connect(server.url, user="beta", password="beta")
    status = await client.subscribe("sandwich.*.status")
    await client.flush()
    assert await Rpc(app="beta", client=client).ask("anything") == {"x": "y" * 100}
    for app in ("alpha", "beta"):
        await node.publish(f"sandwich.{app}.status", app.encode())
    assert (await status.next_msg(5)).data == b"beta"
    assert status.pending_msgs == 0
    await client.close()


async def test_a_group_that_does_not_exist_and_cannot_be_created_is_reported(
    server: AccountNats, node: Client, caplog: pytest.LogCaptureFixture
) -> None:
    login = {"user": "beta", "password": "beta"}
    consumer = Consumer(server.url, app="beta", group="missing", start="all", domain=accounts.DOMAIN, connection=login)
    await Publisher(node, "beta").events(1)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        taken = tasks.create_task(take(consumer, 1))
        await until(lambda: "sandwich group create beta missing" in caplog.text)
        await create_group(node, replace(spec("beta"), group="missing"))
    assert taken.result() == [1]


@pytest.mark.parametrize("program", ["raw.py", "sdk.py", "consumer.mjs"])
async def test_an_example_program_needs_only_the_documented_permissions_and_ends_on_ctrl_c(
    server: AccountNats, node: Client, tmp_path: Path, program: str
) -> None:
    command = await example(program, tmp_path)
    await create_group(node, spec("bot"))
    publisher = Publisher(node)
    await publisher.events(2)
    login = settings(server.url, NATS_USER="bot", NATS_PASSWORD="bot", NATS_DOMAIN=accounts.DOMAIN)
    piped = {"env": login, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    async with asyncio.timeout(60), started(*command, "bot", "g", **piped) as process:
        assert process.stdout is not None
        assert [await process.stdout.readline() for _ in range(2)] == [b"A abc:1\n", b"A abc:2\n"]
        await settled(publisher, "g")
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert server.violations == []


@pytest.mark.parametrize("program", ["raw.py", "consumer.mjs"])
@pytest.mark.parametrize("app", ["beta", "bot"])
async def test_an_example_program_names_the_command_that_creates_a_group(
    server: AccountNats, node: Client, tmp_path: Path, app: str, program: str
) -> None:
    """beta's user has the rights of its account, bot's those of one group: the refusals differ."""
    command = await example(program, tmp_path)
    login = settings(server.url, NATS_USER=app, NATS_PASSWORD=app, NATS_DOMAIN=accounts.DOMAIN)
    async with (
        asyncio.timeout(60),
        started(*command, app, "missing", env=login, stderr=asyncio.subprocess.PIPE) as process,
    ):
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert f"sandwich group create {app} missing\n" in errors.decode()


async def test_a_group_that_a_worker_created_becomes_the_operator_s(server: AccountNats, node: Client) -> None:
    js = node.jetstream()
    made = ConsumerConfig(
        name="g", durable_name="g", filter_subject="sandwich.bot.events.all.>", max_ack_pending=10_000, ack_wait=30
    )
    await js.add_consumer("SANDWICH_bot", made)
    await create_group(node, spec("bot"))
    assert "sandwich.kept" in ((await js.consumer_info("SANDWICH_bot", "g")).config.metadata or {})
