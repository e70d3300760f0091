"""Names of streams and subjects, wire contract version 1.

Every name that a consumer may subscribe to is built here and nowhere else. Tokens that come from outside
(application names, lanes) are checked, because NATS stores a publish to the literal subject ``a.*``.
"""

import re

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")

DEFAULT_LANE = "all"

EVERY_LANE = "*"
"""In place of a lane: all lanes of the application, in one order."""


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


def group_filter(app: str, group: int) -> str:
    """All lanes of all shards of one shard group."""
    return f"sandwich.{check_name(app, what='application')}.events.*.{group:d}.*"


def check_lane(lane: str) -> str:
    """Return `lane` when it names one, or is `EVERY_LANE`; else raise ValueError."""
    return lane if lane == EVERY_LANE else check_name(lane, what="lane")


def lane_filter(app: str, lane: str) -> str:
    """Every shard of one lane, or of all of them."""
    return f"sandwich.{check_name(app, what='application')}.events.{check_lane(lane)}.>"


def shard_filter(app: str, lane: str, shard: int, *, group: int | None = None) -> str:
    """One lane, or all, of a shard id in one shard group; None: in every one, so that it matches after a switch."""
    of_group = "*" if group is None else f"{group:d}"
    return f"sandwich.{check_name(app, what='application')}.events.{check_lane(lane)}.{of_group}.{shard:d}"


def empty_filter(app: str, lane: str) -> str:
    """A filter of the lane that matches no published subject."""
    return f"sandwich.{check_name(app, what='application')}.events.{check_lane(lane)}.none.none"


def status_subject(app: str) -> str:
    """Where changes of shards, groups and applications are published, as JSON."""
    return f"sandwich.{check_name(app, what='application')}.status"


RPC_SUBJECTS = "sandwich.*.rpc.*"
"""All requests, for a node's permissions; it subscribes to those of its cluster's applications."""

SHARD_VERB = "Sandwich-Verb"
"""Header of a request on `shard_subject`: the verb."""


def shard_subject(app: str, group: int, shard: int) -> str:
    """Where a shard receives requests that a node forwards. Internal to the nodes."""
    return f"sandwich.{check_name(app, what='application')}.shard.{group:d}.{shard:d}"


def rpc_subject(app: str, verb: str) -> str:
    """Where the cluster answers requests (`verb`; `*` for all) for an application."""
    check_name(app, what="application")
    if verb != "*":
        check_name(verb, what="verb")
    return f"sandwich.{app}.rpc.{verb}"


# Names for consumer groups. Event streams are named SANDWICH_<app>, so that no application name can collide with the
# streams below, even on a case-insensitive file system.


def dead_stream_name(app: str) -> str:
    """The stream that holds the application's dead letters."""
    return f"SANDWICH-DEAD_{check_name(app, what='application')}"


def dead_subject(app: str, group: str) -> str:
    """Where a consumer group's dead letters go; `*` for every group."""
    return f"sandwich.{check_name(app, what='application')}.dead.{_group(group)}"


def replay_stream_name(app: str) -> str:
    """The stream that holds dead letters that are replayed to their group."""
    return f"SANDWICH-REPLAY_{check_name(app, what='application')}"


def replay_subject(app: str, group: str, letter: int | str) -> str:
    """Where one dead letter (its sequence in its stream; `*` for all) is replayed to its consumer group."""
    return f"sandwich.{check_name(app, what='application')}.replay.{_group(group)}.{letter}"


def tries_stream_name(app: str) -> str:
    """The stream in which an application's consumer groups save the tries of events."""
    return f"SANDWICH-TRIES_{check_name(app, what='application')}"


def tries_subject(app: str, group: str, frame: str) -> str:
    """Where a consumer group saves the tries of one frame's events; `*` for every group or frame."""
    return f"sandwich.{check_name(app, what='application')}.tries.{_group(group)}.{frame}"


def workers_subject(app: str, group: str) -> str:
    """Where the workers of an ordered consumer group send heartbeats. Not stored."""
    return f"sandwich.{check_name(app, what='application')}.workers.{_group(group)}"


def _group(name: str) -> str:
    return name if name == "*" else check_name(name, what="group")
