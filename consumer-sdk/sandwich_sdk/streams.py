"""The streams beside an application's events: dead letters, notes of tries, replays. Nodes make and keep them.

Where NATS has no users, the first worker that needs one makes it, too.
"""

import logging
from typing import Any

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from sandwich_sdk.wire import subjects

_log = logging.getLogger(__name__)

STREAM_EXISTS = 10058
LETTERS_AGE_MAX_S = 30 * 24 * 3600.0
LETTERS_BYTES_MAX = 256 * 1024 * 1024
"""When so much is kept, the next letter is refused, and its event goes on being tried: nothing is thrown away."""
DUPLICATES_S = 600.0
NOTES_AGE_MAX_S = 3600.0
NOTES_BYTES_MAX = 64 * 1024 * 1024
REPLAYS_AGE_MAX_S = 30 * 24 * 3600.0


def letters_stream(app: str) -> StreamConfig:
    """The application's dead letters."""
    return StreamConfig(
        name=subjects.dead_stream_name(app),
        subjects=[subjects.dead_subject(app, "*")],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_age=LETTERS_AGE_MAX_S,
        max_bytes=LETTERS_BYTES_MAX,
        duplicate_window=DUPLICATES_S,
    )


def notes_stream(app: str) -> StreamConfig:
    """How often events of the application have failed."""
    return StreamConfig(
        name=subjects.tries_stream_name(app),
        subjects=[subjects.tries_subject(app, "*", "*")],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=NOTES_AGE_MAX_S,
        max_bytes=NOTES_BYTES_MAX,
        max_msgs_per_subject=1,
        duplicate_window=60.0,
    )


def replays_stream(app: str) -> StreamConfig:
    """Dead letters on their way back to their groups."""
    return StreamConfig(
        name=subjects.replay_stream_name(app),
        subjects=[subjects.replay_subject(app, "*", "*")],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        max_age=REPLAYS_AGE_MAX_S,
    )


async def keep_streams(jetstream: JetStreamContext, app: str, *, replicas: int) -> None:
    """Make the three that are missing; take out of the others what would carry messages in or out of them.

    Their limits are the operator's. Raises nats-py's errors.
    """
    for wanted in (letters_stream(app), notes_stream(app), replays_stream(app)):
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
                _log.info("stream %s was made", wanted.name)
            continue
        changes = foreign_settings(present)
        if present.subjects != wanted.subjects:
            changes["subjects"] = wanted.subjects
        if changes:
            _log.warning("stream %s had settings that are not ours: %s", wanted.name, ", ".join(sorted(changes)))
            await jetstream.update_stream(present, **changes)


def foreign_settings(present: StreamConfig) -> dict[str, Any]:
    """What brings messages into a stream or out of it past its subjects, each with the value that takes it away."""
    return {name: None for name in ("sources", "republish", "subject_transform", "mirror") if getattr(present, name)}
