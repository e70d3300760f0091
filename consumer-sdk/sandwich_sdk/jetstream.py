"""Frames from NATS JetStream: connection, the group's durable pull consumer, and the pull loop.

A group is one durable pull consumer per application stream, created by its first worker and shared by all. Error
codes are the server's (`nats-io/nats-server`, server/errors.json): 10013 and 10148 consumer exists, 10059 no stream.
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy

from sandwich_sdk.delivery import Delivery, Intake
from sandwich_sdk.errors import GroupConflict, Unreachable
from sandwich_sdk.wire import subjects

_log = logging.getLogger(__name__)

API_TIMEOUT_S = 5.0
ACK_TIMEOUT_S = 5.0
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0
PULL_EXPIRES_S = 30.0
HEARTBEAT_S = 1.0
SILENCE_MAX_S = 2.5
MAX_ACK_PENDING = 10_000
"""Frames of a group that may wait for their ack: JetStream's default of 1,000 stops silently with nak'd frames."""

_CONSUMER_EXISTS = (10013, 10148)
_PULL_ENDED = ("404", "408")
_HEARTBEAT = "100"
_LOST = (nats.errors.Error, OSError, TimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What to read and how. Times in seconds; `connection` goes to nats-py as it is (credentials, TLS)."""

    servers: Sequence[str]
    apps: Sequence[str]
    group: str
    lane: str
    start: str | datetime
    ack_wait_s: float
    connect_timeout_s: float | None
    connection: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"SourceOptions(apps={list(self.apps)}, group={self.group!r}, lane={self.lane!r})"


@dataclass(frozen=True, slots=True)
class AckAddress:
    """What a JetStream reply subject says (ADR-15): `published_ns` is when the stream stored the message."""

    tries: int
    stream_seq: int
    published_ns: int

    @classmethod
    def parse(cls, reply: str) -> "AckAddress":
        """Read `$JS.ACK.` with 9 tokens, or 12 with domain and account. Raises ValueError."""
        tokens = reply.split(".")
        if len(tokens) < 9 or tokens[:2] != ["$JS", "ACK"]:
            raise ValueError("not a JetStream delivery")
        tries, stream_seq, _, published_ns = tokens[4:8] if len(tokens) == 9 else tokens[6:10]
        return cls(int(tries), int(stream_seq), int(published_ns))


class _NatsReply:
    """Answers one delivery through its reply subject."""

    __slots__ = ("_client", "_subject")

    def __init__(self, client: Client, subject: str) -> None:
        self._client = client
        self._subject = subject

    async def ack(self, *, confirm: bool) -> None:
        if confirm:
            await self._client.request(self._subject, b"+ACK", timeout=ACK_TIMEOUT_S)
        else:
            await self._client.publish(self._subject, b"+ACK")

    async def nak(self, delay_s: float) -> None:
        delay = json.dumps({"delay": int(delay_s * 1e9)}) if delay_s > 0 else ""
        await self._client.publish(self._subject, f"-NAK {delay}".rstrip().encode())

    async def term(self) -> None:
        await self._client.publish(self._subject, b"+TERM")

    async def progress(self) -> None:
        await self._client.publish(self._subject, b"+WPI")


@dataclass(slots=True)
class _Pull:
    """One application's outstanding pull request."""

    outstanding: int = 0
    heard_at: float = 0.0
    trouble: str = ""


class JetStreamSource:
    """Implements `Source` over one connection that reconnects for ever."""

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._client = Client()
        self._jetstream = JetStreamContext(self._client, timeout=API_TIMEOUT_S)
        self._closing = False
        self._last_seen: dict[str, tuple[int, int]] = {}
        """By application, when its newest frame was stored (Unix ns), and that frame's stream sequence."""
        self._told = False
        self._inboxes: list[Subscription] = []

    async def open(self) -> None:
        """Connect, waiting for NATS as long as `connect_timeout_s` says. Raises Unreachable."""
        options = self._options
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                await self._client.connect(
                    servers=list(options.servers),
                    name=f"sandwich-sdk {options.group}",
                    max_reconnect_attempts=-1,
                    connect_timeout=2,
                    reconnect_time_wait=0.5,  # type: ignore[arg-type]  # annotated int, used as seconds
                    ping_interval=10,
                    max_outstanding_pings=2,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                    **options.connection,
                )
        except TimeoutError:
            raise Unreachable(f"NATS did not answer within {options.connect_timeout_s} s at {self._where()}") from None
        except (nats.errors.Error, OSError, ValueError) as error:
            raise Unreachable(f"NATS at {self._where()}: {_reason(error)}") from None
        self._told = False

    def _where(self) -> str:
        """The servers in words, without the credentials a URL may carry."""
        urls = [server if "://" in server else f"nats://{server}" for server in self._options.servers]
        return ", ".join(urlsplit(url).netloc.rpartition("@")[2] for url in urls)

    async def _on_error(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            _log.warning("NATS at %s: %s; trying again until it answers", self._where(), _reason(error))

    async def _on_disconnect(self) -> None:
        if not self._closing:
            _log.warning("NATS at %s: connection lost", self._where())

    async def _on_reconnect(self) -> None:
        self._told = False
        _log.warning("NATS at %s: connected again", self._where())

    async def feed(self, intake: Intake) -> None:
        """Pull every application's frames for ever. Raises GroupConflict."""
        async with asyncio.TaskGroup() as tasks:
            for app in self._options.apps:
                tasks.create_task(self._follow(app, intake))

    async def _follow(self, app: str, intake: Intake) -> None:
        pull = _Pull()
        wake = asyncio.Event()
        inbox = self._client.new_inbox()

        async def on_message(message: Msg) -> None:
            pull.heard_at = asyncio.get_running_loop().time()
            await self._on_message(app, message, pull, intake)
            if pull.outstanding <= 0 or pull.trouble:
                wake.set()

        self._inboxes.append(await self._client.subscribe(inbox, cb=on_message))
        attempt = 0
        while True:
            if attempt:
                await asyncio.sleep(min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(attempt - 1, 10)))
            try:
                await self._ensure_group(app)
                while True:
                    attempt = await self._pull_once(app, inbox, pull, wake, intake, attempt)
            except _LOST as error:
                if not attempt:
                    _log.warning("events of %s are waited for: %s", app, _reason(error))
                attempt += 1

    async def _pull_once(
        self, app: str, inbox: str, pull: _Pull, wake: asyncio.Event, intake: Intake, attempt: int
    ) -> int:
        """One pull request, until it is used up. Returns the new attempt count. Raises what `_follow` retries."""
        loop = asyncio.get_running_loop()
        pull.outstanding = await intake.room(app)
        pull.trouble = ""
        pull.heard_at = loop.time()
        wake.clear()
        request = {
            "batch": pull.outstanding,
            "expires": int(PULL_EXPIRES_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        stream = subjects.stream_name(app)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{self._options.group}"
        await self._client.publish(subject, json.dumps(request).encode(), reply=inbox)
        while not wake.is_set():
            try:
                async with asyncio.timeout(SILENCE_MAX_S):
                    await wake.wait()
            except TimeoutError:
                # Not a beat heard: the request went down with its connection or its server.
                if loop.time() - pull.heard_at >= SILENCE_MAX_S:
                    raise
            else:
                break
        if pull.trouble:
            raise nats.errors.Error(pull.trouble)
        if attempt:
            _log.info("events of %s arrive", app)
        return 0

    async def _on_message(self, app: str, message: Msg, pull: _Pull, intake: Intake) -> None:
        if not message.reply:
            self._on_status(message, pull)
            return
        if not message.reply.startswith("$JS.ACK."):
            return
        pull.outstanding -= 1
        address = AckAddress.parse(message.reply)
        reply = _NatsReply(self._client, message.reply)
        if self._closing or intake.stopping:
            await reply.nak(0)
            return
        seen = address.published_ns, address.stream_seq
        self._last_seen[app] = max(self._last_seen.get(app, seen), seen)
        intake.push(
            Delivery(
                app=app,
                subject=message.subject,
                headers=message.headers,
                payload=message.data,
                stream_seq=address.stream_seq,
                tries=address.tries,
                reply=reply,
                received_ns=time.time_ns(),
                published_ns=address.published_ns,
            )
        )

    def _on_status(self, message: Msg, pull: _Pull) -> None:
        headers = message.headers or {}
        status = headers.get("Status", "")
        if status == _HEARTBEAT:
            return
        pull.outstanding = 0
        if status not in _PULL_ENDED:
            pull.trouble = headers.get("Description") or f"no consumer answers ({status})"

    async def _ensure_group(self, app: str) -> None:
        """Find or make the group's durable. Raises GroupConflict, and what means "not now"."""
        stream, options = subjects.stream_name(app), self._options
        lane = f"sandwich.{app}.events.{options.lane}.>"
        try:
            present = (await self._jetstream.consumer_info(stream, options.group)).config
        except nats.js.errors.NotFoundError as error:
            if error.err_code == 10059:
                raise
            present = await self._make_group(app, stream, lane)
        if present.filter_subject != lane:
            raise GroupConflict(f"group {options.group!r} of {app!r} reads {present.filter_subject}, not {lane}")
        if present.ack_wait != options.ack_wait_s:
            present.name = options.group
            present.ack_wait = options.ack_wait_s
            await self._jetstream.add_consumer(stream, present)

    async def _make_group(self, app: str, stream: str, lane: str) -> ConsumerConfig:
        options = self._options
        info = await self._jetstream.stream_info(stream)
        seen_ns, last_seen = self._last_seen.get(app, (0, 0))
        anew = info.created is not None and info.created.timestamp() > seen_ns / 1e9
        policy = start_policy(options.start, last_seen=last_seen, anew=anew)
        config = ConsumerConfig(
            # Without `name` nats-py uses the legacy create subject, which permissions may not allow.
            name=options.group,
            durable_name=options.group,
            filter_subject=lane,
            ack_wait=options.ack_wait_s,
            max_ack_pending=MAX_ACK_PENDING,
            **policy,
        )
        try:
            made: ConsumerConfig = (await self._jetstream.add_consumer(stream, config)).config
            return made
        except nats.js.errors.APIError as error:
            if error.err_code in _CONSUMER_EXISTS:
                found: ConsumerConfig = (await self._jetstream.consumer_info(stream, options.group)).config
                return found
            raise

    async def following(self, delivery: Delivery, after: int) -> Delivery | None:
        """See `Source.following`."""
        _, app, _, _, group, shard = delivery.subject.split(".")
        chain = subjects.chain_filter(app, int(group), int(shard))
        try:
            found = await self._jetstream.get_msg(subjects.stream_name(app), seq=after + 1, subject=chain, next=True)
        except nats.js.errors.NotFoundError:
            return None
        assert found.subject is not None
        assert found.seq is not None
        return Delivery(
            app=app,
            subject=found.subject,
            headers=found.headers,
            payload=found.data or b"",
            stream_seq=found.seq,
            tries=1,
            reply=delivery.reply,
        )

    async def close(self) -> None:
        """See `Source.close`. What is still under way to us is handed back as it arrives."""
        self._closing = True
        if self._client.is_closed:
            return
        try:
            async with asyncio.timeout(API_TIMEOUT_S):
                if self._client.is_connected:
                    # The server must forget our pull request before we go, or it sends frames to nobody.
                    for inbox in self._inboxes:
                        await inbox.drain()  # type: ignore[no-untyped-call]
                    await self._client.flush(2)
                await self._client.close()
        except _LOST as error:
            _log.warning("NATS: the connection did not close cleanly: %s", _reason(error))


def start_policy(start: str | datetime, *, last_seen: int, anew: bool) -> dict[str, Any]:
    """Where a new durable begins. One that was deleted under us goes on behind the last frame we saw.

    `anew`: the stream was made after that frame was stored, so all of it is new to us.
    """
    if (last_seen and anew) or (start == "all" and not last_seen):
        return {"deliver_policy": DeliverPolicy.ALL}
    if last_seen:
        return {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": last_seen + 1}
    if isinstance(start, datetime):
        return {"deliver_policy": DeliverPolicy.BY_START_TIME, "opt_start_time": start}
    return {"deliver_policy": DeliverPolicy.NEW}


def _reason(error: BaseException) -> str:
    """An error in words, without a URL that may hold a password."""
    if isinstance(error, nats.js.errors.APIError) and error.description:
        return str(error.description)
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    if type(error) is nats.errors.Error:
        return str(error)
    return type(error).__name__
