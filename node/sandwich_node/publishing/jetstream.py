"""The event log in NATS JetStream: streams and compare-and-append.

Error codes are the server's (`nats-io/nats-server`, server/errors.json): 10071 wrong last sequence, 10164 another
append of the subject is in process, 10059 stream not found, 10076/10039 JetStream not enabled, 10023/10077 no space.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RawStreamMsg, RetentionPolicy, StorageType, StreamConfig

from sandwich_coordinator.problems import Code, Problem
from sandwich_node.nats_connection import APPEND_TIMEOUT_S, NatsConnection
from sandwich_node.publishing.appends import AppendRefused, NoAck, NoStream
from sandwich_node.publishing.awaited_answers import AwaitedAnswers
from sandwich_node.publishing.consumption import Consumption, group_lags, messages_of, next_offset
from sandwich_node.publishing.jetstream_health import account_problems, stream_problems
from sandwich_node.publishing.log import (
    Append,
    Extent,
    Foreign,
    LogBusy,
    LogError,
    LogUnavailable,
    OnAnswer,
    Page,
    PayloadTooLarge,
    StoredFrame,
    StreamLimits,
    StreamMissing,
    Tail,
    WrongLast,
)
from sandwich_sdk.cancellation import honouring_cancel
from sandwich_sdk.streams import foreign_settings, keep_streams
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.headers import EXPECTED_LAST_SUBJECT, FrameHeaders, NewerVersion, WireError

_log = logging.getLogger(__name__)

API_TIMEOUT_S = 5.0
PAGE_MESSAGES_MAX = 256
PAGE_BYTES_MAX = 4 * 1024 * 1024
PART_RESERVE_BYTES = 16 * 1024
"""Kept free in each message for headers and protocol."""

SERVER_VERSION_MIN = (2, 12)
"""The guard over a wildcard (`Nats-Expected-Last-Subject-Sequence-Subject`) and atomic batches are there since."""

_SEQUENCE = "Nats-Sequence"
_SUBJECT = "Nats-Subject"

_WRONG_LAST = 10071
_BUSY = 10164
_NO_STREAM = 10059
_NO_SPACE = {
    10023: "the server's storage limit (`max_file_store`) is reached",
    10077: "the stream's `max_bytes` are used up and it discards new messages: it is not ours",
}
_NO_ANSWER = (
    f"NATS is connected and did not answer an append in {APPEND_TIMEOUT_S:g} s: is its disk full (free space, then "
    "restart it), or has the stream lost its quorum?"
)
_OWNER = "sandwich.cluster"
"""In a stream's metadata: the name of the cluster that made it."""


class JetStreamLog:
    """Implements `Log` over one connection. All shards of a worker share it.

    `cluster`: the owner of the streams that it makes; "" sets none. `limits`: of streams that have no limits of their
    own. `on_remade(app)` is called when a stream that existed was deleted and is made again.
    """

    def __init__(
        self,
        connection: NatsConnection,
        *,
        cluster: str = "",
        limits: StreamLimits | None = None,
        on_remade: Callable[[str], None] = lambda app: None,
    ) -> None:
        self.connection = connection
        self._cluster = cluster
        self._default_limits = limits or StreamLimits()
        self._on_remade = on_remade
        self._maker = f"{connection.name} {uuid.uuid4().hex}"
        self._limits: dict[str, StreamLimits] = {}
        self._client = connection.client
        self._jetstream = JetStreamContext(self._client, timeout=API_TIMEOUT_S)
        self._ensured: set[str] = set()
        self._kept: set[str] = set()
        self._ensure_lock = asyncio.Lock()
        self._awaited = AwaitedAnswers()

    async def check(self) -> None:
        """Raise LogUnavailable unless JetStream is enabled and answers, on a server that knows our guard."""
        version = self._client.connected_server_version
        if (version.major, version.minor) < SERVER_VERSION_MIN:
            raise LogUnavailable(
                f"nats-server {version.major}.{version.minor} is too old: "
                f"{SERVER_VERSION_MIN[0]}.{SERVER_VERSION_MIN[1]} or newer is needed",
                Code.NATS_OLD,
            )
        try:
            await self._jetstream.account_info()
        except nats.js.errors.ServiceUnavailableError:
            raise LogUnavailable("JetStream is not enabled on this NATS server", Code.JETSTREAM_DISABLED) from None
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LogUnavailable(
                f"JetStream does not answer: {self.connection.reason(error)}", Code.JETSTREAM_SILENT
            ) from None

    async def problems(self, apps: Iterable[str]) -> list[Problem]:
        """The problems of JetStream and of these applications' streams; [] while NATS is away."""
        if not self._client.is_connected:
            return []
        streams = [subjects.stream_name(app) for app in sorted(apps)]
        requests = ["$JS.API.INFO", *(f"$JS.API.STREAM.INFO.{stream}" for stream in streams)]
        account, *infos = await asyncio.gather(*(self._ask(request) for request in requests))
        if found := account_problems(account):
            # Without it no stream answers either.
            return found
        return [one for name, info in zip(streams, infos, strict=True) for one in stream_problems(name, info)]

    async def consumers(self, apps: Iterable[str]) -> Consumption:
        """The lag of every consumer group and the dead letters; nothing while NATS is away."""
        found = Consumption()
        for app in sorted(apps):
            if not self.connection.is_connected:
                return Consumption()
            pages: list[bytes] = []
            while (offset := next_offset(pages)) is not None:
                subject = f"$JS.API.CONSUMER.LIST.{subjects.stream_name(app)}"
                pages.append(await self._ask(subject, b'{"offset": %d}' % offset) or b"")
            found.groups += group_lags(app, pages)
            found.dead_letters[app] = messages_of(
                await self._ask(f"$JS.API.STREAM.INFO.{subjects.dead_stream_name(app)}")
            )
        return found

    async def _ask(self, subject: str, body: bytes = b"") -> bytes | None:
        """The answer; None when there is none. A request that NATS does not permit counts as an empty answer."""
        try:
            return (await self._client.request(subject, body, timeout=API_TIMEOUT_S)).data
        except (nats.errors.Error, OSError, TimeoutError):
            return None if self._client.is_connected else b"{}"

    @property
    def part_bytes(self) -> int:
        """The largest payload one message may carry, as the server said at connect."""
        limit = self._client.max_payload
        return max(limit - PART_RESERVE_BYTES, limit // 2)

    def limit_stream(self, app: str, limits: StreamLimits) -> None:
        """See `Log.limit_stream`."""
        if self._limits.get(app) != limits:
            self._limits[app] = limits
            self._ensured.discard(app)

    async def append(self, append: Append) -> int:
        """See `Log.append`."""
        if not self._client.is_connected:
            raise LogUnavailable(self.connection.absence())
        if len(append.payload) > self._client.max_payload:
            raise PayloadTooLarge(f"a frame of {len(append.payload)} bytes is above the server's max_payload")
        try:
            return await self.connection.appends.append(append)
        except NoStream:
            raise await self._no_answer(append.subject) from None
        except (AppendRefused, NoAck, nats.errors.Error, OSError) as error:
            raise self._append_error(error) from None

    def begin(self, append: Append, on_answer: OnAnswer) -> None:
        """See `Log.begin`."""
        appends, client = self.connection.appends, self._client
        if not appends.is_open or not client.is_connected or len(append.payload) > client.max_payload:
            # Rare, and `append` knows what to say.
            self._awaited.give(self.append(append), on_answer)
            return

        def on_result(result: int | Exception) -> None:
            if isinstance(result, int):
                on_answer(result)
            elif isinstance(result, NoStream):
                self._awaited.give(self._raise_no_answer(append.subject), on_answer)
            else:
                on_answer(self._append_error(result))

        appends.begin(append, on_result)

    async def _raise_no_answer(self, subject: str) -> int:
        raise await self._no_answer(subject)

    def _append_error(self, error: Exception) -> LogError:
        if isinstance(error, AppendRefused):
            return _refusal(error)
        if isinstance(error, NoAck):
            return LogUnavailable(_NO_ANSWER if self._client.is_connected else self.connection.absence())
        return LogUnavailable(f"append had no answer: {self.connection.reason(error)}")

    async def _no_answer(self, subject: str) -> LogError:
        """No responder for the subject: the stream is missing, or it has no leader now."""
        stream = subjects.stream_name(subject.split(".")[1])
        try:
            await self._jetstream.stream_info(stream)
        except nats.js.errors.NotFoundError:
            return StreamMissing(f"stream {stream} does not exist")
        except (nats.errors.Error, OSError, TimeoutError) as error:
            return LogUnavailable(f"JetStream does not answer: {self.connection.reason(error)}")
        return LogUnavailable(f"stream {stream} has no leader now")

    async def tail(self, stream: str, chain: str) -> Tail | Foreign | None:
        """See `Log.tail`."""
        return await self._read(stream, chain, None)

    async def following(self, stream: str, chain: str, seq: int) -> Tail | Foreign | None:
        """See `Log.following`."""
        return await self._read(stream, chain, seq)

    async def _read(self, stream: str, chain: str, seq: int | None) -> Tail | Foreign | None:
        """The chain's last message, or its first from `seq` on."""
        if not self._client.is_connected:
            raise LogUnavailable(self.connection.absence())
        try:
            with honouring_cancel():
                if seq is None:
                    found = await self._jetstream.get_last_msg(stream, chain)
                else:
                    found = await self._jetstream.get_msg(stream, seq=seq, subject=chain, next=True)
        except nats.js.errors.NotFoundError as error:
            if error.err_code == _NO_STREAM:
                raise StreamMissing(f"stream {stream} does not exist") from None
            return None
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LogUnavailable(f"the chain's last frame could not be read: {self.connection.reason(error)}") from None
        return read_message(found, chain)

    async def extent(self, stream: str) -> Extent:
        """See `Log.extent`."""
        if not self._client.is_connected:
            raise LogUnavailable(self.connection.absence())
        try:
            with honouring_cancel():
                state = (await self._jetstream.stream_info(stream)).state
        except nats.js.errors.NotFoundError:
            raise StreamMissing(f"stream {stream} does not exist") from None
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LogUnavailable(f"JetStream does not answer: {self.connection.reason(error)}") from None
        return Extent(state.first_seq, state.last_seq)

    async def read(self, stream: str, subjects: str, seq: int) -> Page:
        """See `Log.read`: one batched direct get (NATS: ADR-31), which any replica answers."""
        if not self._client.is_connected:
            raise LogUnavailable(self.connection.absence())
        ask = {"seq": seq, "next_by_subj": subjects, "batch": PAGE_MESSAGES_MAX, "max_bytes": PAGE_BYTES_MAX}
        try:
            with honouring_cancel():
                messages = await self._page(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(ask))
        except nats.errors.NoRespondersError:
            # The stream is missing, or it has no leader now: asking its leader makes out which.
            await self.extent(stream)
            raise LogUnavailable(f"stream {stream} does not answer") from None
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LogUnavailable(f"the stream could not be read: {self.connection.reason(error)}") from None
        frames = [frame for message in messages if (frame := _stored_frame(message)) is not None]
        last = messages[-1].headers if messages else None
        return Page(tuple(frames), int(last[_SEQUENCE]) + 1 if last else seq)

    async def _page(self, subject: str, ask: bytes) -> list[Msg]:
        """The messages that answer; raises TimeoutError when their end does not come."""
        inbox = self._client.new_inbox()
        answers = await self._client.subscribe(inbox)
        try:
            await self._client.publish(subject, ask, reply=inbox)
            messages: list[Msg] = []
            async with asyncio.timeout(API_TIMEOUT_S):
                while True:
                    message = await answers.next_msg(timeout=API_TIMEOUT_S)
                    headers = message.headers or {}
                    if _SEQUENCE in headers:
                        messages.append(message)
                        continue
                    status = headers.get("Status", "")
                    if status == "503":
                        raise nats.errors.NoRespondersError
                    if status not in ("204", "404"):
                        raise nats.errors.Error(f"{status} {headers.get('Description', '')}".strip())
                    return messages
        finally:
            await answers.unsubscribe()

    async def ensure_stream(self, app: str) -> None:
        """See `Log.ensure_stream`. Replicas, age and size follow the configuration; everything else stays."""
        async with self._ensure_lock:
            try:
                with honouring_cancel():
                    await self._ensure_stream(app)
                    await self._keep_others(app)
            except (nats.errors.Error, OSError, TimeoutError) as error:
                raise LogUnavailable(f"stream for {app} could not be made: {self.connection.reason(error)}") from None

    async def _ensure_stream(self, app: str) -> None:
        wanted = self._stream_config(app)
        assert wanted.name is not None
        try:
            present = (await self._jetstream.stream_info(wanted.name)).config
        except nats.js.errors.NotFoundError:
            try:
                # `made_by`: without it, JetStream answers "created" to each of several that make it at once.
                owner = {_OWNER: self._cluster} if self._cluster else {}
                await self._jetstream.add_stream(wanted, metadata={"sandwich.made_by": self._maker, **owner})
            except nats.js.errors.BadRequestError:
                # Another worker made it after our look: one of this cluster, or of another.
                present = (await self._jetstream.stream_info(wanted.name)).config
            else:
                self._say_made(app, wanted.name)
                self._kept.discard(app)
                self._ensured.add(app)
                return
        fields = ("subjects", "max_age", "max_bytes", "num_replicas", "allow_direct", "allow_msg_ttl")
        changed: dict[str, Any] = {
            name: getattr(wanted, name) for name in fields if getattr(present, name) != getattr(wanted, name)
        }
        changed |= foreign_settings(present)
        if present.mirror is not None:
            raise LogUnavailable(f"stream {wanted.name} is a mirror of another: it is not ours")
        if (other := self._other_owner(present)) is not None:
            raise LogUnavailable(
                f"stream {wanted.name} belongs to cluster {other!r}, which is on the same NATS and has an application "
                "of this name: give one of the two another name (where that cluster is no more: remove "
                f"{_OWNER} from the stream's metadata)"
            )
        if self._cluster and _OWNER not in (present.metadata or {}):
            changed["metadata"] = {**(present.metadata or {}), _OWNER: self._cluster}
        if present.retention != RetentionPolicy.LIMITS or present.storage != StorageType.FILE:
            raise LogUnavailable(f"stream {wanted.name} exists with another retention or storage: it is not ours")
        if changed:
            await self._jetstream.update_stream(present, **changed)
            _log.info("stream %s was brought in line: %s", wanted.name, ", ".join(sorted(changed)))
        self._ensured.add(app)

    def _other_owner(self, stream: StreamConfig) -> str | None:
        """The cluster that a stream belongs to, when it is not ours."""
        owner = (stream.metadata or {}).get(_OWNER, "")
        return owner if owner and self._cluster and owner != self._cluster else None

    async def belongs_elsewhere(self, app: str) -> bool:
        """Whether another cluster on this NATS has an application of this name; False where that cannot be seen."""
        try:
            with honouring_cancel():
                present = (await self._jetstream.stream_info(subjects.stream_name(app))).config
        except (nats.errors.Error, OSError, TimeoutError):
            return False
        return self._other_owner(present) is not None

    async def _keep_others(self, app: str) -> None:
        """Make the streams of dead letters and what belongs to them. Events do not wait for one that cannot be made."""
        if app in self._kept:
            return
        try:
            async with asyncio.timeout(API_TIMEOUT_S):
                await keep_streams(self._jetstream, app, replicas=self._limits_of(app).replicas)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            _log.warning("the streams for dead letters of %s could not be made: %s", app, self.connection.reason(error))
        self._kept.add(app)

    def _limits_of(self, app: str) -> StreamLimits:
        return self._limits.get(app, self._default_limits)

    def _say_made(self, app: str, stream: str) -> None:
        if app in self._ensured:
            _log.error(
                "stream %s was deleted under its shards and is made again: what no consumer had read is lost",
                stream,
            )
            self._on_remade(app)
        else:
            _log.info("stream %s was made", stream)

    def _stream_config(self, app: str) -> StreamConfig:
        limits = self._limits_of(app)
        return StreamConfig(
            name=subjects.stream_name(app),
            subjects=subjects.stream_subjects(app),
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            max_age=limits.max_age_s,
            max_bytes=limits.max_bytes or -1,
            num_replicas=limits.replicas,
            allow_direct=True,
            # For lanes with a retention of their own.
            allow_msg_ttl=True,
        )

    async def publish_status(self, app: str, body: bytes) -> None:
        """Publish a status change. Nothing waits for it, and it is lost while NATS is away."""
        if not self._client.is_connected:
            return
        try:
            await self._client.publish(subjects.status_subject(app), body)
        except (nats.errors.Error, OSError) as error:
            _log.debug("a status message of %s was not sent: %s", app, self.connection.reason(error))


def _stored_frame(message: Msg) -> StoredFrame | None:
    """The frame; None for a message that no node wrote. Raises as `read_message` does."""
    headers = message.headers or {}
    app, _, group, shard = _tokens(headers.get(_SUBJECT, ""))
    stored = RawStreamMsg(subject=headers[_SUBJECT], seq=int(headers[_SEQUENCE]), headers=headers)
    found = read_message(stored, f"sandwich.{app}.events.*.{group}.{shard}")
    if isinstance(found, Foreign):
        return None
    return StoredFrame(found.stream_seq, headers[_SUBJECT], found.headers, message.data or b"")


def _tokens(subject: str) -> tuple[str, str, str, str]:
    """Application, lane, group and shard of an event's subject; "" for each when it is none."""
    parts = subject.split(".")
    return (parts[1], parts[3], parts[4], parts[5]) if len(parts) == 6 else ("", "", "", "")


def read_message(message: RawStreamMsg, chain: str) -> Tail | Foreign:
    """A message of the stream as the chain's writer sees it.

    Every append of a node names the chain as its guard, and the stream keeps that header: a frame without it was copied
    there. Raises LogUnavailable for a frame of a newer version: this node is too old for the cluster.
    """
    assert message.seq is not None
    headers = message.headers or {}
    guard = headers.get(EXPECTED_LAST_SUBJECT, "")
    if guard not in ("", chain):
        return Foreign(message.seq)
    try:
        read = FrameHeaders.decode(headers)
    except NewerVersion as error:
        if not guard:
            return Foreign(message.seq)
        raise LogUnavailable(f"the last message on {chain} cannot be read: {error}") from None
    except WireError:
        return Foreign(message.seq)
    tail = Tail(message.seq, read, message.time.timestamp() if message.time is not None else None)
    return tail if guard else Foreign(message.seq, tail)


def _refusal(refusal: AppendRefused) -> LogError:
    """What JetStream's refusal means for the writer of a chain."""
    code = refusal.code
    if code == _WRONG_LAST:
        return WrongLast(str(refusal))
    if code == _BUSY:
        return LogBusy(str(refusal))
    if code == _NO_STREAM:
        return StreamMissing(str(refusal))
    if code in _NO_SPACE:
        return LogUnavailable(f"JetStream has no space: {_NO_SPACE[code]} ({code})")
    return LogUnavailable(f"JetStream refused the append: {refusal} ({code})")
