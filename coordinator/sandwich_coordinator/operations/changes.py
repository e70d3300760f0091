"""What an operation changes in the stored configuration, as values. Front ends render them. Pure."""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

_DERIVED = frozenset({"token_hash", "proof", "api_proof", "paused_at"})
"""They follow from other fields and are not reported."""
_SECRET = frozenset({"token", "nats.password", "redis.password", "api.discord_login.client_secret"})


@dataclass(frozen=True, slots=True)
class AppAdded:
    """A new application."""

    app: str
    shards: int | Literal["auto"]
    intents: int


@dataclass(frozen=True, slots=True)
class AppRemoved:
    """The application and its shards go."""

    app: str


@dataclass(frozen=True, slots=True)
class AppReplaced:
    """The application's stored configuration cannot be read and is replaced."""

    app: str


@dataclass(frozen=True, slots=True)
class AppChange:
    """One field of an application, by its dotted path in the record. A secret's values are None."""

    app: str
    path: str
    before: Any
    after: Any
    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class ShardsRetried:
    """These failed shards of the application try again."""

    app: str
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SettingsAdded:
    """The cluster has its first settings."""


@dataclass(frozen=True, slots=True)
class SettingsReplaced:
    """The cluster's stored settings cannot be read and are replaced."""


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """One field of the cluster's settings, by its dotted path. A secret's values are None."""

    path: str
    before: Any
    after: Any
    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class SettingsAuthenticated:
    """The same settings, with a proof by this cluster key; "" for none."""

    key_id: str


Change = (
    AppAdded
    | AppRemoved
    | AppReplaced
    | AppChange
    | ShardsRetried
    | SettingsAdded
    | SettingsReplaced
    | SettingsChange
    | SettingsAuthenticated
)


def app_changes(app: str, before: msgspec.Struct, after: msgspec.Struct) -> list[AppChange]:
    """What differs between two records of an application."""
    return [AppChange(app, *field) for field in _changed(before, after)]


def settings_changes(before: msgspec.Struct, after: msgspec.Struct) -> list[SettingsChange]:
    """What differs between two settings of the cluster."""
    return [SettingsChange(*field) for field in _changed(before, after)]


def _changed(before: msgspec.Struct, after: msgspec.Struct) -> list[tuple[str, Any, Any, bool]]:
    """(path, before, after, is it a secret) of each field that differs; new fields first, then by path."""
    old, new = _fields(before), _fields(after)
    found: list[tuple[str, Any, Any, bool]] = []
    for path in sorted(old.keys() | new.keys(), key=lambda name: (name not in new, name)):
        if old.get(path) == new.get(path) or path in _DERIVED:
            continue
        secret = path in _SECRET
        found.append((path, None if secret else old.get(path), None if secret else new.get(path), secret))
    return found


def _fields(record: msgspec.Struct) -> dict[str, Any]:
    """Every field, defaults included, by dotted path."""
    return _flat(_plain(record))


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{path}.{name}" if path else name)
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    return {name: _plain(inner) for name, inner in value.items()} if isinstance(value, dict) else value
