"""Names of streams and subjects, wire contract version 1.

Every name a consumer may subscribe to is made here and nowhere else. Tokens that come from outside
(application names, lanes) are checked, because NATS stores a publish to the literal subject ``a.*``.
"""

import re

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")

DEFAULT_LANE = "all"


def check_name(value: str, *, what: str) -> str:
    """Return `value` when it may be used as one subject token, else raise ValueError naming `what`."""
    if _NAME.fullmatch(value) is None:
        raise ValueError(
            f"{what} {value!r} must be 1 to 32 characters of a-z, 0-9, '_' and '-', and start with a letter or a digit"
        )
    return value


def stream_name(app: str) -> str:
    """The JetStream stream that holds an application's events."""
    return f"SANDWICH_{check_name(app, what='application')}"


def stream_subjects(app: str) -> list[str]:
    """The subjects that the application's stream captures."""
    return [f"sandwich.{check_name(app, what='application')}.events.>"]


def events_subject(app: str, lane: str, group: int, shard: int) -> str:
    """The subject that one lane of one shard is published on."""
    check_name(app, what="application")
    check_name(lane, what="lane")
    return f"sandwich.{app}.events.{lane}.{group:d}.{shard:d}"


def chain_filter(app: str, group: int, shard: int) -> str:
    """All lanes of one shard: the subject space in which its frames form one chain."""
    return f"sandwich.{check_name(app, what='application')}.events.*.{group:d}.{shard:d}"


def status_subject(app: str) -> str:
    """Where shard, group and application status changes are told, as JSON."""
    return f"sandwich.{check_name(app, what='application')}.status"


RPC_SUBJECTS = "sandwich.*.rpc.*"
"""All requests, as the nodes take them."""

SHARD_VERB = "Sandwich-Verb"
"""Header of a request on `shard_subject`: what is asked."""


def shard_subject(app: str, group: int, shard: int) -> str:
    """Where a shard takes requests that are passed on to it; the nodes' own, not for consumers."""
    return f"sandwich.{check_name(app, what='application')}.shard.{group:d}.{shard:d}"


def rpc_subject(app: str, verb: str) -> str:
    """Where the cluster answers requests (`verb`) for an application."""
    check_name(app, what="application")
    check_name(verb, what="verb")
    return f"sandwich.{app}.rpc.{verb}"
