"""Encoding of what a shard sends, reading of the few payloads it must understand, and connect URLs. Pure."""

from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec

from sandwich_coordinator.gateway_trust import gateway_refusal
from sandwich_node.gateway import opcodes
from sandwich_node.gateway.envelope import ProtocolError
from sandwich_node.gateway.session import Session
from sandwich_node.secret import Secret

API_VERSION = 10
COMPRESSIONS = ("zstd-stream", "zlib-stream", "none")
PAYLOAD_BYTES_MAX = 4096
"""A larger payload closes the connection with 4002."""
HEARTBEAT_INTERVAL_MIN_S = 0.05
HEARTBEAT_INTERVAL_MAX_S = 600.0

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardConfig:
    """What a shard is.

    gateway_url      from GET /gateway/bot; IDENTIFY goes there
    api_url          no gateway is connected to that neither is Discord's nor has this URL's host; None: any is
    compression      "zstd-stream", "zlib-stream" or "none"
    large_threshold  50..250 members, above which offline members are left out of GUILD_CREATE
    presence         `d` of op 3, sent with IDENTIFY
    commands_max     commands waiting to be sent, at most
    """

    token: Secret
    shard: int
    count: int
    intents: int
    gateway_url: str
    api_url: str | None = None
    compression: str = "zstd-stream"
    large_threshold: int = 50
    presence: dict[str, Any] | None = None
    commands_max: int = 256
    properties: dict[str, str] = field(
        default_factory=lambda: {"os": "linux", "browser": "sandwich", "device": "sandwich"}
    )

    def __post_init__(self) -> None:
        """Raises ValueError for what no connection could be made with."""
        connect_url(self.gateway_url, self.compression)
        if self.compression not in COMPRESSIONS:
            raise ValueError(f"compression is one of {', '.join(COMPRESSIONS)}")
        if not 0 <= self.shard < self.count:
            raise ValueError(f"there is no shard {self.shard} of {self.count}")
        if not 50 <= self.large_threshold <= 250:
            raise ValueError("large_threshold is 50 to 250")

    def refusal(self, url: str) -> str:
        """Why the token may not be sent to `url`; "" when it may."""
        return "" if self.api_url is None else gateway_refusal(url, self.api_url)


def identify(config: ShardConfig, presence: dict[str, Any] | None) -> bytes:
    """Op 2 (https://discord.com/developers/docs/events/gateway-events#identify)."""
    data: dict[str, Any] = {
        "token": config.token.reveal(),
        "properties": config.properties,
        "intents": config.intents,
        "large_threshold": config.large_threshold,
        "shard": [config.shard, config.count],
    }
    if presence is not None:
        data["presence"] = presence
    return _encode({"op": opcodes.IDENTIFY, "d": data})


def resume(token: Secret, session: Session) -> bytes:
    """Op 6."""
    data = {"token": token.reveal(), "session_id": session.id, "seq": session.sequence}
    return _encode({"op": opcodes.RESUME, "d": data})


def heartbeat(sequence: int | None) -> bytes:
    """Op 1: the last sequence seen, null before the first."""
    return b'{"op":1,"d":%s}' % (b"null" if sequence is None else b"%d" % sequence)


def command(op: int, data: dict[str, Any]) -> bytes:
    """A gateway command. Raises ValueError when it is none, cannot be encoded or is too large to be sent."""
    if op not in opcodes.COMMANDS:
        raise ValueError(f"op {op} is not a gateway command")
    try:
        payload = _encode({"op": op, "d": data})
    except (TypeError, msgspec.MsgspecError, RecursionError, UnicodeEncodeError) as error:
        raise ValueError(f"the command cannot be encoded ({type(error).__name__})") from None
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"the command has {len(payload)} bytes; Discord takes at most {PAYLOAD_BYTES_MAX}")
    return payload


def connect_url(base: str, compression: str) -> str:
    """The URL to connect to: only scheme, host and path of `base`, and the parameters this program needs.

    Raises ValueError when `base` is not a websocket URL.
    """
    parts = urlsplit(base)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError("a gateway URL must begin with ws:// or wss:// and name a host")
    # Put together from its parts: what one parser takes for the host, another could take for a user's name.
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    host = host if parts.port is None else f"{host}:{parts.port}"
    query = {"v": str(API_VERSION), "encoding": "json"}
    if compression != "none":
        query["compress"] = compression
    return urlunsplit((parts.scheme, host, parts.path or "/", urlencode(query), ""))


def usable_resume_url(url: str, base: str) -> bool:
    """Whether the token may be sent to `url`: a websocket URL, no less protected than `base`."""
    try:
        parts = urlsplit(url)
        both_open = (parts.scheme, urlsplit(base).scheme) == ("ws", "ws")
        return bool(parts.hostname) and parts.port != 0 and (parts.scheme == "wss" or both_open)
    except ValueError:
        return False


class _Hello(msgspec.Struct):
    heartbeat_interval: float


class _User(msgspec.Struct):
    id: str
    username: str = ""


class _Guild(msgspec.Struct):
    id: str


class Ready(msgspec.Struct):
    """The fields of READY that the protocol needs."""

    session_id: str
    user: _User
    resume_gateway_url: str = ""
    guilds: list[_Guild] = []


_UNKNOWN_USER = _User("")
SESSION_ID_CHARS_MAX = 512
"""Far above any of Discord's; a RESUME with it still fits into a payload."""


_hello = msgspec.json.Decoder(_Hello)
_ready = msgspec.json.Decoder(Ready)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_string = msgspec.json.Decoder(str)
_user = msgspec.json.Decoder(_User)
_guild = msgspec.json.Decoder(_Guild)
_Payload = TypeVar("_Payload")


def _read(decoder: msgspec.json.Decoder[_Payload], data: bytes, what: str) -> _Payload:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise ProtocolError(f"malformed {what}") from None


def read_hello(data: bytes) -> float:
    """The heartbeat interval in seconds. Raises ProtocolError when it is missing or absurd."""
    seconds = _read(_hello, data, "HELLO").heartbeat_interval / 1000
    if not HEARTBEAT_INTERVAL_MIN_S <= seconds <= HEARTBEAT_INTERVAL_MAX_S:
        raise ProtocolError(f"HELLO asks for a heartbeat every {seconds} s")
    return seconds


def read_ready(data: bytes) -> Ready:
    """READY's fields. Raises ProtocolError when the session has no id that can be used.

    An IDENTIFY was spent for it: whatever else in it is damaged counts as absent (the user's id is "" then).
    """
    try:
        ready = _ready.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        ready = _damaged_ready(data)
    if not 0 < len(ready.session_id) <= SESSION_ID_CHARS_MAX:
        raise ProtocolError("malformed READY: no session id")
    if not _is_id(ready.user.id):
        ready.user = _UNKNOWN_USER
    ready.guilds = [guild for guild in ready.guilds if _is_id(guild.id)]
    return ready


def _damaged_ready(data: bytes) -> Ready:
    fields = _read(_fields, data, "READY")
    guilds = (_part(_guild, item) for item in _part(_items, fields.get("guilds")) or ())
    return Ready(
        _part(_string, fields.get("session_id")) or "",
        _part(_user, fields.get("user")) or _UNKNOWN_USER,
        _part(_string, fields.get("resume_gateway_url")) or "",
        [guild for guild in guilds if guild is not None],
    )


def _part(decoder: msgspec.json.Decoder[_Payload], data: msgspec.Raw | None) -> _Payload | None:
    """A part of a damaged payload; None when it cannot be read or is not there."""
    try:
        return decoder.decode(data) if data is not None else None
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def _is_id(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 20
