"""Options of `sandwich group create` and `sandwich nats-config`, read from text."""

from collections.abc import Sequence
from datetime import datetime

from sandwich_coordinator.cli import accounts
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.operations.consumer_groups import RANGE_SHARDS, GroupSpec
from sandwich_coordinator.operations.errors import Invalid


def group_spec(
    app: str, group: str, *, ordered: bool, lane: str, start: str, ack_wait_s: float, shards: int | None
) -> GroupSpec:
    """The group that the options describe. Raises CommandError (2): they are wrong before any server is asked."""
    try:
        return GroupSpec(
            app=app,
            group=group,
            ordered=ordered,
            lane=lane,
            start="new" if start == "new" else "all" if start == "all" else _time(start),
            ack_wait_s=ack_wait_s,
            shards=shards or RANGE_SHARDS,
        )
    except (Invalid, ValueError) as error:
        raise CommandError(str(error)) from None


def _time(text: str) -> datetime:
    """Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--start {text!r} is neither new nor all nor a time such as 2026-01-31T12:00:00Z") from None
    if found.tzinfo is None:
        raise ValueError(f"--start {text!r} has no time zone: add Z or +02:00")
    return found


def config_text(apps: Sequence[str], store: str, listen: str) -> str:
    """A configuration for nats-server with an account for each application. Raises CommandError."""
    if any(char in text for text in (store, listen) for char in '"\n\\'):
        raise CommandError("--store and --listen must have no quotes, backslashes or line breaks")
    try:
        return accounts.server_config(apps, store=store, listen=listen)
    except ValueError as error:
        raise CommandError(str(error)) from None
