"""Writes what requests change to the audit log. No body of a request goes in: only what handlers say they changed."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from sandwich_coordinator.access.roles import Identity
from sandwich_coordinator.operations.audit import AuditEntry, write_entry
from sandwich_coordinator.store.base import StoreError
from sandwich_node.api.cluster import ApiCluster
from sandwich_node.api.limits import RateLimit
from sandwich_node.api.problem_details import UNKNOWN, code_of, problem_details
from sandwich_node.api.routing import Call, Route
from sandwich_node.logs import redact
from sandwich_sdk.wire.plain_text import plain_json, plain_text

_log = logging.getLogger(__name__)

VALUE_CHARACTERS_MAX = 1000
TEXT_CHARACTERS_MAX = 300
WRITE_S = 2.0
LIMITED = 10
LIMITED_EVERY_S = 360.0
"""Of refusals, and of what programs do often: ten an hour for each identity. Otherwise one could fill the log, which
has a thousand entries, until nothing of others is left in it."""
_MADE = UNKNOWN | {"not-reached"}
"""Errors of changes that were made, or may have been: each has an entry."""


def is_recorded(call: Call, route: Route) -> bool:
    """Whether a request has an entry, done or refused: a dry run and a question have none. Pure.

    A dry run that its identity may not ask for is refused before its query is read, and has one.
    """
    return route.is_change and route.audited != "none" and not getattr(call.query, "dry_run", False)


class Audit:
    """The audit log of the cluster, as this node writes it."""

    def __init__(self, cluster: ApiCluster, *, wall: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._wall = wall
        self._refusals = RateLimit(LIMITED, LIMITED_EVERY_S)
        self._often = RateLimit(LIMITED, LIMITED_EVERY_S)

    async def record(self, call: Call, route: Route, error: Exception | None) -> None:
        """A change through the API, done or refused."""
        await self.note(
            call.identity,
            f"{route.method} {route.path}",
            client=call.client,
            path=call.path,
            before=call.changes.before,
            after=call.changes.after,
            error=error,
            is_often=route.audited == "some",
        )

    async def note(
        self,
        identity: Identity,
        what: str,
        *,
        client: str,
        path: Any = None,
        before: Any = None,
        after: Any = None,
        error: Exception | None = None,
        is_often: bool = False,
    ) -> None:
        """One entry. It does not fail: what cannot be written goes to the node's log. `is_often`: some are left out."""
        who = f"{identity.kind}:{identity.name}"
        limit = self._often if is_often else None
        if error is not None and code_of(error) not in _MADE:
            limit = self._refusals
        if limit is not None and limit.take(who, asyncio.get_running_loop().time()):
            return
        entry = AuditEntry(
            at=self._wall(),
            who=_text(who),
            what=_text(what),
            path={name: _text(value) for name, value in (path or {}).items()},
            before=_value(before),
            after=_value(after),
            result="done" if error is None else code_of(error),
            detail="" if error is None else _text(problem_details(error).detail),
            client=client,
        )
        try:
            async with asyncio.timeout(WRITE_S):
                await write_entry(self._cluster.store, self._cluster.keys, entry)
        except (StoreError, TimeoutError) as failed:
            _log.error("not in the audit log (%s): %s by %s: %s", failed or "etcd is slow", what, who, entry.result)


def _text(value: object) -> str:
    return redact(plain_text(value))[:TEXT_CHARACTERS_MAX]


def _value(value: Any) -> Any:
    """A value as JSON without secrets; a long one as text that is cut off."""
    if value is None:
        return None
    if not isinstance(value, dict | list | tuple | str | int | float | bool | msgspec.Struct):
        value = value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)
    text = redact(plain_json(msgspec.json.encode(value).decode()))
    if len(text) > VALUE_CHARACTERS_MAX:
        return text[:VALUE_CHARACTERS_MAX]
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text
