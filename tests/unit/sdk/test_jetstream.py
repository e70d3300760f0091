"""The pure parts of reading from JetStream."""

from datetime import UTC, datetime

import pytest
from nats.js.api import DeliverPolicy

from sandwich_sdk.groups import SourceOptions, start_policy
from sandwich_sdk.pull_consumer import AckAddress


def test_a_reply_subject_is_read_with_and_without_a_domain() -> None:
    plain = AckAddress.parse("$JS.ACK.SANDWICH_app.bot.2.17.40.1700000000000000001.5")
    assert plain == AckAddress(tries=2, stream_seq=17, published_ns=1700000000000000001)
    assert AckAddress.parse("$JS.ACK.hub.hash.SANDWICH_app.bot.2.17.40.1700000000000000001.5.x") == plain
    with pytest.raises(ValueError, match="not a JetStream"):
        AckAddress.parse("_INBOX.x")


def test_a_group_that_was_deleted_continues_behind_the_last_frame_received() -> None:
    assert start_policy("new", last_seen=9, stream_is_new=False) == {
        "deliver_policy": DeliverPolicy.BY_START_SEQUENCE,
        "opt_start_seq": 10,
    }


def test_a_stream_that_was_created_again_is_read_from_its_beginning() -> None:
    assert start_policy("new", last_seen=9, stream_is_new=True) == {"deliver_policy": DeliverPolicy.ALL}


def test_a_new_group_starts_where_the_options_say() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    assert start_policy("new", last_seen=0, stream_is_new=True) == {"deliver_policy": DeliverPolicy.NEW}
    assert start_policy("all", last_seen=0, stream_is_new=True) == {"deliver_policy": DeliverPolicy.ALL}
    assert start_policy(moment, last_seen=0, stream_is_new=True)["opt_start_time"] == moment


def test_the_repr_of_the_options_contains_no_credentials() -> None:
    options = SourceOptions(
        servers=["nats://user:hunter2@example"],
        apps=["a"],
        group="g",
        lane="all",
        start="new",
        ack_wait_s=1.0,
        connect_timeout_s=None,
        connection={"password": "hunter2"},
    )
    assert "hunter2" not in repr(options)
