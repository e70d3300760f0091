"""The streams of an application besides its events: dead letters, tries, replays. Nodes create and check them.

Where NATS has no users, the first worker that needs a stream creates it, too.
"""

import logging
from typing import Any

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from sandwich_sdk.wire import subjects

_log = logging.getLogger(__name__)

STREAM_EXISTS = 10058
DEAD_LETTERS_AGE_MAX_S = 30 * 24 * 3600.0
DEAD_LETTERS_BYTES_MAX = 256 * 1024 * 1024
"""When the stream is full, new dead letters are refused and their events are retried: none is dropped."""
DUPLICATES_S = 600.0
TRIES_AGE_MAX_S = 3600.0
TRIES_BYTES_MAX = 64 * 1024 * 1024
REPLAYS_AGE_MAX_S = 30 * 24 * 3600.0


def dead_letters_stream(app: str) -> StreamConfig:
    """The application's dead letters."""
    return StreamConfig(
        name=subjects.dead_stream_name(app),
        subjects=[subjects.dead_subject(app, "*")],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_age=DEAD_LETTERS_AGE_MAX_S,
        max_bytes=DEAD_LETTERS_BYTES_MAX,
        duplicate_window=DUPLICATES_S,
    )


def tries_stream(app: str) -> StreamConfig:
    """The tries of events that failed, or were delivered again."""
    return StreamConfig(
        name=subjects.tries_stream_name(app),
        subjects=[subjects.tries_subject(app, "*", "*")],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=TRIES_AGE_MAX_S,
        max_bytes=TRIES_BYTES_MAX,
        max_msgs_per_subject=1,
        duplicate_window=60.0,
    )


def replays_stream(app: str) -> StreamConfig:
    """Dead letters that are replayed to their groups."""
    return StreamConfig(
        name=subjects.replay_stream_name(app),
        subjects=[subjects.replay_subject(app, "*", "*")],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        max_age=REPLAYS_AGE_MAX_S,
    )


async def keep_streams(jetstream: JetStreamContext, app: str, *, replicas: int) -> None:
    """Create the streams that are missing. Remove from the others settings that copy messages into or out of them.

    Their limits are left to the operator. Raises nats-py's errors.
    """
    for wanted in (dead_letters_stream(app), tries_stream(app), replays_stream(app)):
        assert wanted.name is not None
        try:
            present = (await jetstream.stream_info(wanted.name)).config
        except nats.js.errors.NotFoundError:
            try:
                await jetstream.add_stream(wanted, num_replicas=replicas)
            except nats.js.errors.APIError as error:
                if error.err_code != STREAM_EXISTS:
                    raise
            else:
                _log.info("stream %s was created", wanted.name)
            continue
        changes = foreign_settings(present)
        if present.subjects != wanted.subjects:
            changes["subjects"] = wanted.subjects
        if changes:
            _log.warning("removed settings from stream %s: %s", wanted.name, ", ".join(sorted(changes)))
            await jetstream.update_stream(present, **changes)


def foreign_settings(present: StreamConfig) -> dict[str, Any]:
    """Settings that move messages into or out of a stream besides its subjects, each with the value that removes it."""
    return {name: None for name in ("sources", "republish", "subject_transform", "mirror") if getattr(present, name)}
