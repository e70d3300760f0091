"""The models of cluster.yml (pydantic), and of the cluster's `config` key (`ClusterSettings`).

Passwords and tokens are SecretStr as soon as they are read, and no message repeats a value. In the stored
settings they are sealed with the cluster key, bound to `NATS_SECRET` and `REDIS_SECRET` (their slash keeps them
distinct from application names). `ClusterKey.unseal` opens them.
"""

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import msgspec
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sandwich_coordinator.access.exposure import OpenPage, is_loopback
from sandwich_coordinator.access.roles import RoleName
from sandwich_coordinator.app_options import (
    CacheConfig,
    EventsConfig,
    InvitesConfig,
    LaneConfig,
    MessagesConfig,
    PrefixConfig,
)
from sandwich_coordinator.autoscale import parse_window
from sandwich_coordinator.config_urls import check_database, server_url
from sandwich_coordinator.config_values import (
    Duration,
    FilePath,
    ListOf,
    Name,
    Number,
    Secret,
    SecretSource,
    Section,
    Size,
    check_reserve,
    seconds,
)
from sandwich_coordinator.intents import check_intents, intents_from_names
from sandwich_coordinator.placement import check_label
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.ranges import parse_ranges
from sandwich_coordinator.shard_counts import GUILDS_PER_SHARD_MAX
from sandwich_coordinator.types import Record, ShardsSpec

SHARDS_MAX = 65_536
LOGIN_GUILDS_MAX = 5
"""Each is a request at every sign-in."""
LOGIN_ROLES_MAX = 10
"""Of one guild: those that a user has are in the web session, and a cookie has at most 4 KiB."""
PLACEMENT_MAX = 16
"""How many labels an application may require."""


_NATS_URL = server_url(
    ("nats", "tls", "ws", "wss"), secrets="write nats.user and nats.password: {env: NAME}, or nats.credentials"
)
_REDIS_URL = server_url(
    ("redis", "rediss", "unix"), secrets="write redis.password: {env: NAME}", login=True, options=("db",)
)
_PROXY_URL = server_url(("http", "https"), secrets="a proxy with a password is not supported")
_PUBLIC_URL = server_url(("http", "https"), secrets="it is shown to users")
_API_URL = server_url(("http", "https"), secrets="a bot's token goes into apps.NAME.token: {env: NAME}")


def _version(value: object) -> object:
    if type(value) is not int or value != 1:
        raise ValueError("must be 1: the version of this file's format")
    return value


def _intents(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return check_intents(value)
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return intents_from_names(value)
    raise ValueError("must be a list of intent names, or one integer")


def _count(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= SHARDS_MAX):
        return value
    raise ValueError(f"must be auto, or a number from 1 to {SHARDS_MAX}")


def _ids(value: object) -> object:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not parse_ranges(text, count=SHARDS_MAX, once=True):
        raise ValueError('must be shard ranges such as "0-7,12"')
    return text


def _placement(value: dict[str, str]) -> dict[str, str]:
    for name, required in value.items():
        check_label(name, required)
    return dict(sorted(value.items()))


class TlsConfig(Section):
    """Paths on every node. `ca` alone checks the server; with `cert` and `key` the server checks us too."""

    ca: FilePath | None = None
    cert: FilePath | None = None
    key: FilePath | None = None


class StreamConfig(Section):
    """How many events JetStream keeps; `max_bytes` 0 is no limit."""

    max_age: Annotated[Duration, seconds(60, 31_536_000)] = 86_400.0
    max_bytes: Size = 0


class NatsConfig(Section):
    """Where events are published. `replicas` is the number of copies of each stream."""

    servers: ListOf[Annotated[str, _NATS_URL]] = Field(min_length=1)
    user: str | None = None
    password: Secret | None = None
    credentials: FilePath | None = None
    tls: TlsConfig = TlsConfig()
    replicas: int = Field(default=1, ge=1, le=5)
    stream: StreamConfig = StreamConfig()


class RedisConfig(Section):
    """Where state is cached. The URL may contain a user (ACL); a password in it is removed and sealed."""

    url: Annotated[SecretStr, AfterValidator(lambda value: _redis_url(value))]
    password: Secret | None = None
    tls: TlsConfig = TlsConfig()


def _redis_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    _REDIS_URL.func(url)
    check_database(url)
    return value


class DiscordConfig(Section):
    """Discord's address (or a simulator's), and the proxy to reach it."""

    api_url: Annotated[str, _API_URL] = "https://discord.com/api/v10"
    proxy: Annotated[str, _PROXY_URL] | None = None


def _public_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.path not in ("", "/"):
        raise ValueError("has a path: write only the scheme, the host and the port")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("must start with https://: who signs in over plain http gives the web session away")
    return value.rstrip("/")


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        raise ValueError("must be an address or a network, such as 10.0.0.5 or 10.0.0.0/24") from None


def _snowflake(value: object) -> object:
    text = str(value) if type(value) is int else value
    if not (isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) <= 20):
        raise ValueError('must be an id of Discord, such as "613425648685547541"')
    return text


Snowflake = Annotated[str, BeforeValidator(_snowflake)]


class DiscordLoginConfig(Section):
    """Users sign in with Discord. `guilds`: by guild, which of its roles has which role here."""

    client_id: Snowflake
    client_secret: Secret
    guilds: dict[Snowflake, Annotated[dict[Snowflake, RoleName], Field(max_length=LOGIN_ROLES_MAX)]] = Field(
        default={}, max_length=LOGIN_GUILDS_MAX
    )


class ApiConfig(Section):
    """The HTTP API: where it is on, what is open, and who signs in."""

    enabled: bool | Literal["auto"] = "auto"
    open: ListOf[OpenPage] | None = None
    public_url: Annotated[str, _PUBLIC_URL, AfterValidator(_public_url)] | None = None
    trusted_proxies: ListOf[Annotated[str, AfterValidator(_network)]] = ()
    discord_login: DiscordLoginConfig | None = None

    @model_validator(mode="after")
    def _login_needs_address(self) -> Self:
        if self.discord_login is not None and self.public_url is None:
            raise ValueError("discord_login needs public_url: Discord sends users back to it")
        return self


class PolicyConfig(Section):
    """Limits of the cluster's decisions; see policy.py for what each does."""

    lease_ttl: Annotated[Duration, seconds(2, 60)] = 5.0
    restart_grace: Annotated[Duration, seconds(0, 3600)] = 0.0
    moves_in_flight: int = Field(default=32, ge=1, le=10_000)
    identify_reserve: Annotated[int | str, BeforeValidator(check_reserve)] = "20%"
    linger_ms: Number = Field(default=8.0, ge=0.0, le=1000.0)


def _window(value: str) -> str:
    parse_window(value)
    return value


class ShardsConfig(Section):
    """How many shards, and which of them run in this cluster; for an automatic count, when it changes."""

    count: Annotated[int | Literal["auto"], BeforeValidator(_count)] = "auto"
    ids: Annotated[str, BeforeValidator(_ids)] | None = None
    guilds_per_shard: int = Field(default=1000, ge=1, le=GUILDS_PER_SHARD_MAX)
    check_every: Annotated[Duration, seconds(60, 7 * 86_400)] = 28_800.0
    max: int | None = Field(default=None, ge=1, le=SHARDS_MAX)
    window: Annotated[str, AfterValidator(_window)] | None = None
    confirm: bool = True

    @field_validator("ids")
    @classmethod
    def _ids_below_count(cls, ids: str | None, info: ValidationInfo) -> str | None:
        count = info.data.get("count")
        if ids is not None and isinstance(count, int):
            parse_ranges(ids, count=count)
        return ids

    def spec(self) -> ShardsSpec:
        """As stored."""
        return ShardsSpec(
            count=self.count,
            ids=self.ids,
            guilds_per_shard=self.guilds_per_shard,
            check_every_s=self.check_every,
            max=self.max or 0,
            window=self.window or "",
            confirm=self.confirm,
        )


class ActivityConfig(Section):
    """One activity. Types: 0 playing, 1 streaming, 2 listening, 3 watching, 4 custom (uses `state`), 5 competing."""

    name: str = Field(min_length=1, max_length=128)
    type: int = Field(default=0, ge=0, le=5)
    url: str | None = None
    state: str | None = Field(default=None, max_length=128)

    @model_validator(mode="after")
    def _type_rules(self) -> Self:
        host = (urlsplit(self.url or "").hostname or "").removeprefix("www.")
        if self.type == 1 and host not in ("twitch.tv", "youtube.com"):
            raise ValueError("type 1 (streaming) needs a url on twitch.tv or youtube.com")
        if self.type == 4 and not self.state:
            raise ValueError("type 4 (custom status) needs state: the text shown")
        return self


class PresenceConfig(Section):
    """The presence of the bot."""

    status: Literal["online", "idle", "dnd", "invisible", "offline"] = "online"
    afk: bool = False
    activities: ListOf[ActivityConfig] = ()


class AppStreamConfig(Section):
    """Settings of one application's stream that differ from `nats.stream` and `nats.replicas`."""

    max_age: Annotated[Duration, seconds(60, 31_536_000)] | None = None
    max_bytes: Size | None = None
    replicas: int | None = Field(default=None, ge=1, le=5)


class AppConfig(Section):
    """One bot."""

    token: Secret
    intents: Annotated[int, BeforeValidator(_intents)]
    shards: ShardsConfig = ShardsConfig()
    presence: PresenceConfig | None = None
    compression: Literal["zstd-stream", "zlib-stream", "none"] = "zstd-stream"
    route: str = Field(default="", max_length=256)
    large_threshold: int = Field(default=50, ge=50, le=250)
    paused: bool = False
    placement: Annotated[dict[str, str], AfterValidator(_placement)] = Field(default={}, max_length=PLACEMENT_MAX)
    weight: Number = Field(default=1.0, ge=0.01, le=100.0)
    stream: AppStreamConfig = AppStreamConfig()
    cache: CacheConfig = CacheConfig()
    events: EventsConfig = EventsConfig()
    invites: InvitesConfig = InvitesConfig()


class ClusterConfig(Section):
    """The whole file."""

    version: Annotated[int, BeforeValidator(_version)]
    cluster: Name = "default"
    nats: NatsConfig
    redis: RedisConfig
    discord: DiscordConfig = DiscordConfig()
    policy: PolicyConfig = PolicyConfig()
    api: ApiConfig = ApiConfig()
    apps: dict[Name, AppConfig] = Field(default={})


SECTIONS: Mapping[tuple[str, ...], type[Section]] = {
    (): ClusterConfig,
    ("nats",): NatsConfig,
    ("nats", "tls"): TlsConfig,
    ("nats", "stream"): StreamConfig,
    ("redis",): RedisConfig,
    ("redis", "tls"): TlsConfig,
    ("discord",): DiscordConfig,
    ("policy",): PolicyConfig,
    ("api",): ApiConfig,
    ("api", "discord_login"): DiscordLoginConfig,
    ("api", "discord_login", "client_secret"): SecretSource,
    ("apps", "*"): AppConfig,
    ("apps", "*", "token"): SecretSource,
    ("apps", "*", "shards"): ShardsConfig,
    ("apps", "*", "presence"): PresenceConfig,
    ("apps", "*", "presence", "activities", "*"): ActivityConfig,
    ("apps", "*", "stream"): AppStreamConfig,
    ("apps", "*", "cache"): CacheConfig,
    ("apps", "*", "cache", "messages"): MessagesConfig,
    ("apps", "*", "events"): EventsConfig,
    ("apps", "*", "events", "prefixes"): PrefixConfig,
    ("apps", "*", "events", "lanes", "*"): LaneConfig,
    ("apps", "*", "invites"): InvitesConfig,
}
"""Which model checks which part of the file, for the suggestion beside an unknown key."""


NATS_SECRET = "config/nats"
REDIS_SECRET = "config/redis"
LOGIN_SECRET = "config/discord-login"


class NatsSettings(Record, frozen=True):
    """How to reach NATS. `password` is sealed, "" for none; the paths are on every node."""

    servers: list[str]
    user: str = ""
    password: str = ""
    credentials: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    replicas: int = 1
    max_age_s: float = 86_400.0
    max_bytes: int = 0


class RedisSettings(Record, frozen=True):
    """How to reach Redis. The URL has no password; `password` is sealed, "" for none; the paths are on every node."""

    url: str
    password: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""


class DiscordSettings(Record, frozen=True):
    """Discord's address; `proxy` "" for none."""

    api_url: str = "https://discord.com/api/v10"
    proxy: str = ""


class PolicySettings(Record, frozen=True):
    """The limits an operator may set. `linger_ms`: time between the ticks at which a busy worker publishes.

    `identify_reserve` is a number of session starts; 0: `identify_reserve_percent` of the daily total.
    """

    lease_ttl_s: float = 5.0
    restart_grace_s: float = 0.0
    moves_in_flight_max: int = 32
    identify_reserve: int = 0
    identify_reserve_percent: float = 20.0
    linger_ms: float = 8.0

    def policy(self) -> Policy:
        """The control plane's policy with these limits."""
        return Policy(
            lease_ttl_s=self.lease_ttl_s,
            restart_grace_s=self.restart_grace_s,
            moves_in_flight_max=self.moves_in_flight_max,
            identify_reserve=self.identify_reserve,
            identify_reserve_percent=self.identify_reserve_percent,
        )


class DiscordLoginSettings(Record, frozen=True):
    """Sign-in with Discord. `client_secret` is sealed. `guilds`: guild id -> role id -> role."""

    client_id: str
    client_secret: str
    guilds: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)


class ApiSettings(Record, frozen=True):
    """The HTTP API. `open` None: by the listening address (`access.exposure`). `public_url`: "" for none."""

    enabled: bool | Literal["auto"] = "auto"
    open: list[str] | None = None
    public_url: str = ""
    trusted_proxies: list[str] = msgspec.field(default_factory=list)
    discord_login: DiscordLoginSettings | None = None


class ClusterSettings(Record, frozen=True):
    """The whole `config` key. Unknown fields are ignored, so that two versions can share a cluster.

    `proof` authenticates the addresses that secrets are sent to (`trust.py`); "" in a cluster without a key.
    `api_proof` authenticates `api`; "" where that is the default.
    """

    nats: NatsSettings
    redis: RedisSettings
    discord: DiscordSettings = DiscordSettings()
    policy: PolicySettings = PolicySettings()
    version: int = 1
    proof: str = ""
    api: ApiSettings = ApiSettings()
    api_proof: str = ""

    @classmethod
    def decode(cls, value: bytes) -> "ClusterSettings":
        """Read a stored value. Raises ValueError when it is corrupt or of a newer version."""
        settings = msgspec.json.decode(value, type=cls)
        if settings.version != 1:
            raise ValueError(f"the cluster's configuration has version {settings.version}; this program knows 1")
        return settings


def policy_of(value: bytes | None) -> Policy:
    """The policy in the `config` key's value; the default one without a value that can be read."""
    try:
        return ClusterSettings.decode(value).policy.policy() if value is not None else Policy()
    except (msgspec.MsgspecError, ValueError):
        return Policy()
