"""Makes objects of Redis's replies. Corrupt values are logged and treated as missing."""

from collections.abc import Mapping
from typing import Any, TypeVar

from sandwich_sdk.cache import corruption
from sandwich_sdk.cache.objects import Entity, Member, read_object

E = TypeVar("E", bound=Entity)


def entity(kind: type[E], value: bytes | None, *, key: str) -> E | None:
    """One object; None when it is missing or corrupt. `key` is for the log."""
    raw = _object(value, key)
    return None if raw is None else kind(raw)


def entities(kind: type[E], values: Mapping[bytes, bytes] | None, *, key: str) -> list[E]:
    """The objects of a hash, ordered by id."""
    ordered = sorted((values or {}).items(), key=lambda item: (len(item[0]), item[0]))
    return [one for _, value in ordered if (one := entity(kind, value, key=key)) is not None]


def member(guild: str, user: str, value: bytes | None, *, key: str) -> Member | None:
    """A member as cached: the user may have nothing but the id."""
    raw = _object(value, key)
    if raw is None:
        return None
    known = raw.get("user")
    raw["user"] = {**known, "id": user} if isinstance(known, dict) else {"id": user}
    return Member(raw, guild)


def with_user(found: Member, value: bytes | None, *, key: str) -> Member:
    """The same member with the whole user, as Discord sends it."""
    raw = _object(value, key)
    if raw is None:
        return found
    return Member({**found.raw, "user": {**found.raw["user"], **raw}}, found.guild_id)


def _object(value: bytes | None, key: str) -> dict[str, Any] | None:
    if value is None:
        return None
    try:
        return read_object(value)
    except ValueError:
        corruption.report(key, "a value that is not a JSON object")
        return None
