"""The simulator's configuration: bots, worlds, limits. Plain values; the defaults are Discord's."""

import base64
import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from .intents import ALL_INTENTS
from .snowflakes import snowflake

HEARTBEAT_INTERVAL_MS = 41_250
IDENTIFY_INTERVAL_S = 5.0
RESUME_WINDOW_S = 180.0
BUDGET_WINDOW_S = 24 * 3600.0
MIXES = ("varied", "messages", "presences")
"""What traffic consists of: see `mix`."""
_APPLICATION_EPOCH_MS = 1_500_000_000_000


class ConfigError(ValueError):
    """An invalid configuration; the message names the field."""


def _application_of(token: str) -> int:
    """The application id at the start of a real token (base64); for other tokens an id from the token's hash."""
    first = token.split(".")[0]
    with suppress(ValueError):
        return int(base64.b64decode(first + "=" * (-len(first) % 4), validate=True).decode("ascii"))
    digest = int.from_bytes(hashlib.blake2b(token.encode(), digest_size=4).digest(), "big")
    return snowflake(_APPLICATION_EPOCH_MS + digest, digest & 0xFFF)


@dataclass(kw_only=True)
class BotConfig:
    """One bot. The application id is also the bot's user id, as for every bot created since 2016."""

    token: str = field(repr=False)
    application_id: int = 0
    name: str = ""
    guilds: int = 10
    members_per_guild: int = 20
    recommended_shards: int = 0
    max_concurrency: int = 1
    session_limit: int = 1000
    allowed_intents: int = ALL_INTENTS
    shard_multiple: int = 1
    seed: int | None = None
    world: str = ""
    """Bots of one world share its guilds. Each is in the first `guilds` of them; the first bot configures them."""
    hidden_channels: float = 0.08
    """The share of channels that a bot may not view."""
    obfuscation: bool = True
    """Whether such channels are sent redacted, as for every bot since 16 November 2026."""
    redacts_lost_access: bool = True
    """Whether a channel that a bot can no longer view is sent redacted at once; else only with its next change."""
    silent_guilds: float = 0.0
    """The share of guilds that READY lists and for which no other event is ever sent."""
    outage_stubs: bool = False
    """Whether a guild in an outage is sent as `GUILD_CREATE {id, unavailable: true}` instead of GUILD_DELETE."""
    messages_kept: int = 8
    """How many messages of each channel and thread the world keeps."""
    unmanaged_guilds: float = 0.0
    """The share of guilds that the bot may not manage; in half of them it may view the audit log."""
    vanity_guilds: float = 0.0
    """The share of guilds that have a vanity URL."""
    mix: str = MIXES[0]
    """What the world's traffic consists of: one of MIXES."""

    def __post_init__(self) -> None:
        if not self.token:
            raise ConfigError("token: must not be empty")
        if self.guilds < 0 or self.members_per_guild < 1 or self.max_concurrency < 1:
            raise ConfigError("guilds >= 0, members_per_guild >= 1 and max_concurrency >= 1 are required")
        for name in ("hidden_channels", "silent_guilds", "unmanaged_guilds", "vanity_guilds"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a share, between 0 and 1")
        if self.messages_kept < 1:
            raise ConfigError("messages_kept is at least 1")
        if self.mix not in MIXES:
            raise ConfigError(f"mix is one of {', '.join(MIXES)}")
        self.application_id = self.application_id or _application_of(self.token)
        self.name = self.name or f"bot-{self.application_id % 100_000}"
        self.recommended_shards = self.recommended_shards or max(1, self.guilds // 1000 + 1)

    @property
    def id(self) -> str:
        """The application id as Discord writes it."""
        return str(self.application_id)


_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""By wildcard listen address: the address that clients can connect to."""


@dataclass(kw_only=True)
class SimulatorConfig:
    """The whole simulator. Durations in seconds unless the name says otherwise; `replay_events` None: the formula."""

    bots: list[BotConfig] = field(default_factory=list)
    host: str = "127.0.0.1"
    port: int = 0
    advertise: str = ""
    """HOST or HOST:PORT at which clients reach it; "": the listen address, or this machine's loopback address."""
    seed: int = 0
    rate: float = 0.0
    heartbeat_interval_ms: int = HEARTBEAT_INTERVAL_MS
    heartbeat_tolerance: float = 1.5
    heartbeat_timeout_code: int = 1000
    identify_interval_s: float = IDENTIFY_INTERVAL_S
    identify_timeout_s: float = 60.0
    resume_window_s: float = RESUME_WINDOW_S
    replay_events: int | None = None
    budget_window_s: float = BUDGET_WINDOW_S
    send_limit: int = 120
    send_window_s: float = 60.0
    request_members_interval_s: float = 30.0
    close_after_invalid_session: bool = False
    outbox_bytes_max: int = 256 * 1024 * 1024
    resume_url: str | None = None
    rest_limits: bool = True
    journal_path: Path | None = None

    def __post_init__(self) -> None:
        self.reached_at(1)

    def reached_at(self, port: int) -> str:
        """HOST:PORT for clients' URLs, given the listen port. Raises ConfigError."""
        if not self.advertise:
            return f"{_in_url(_ANYWHERE.get(self.host, self.host))}:{port}"
        try:
            parts = urlsplit(f"//{self.advertise}")
            host, own_port = parts.hostname or "", parts.port
        except ValueError:
            host, own_port = "", None
        plain = parts.netloc == self.advertise and parts.username is None and host == host.strip()
        if not host or not plain or host in _ANYWHERE:
            raise ConfigError(f"advertise {self.advertise!r}: HOST or HOST:PORT is expected, such as discord.test:8090")
        return f"{_in_url(host)}:{own_port or port}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def load_config(path: Path) -> SimulatorConfig:
    """Reads a configuration from JSON: the fields of SimulatorConfig, or a list of bots.

    Raises ConfigError that names the mistake; unknown fields are mistakes.
    """
    try:
        raw = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path.name}: {error}") from error
    document = {"bots": raw} if isinstance(raw, list) else raw
    if not isinstance(document, dict):
        raise ConfigError("an object or a list of bots is expected")
    return _convert(document)


def _convert(document: dict[str, object]) -> SimulatorConfig:
    unknown = set(document) - set(SimulatorConfig.__dataclass_fields__)
    if unknown:
        raise ConfigError(f"unknown fields: {', '.join(sorted(unknown))}")
    bots = document.get("bots", [])
    for bot in bots if isinstance(bots, list) else []:
        unknown = set(bot) - set(BotConfig.__dataclass_fields__)
        if unknown:
            raise ConfigError(f"unknown fields of a bot: {', '.join(sorted(unknown))}")
    try:
        return msgspec.convert(document, SimulatorConfig, strict=False, dec_hook=lambda kind, value: kind(value))
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from error


def parse_bot(text: str) -> BotConfig:
    """Parses `token:guilds[:shards[:max_concurrency]]`. Raises ConfigError; its message does not contain the token."""
    token, *numbers = text.split(":")
    try:
        guilds, shards, concurrency = [int(number) for number in numbers] + [10, 0, 1][len(numbers) :]
    except ValueError as error:
        raise ConfigError("a bot is token:guilds[:shards[:max_concurrency]]") from error
    return BotConfig(token=token, guilds=guilds, recommended_shards=shards, max_concurrency=concurrency)
